"""How many threads numerical libraries use: one in a template, since threads cannot be forked, and in a fork what its
environment says, or one for each processor.

The libraries read the environment when they are loaded, which was in the template. From then on each has a function
that takes the number. OpenBLAS starts its threads in that function, and each looks for work without a pause for a tenth
of a second, beside the start of a container. But it ends them before a fork, and starts them again with the first
product that is worth it: so it gets its number in the template, where a fork follows at once.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from squall.guest import libc

_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


PROBE_S = 2.0
"""For a fork that sees whether a library's threads end. A healthy one takes milliseconds."""


class _Kind(NamedTuple):
    """Libraries of one interface."""

    files: tuple[str, ...]
    """Parts of the names of their files."""
    names: tuple[tuple[str, str], ...]
    """What asks for the number and what sets it, in each spelling there is."""
    variables: tuple[str, ...]
    """Where the number is taken from, the first one that is set."""
    is_eager: bool = False
    """Its threads start when it is given a number, and not when it computes."""


_OPENBLAS = tuple(
    (f"{prefix}openblas_get_num_threads{suffix}", f"{prefix}openblas_set_num_threads{suffix}")
    for prefix in ("", "scipy_")
    for suffix in ("", "64_", "_64")
)
_KINDS = (
    _Kind(("blas",), _OPENBLAS, ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"), is_eager=True),
    _Kind(
        ("libblis",),
        (("bli_thread_get_num_threads", "bli_thread_set_num_threads"),),
        ("BLIS_NUM_THREADS", "OMP_NUM_THREADS"),
    ),
    _Kind(("mkl_rt",), (("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),), ("MKL_NUM_THREADS", "OMP_NUM_THREADS")),
    _Kind(("libgomp", "libiomp", "libomp"), (("omp_get_max_threads", "omp_set_num_threads"),), ("OMP_NUM_THREADS",)),
)


# torch's after OpenMP's, which it uses.
_MODULES = (
    ("torch", "get_num_threads", "set_num_threads", ("OMP_NUM_THREADS", "MKL_NUM_THREADS")),
    ("cv2", "getNumThreads", "setNumThreads", ("OPENCV_FOR_THREADS_NUM",)),
    ("numexpr", "get_num_threads", "set_num_threads", ("NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS")),
)
"""Modules with functions of their own that ask for the number and set it, and where it is taken from."""


def use_one() -> dict[str, str]:
    """Let the libraries that are loaded from now on use one thread; gives what was set for that."""
    ones = dict.fromkeys(_VARIABLES, "1")
    os.environ.update(ones)
    return ones


def prepare(environ: Mapping[str, str]) -> tuple[Callable[[], None], ...]:
    """For each library that is loaded, and uses one thread, what gives it its number in a fork. One that user code has
    given another number keeps that.

    Args:
        environ: what a fork's is going to be, as a rule. What starts threads at once has its number from that now, and
            no threads. May fork: of a process that can be.
    """
    found: list[Callable[[], None]] = []
    for path in loaded_libraries():
        name = os.path.basename(path)
        for kind in _KINDS:
            if any(part in name for part in kind.files):
                found += _of_library(path, kind, environ)
    for name, ask, give, variables in _MODULES:
        module = sys.modules.get(name)
        asked, given = getattr(module, ask, None), getattr(module, give, None)
        if asked is not None and given is not None and _is_one(asked):
            found.append(_setter(asked, given, variables))
    return tuple(found)


def _is_one(ask: Callable[[], int]) -> bool:
    try:
        return ask() == 1
    except Exception:  # noqa: BLE001 - what stands in for a library answers as it likes
        return False


def _of_library(path: str, kind: _Kind, environ: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    try:
        library = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_NOLOAD)
    except OSError:
        return  # unloaded meanwhile
    for ask, give in kind.names:
        if hasattr(library, ask) and hasattr(library, give) and library[ask]() == 1:
            setter = library[give]
            setter.argtypes, setter.restype = [ctypes.c_int], None
            if kind.is_eager:
                give_without_threads(setter, wanted_count(kind.variables, environ))
            yield _setter(library[ask], setter, kind.variables)


def give_without_threads(give: Callable[[int], object], count: int) -> None:
    """Give a library its number, and leave it no threads, if it ends them before a fork; seen in a fork first."""
    if count == 1:
        return
    probe = libc.fork()
    if not probe:
        give(count)
        _fork_once()
        os._exit(len(os.listdir("/proc/self/task")) - 1)
    if _exit_code(probe) == 0:
        give(count)
        _fork_once()


def _fork_once() -> None:
    child = libc.fork()
    if not child:
        os._exit(0)
    _exit_code(child)


def _exit_code(pid: int) -> int | None:
    """Of a child, which is ended when it does not end. None: nobody knows, as user code ignores SIGCHLD."""
    deadline = time.monotonic() + PROBE_S
    try:
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.0005)
        os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


def _setter(ask: Callable[[], int], give: Callable[[int], object], variables: tuple[str, ...]) -> Callable[[], None]:
    def set_count() -> None:
        count = wanted_count(variables, os.environ)
        if count != ask():
            give(count)

    return set_count


def wanted_count(variables: tuple[str, ...], environ: Mapping[str, str]) -> int:
    """What the first of these variables that is set says; without one of them, a thread for each processor."""
    for name in variables:
        # OpenMP takes a number for each level of nesting.
        text = environ.get(name, "").partition(",")[0].strip()
        if text.isdigit() and int(text) > 0:
            return int(text)
    return len(os.sched_getaffinity(0))


def loaded_libraries() -> list[str]:
    """Paths of the shared libraries that are mapped."""
    with open("/proc/self/maps", errors="surrogateescape") as file:
        paths = (line.split(None, 5)[5].rstrip("\n") for line in file if line.count("/"))
        return sorted({path for path in paths if ".so" in os.path.basename(path)})
