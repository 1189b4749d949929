"""How many threads numerical libraries use: one in a template, since threads cannot be forked, and in a fork what its
environment says, or one for each processor.

The libraries read the environment when they are loaded, which was in the template. From then on each has a function
that takes the number.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


class _Kind(NamedTuple):
    """Libraries of one interface."""

    files: tuple[str, ...]
    """Parts of the names of their files."""
    names: tuple[tuple[str, str], ...]
    """What asks for the number and what sets it, in each spelling there is."""
    variables: tuple[str, ...]
    """Where the number is taken from, the first one that is set."""


_OPENBLAS = tuple(
    (f"{prefix}openblas_get_num_threads{suffix}", f"{prefix}openblas_set_num_threads{suffix}")
    for prefix in ("", "scipy_")
    for suffix in ("", "64_", "_64")
)
_KINDS = (
    _Kind(("blas",), _OPENBLAS, ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")),
    _Kind(
        ("libblis",),
        (("bli_thread_get_num_threads", "bli_thread_set_num_threads"),),
        ("BLIS_NUM_THREADS", "OMP_NUM_THREADS"),
    ),
    _Kind(("mkl_rt",), (("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),), ("MKL_NUM_THREADS", "OMP_NUM_THREADS")),
    _Kind(("libgomp", "libiomp", "libomp"), (("omp_get_max_threads", "omp_set_num_threads"),), ("OMP_NUM_THREADS",)),
)


def use_one() -> dict[str, str]:
    """Let the libraries that are loaded from now on use one thread; gives what was set for that."""
    ones = dict.fromkeys(_VARIABLES, "1")
    os.environ.update(ones)
    return ones


def setters() -> tuple[Callable[[], None], ...]:
    """For each library that is loaded, and uses one thread, what gives it its number in a fork. One that user code has
    given another number keeps that."""
    found: list[Callable[[], None]] = []
    for path in _loaded_libraries():
        name = os.path.basename(path)
        for kind in _KINDS:
            if any(part in name for part in kind.files):
                found += _of_library(path, kind)
    torch = sys.modules.get("torch")
    # After OpenMP's, which it uses.
    if torch is not None and torch.get_num_threads() == 1:
        found.append(_setter(torch.set_num_threads, ("OMP_NUM_THREADS", "MKL_NUM_THREADS")))
    opencv = sys.modules.get("cv2")
    if opencv is not None and opencv.getNumThreads() == 1:
        found.append(_setter(opencv.setNumThreads, ("OPENCV_FOR_THREADS_NUM",)))
    numexpr = sys.modules.get("numexpr")
    if numexpr is not None and numexpr.get_num_threads() == 1:
        found.append(_setter(numexpr.set_num_threads, ("NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS")))
    return tuple(found)


def _of_library(path: str, kind: _Kind) -> Iterator[Callable[[], None]]:
    try:
        library = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_NOLOAD)
    except OSError:
        return  # unloaded meanwhile
    for ask, give in kind.names:
        if hasattr(library, ask) and hasattr(library, give) and library[ask]() == 1:
            setter = library[give]
            setter.argtypes, setter.restype = [ctypes.c_int], None
            yield _setter(setter, kind.variables)


def _setter(give: Callable[[int], object], variables: tuple[str, ...]) -> Callable[[], None]:
    def set_count() -> None:
        count = wanted_count(variables)
        if count != 1:
            give(count)

    return set_count


def wanted_count(variables: tuple[str, ...]) -> int:
    """What the first of these variables that is set says; without one of them, a thread for each processor."""
    for name in variables:
        # OpenMP takes a number for each level of nesting.
        text = os.environ.get(name, "").partition(",")[0].strip()
        if text.isdigit() and int(text) > 0:
            return int(text)
    return len(os.sched_getaffinity(0))


def _loaded_libraries() -> list[str]:
    with open("/proc/self/maps", errors="surrogateescape") as file:
        paths = (line.split(None, 5)[5].rstrip("\n") for line in file if line.count("/"))
        return sorted({path for path in paths if ".so" in os.path.basename(path)})
