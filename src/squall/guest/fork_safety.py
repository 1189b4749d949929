"""What a process must not have when it is forked, each with its cause in words for the user whose code it is.

A fork has one thread and a copy of the memory. Threads are missing in it; everything that is not memory (sockets,
pipes, positions in files, memory that is shared on purpose) is the same for all forks and their template, and so are
programs that were started. What libraries keep only to be quicker is closed before, by `quiet`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from types import FrameType, TracebackType
from typing import Any, NamedTuple

ENDING_S = 0.5
"""How long a thread may take to end."""
OBSTACLES_MAX = 6
"""Told at once."""
OBSTACLES_CHARS_MAX = 300
"""Together: what to do comes after them, and what is told of a template is cut off at 500."""
_EMPTY_IN_FORKS = ("/tmp", "/dev/shm")
"""Where they are file systems in memory: each container has its own."""
_HARMLESS_DEVICES = frozenset({"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"})
ADVICE = "start and open such things in a hook with @squall.enter(snap=False), or when the first input comes"
_NATIVE_LIBRARIES = {
    "openblas": "OpenBLAS",
    "libgomp": "OpenMP",
    "libiomp": "OpenMP",
    "libomp": "OpenMP",
    "cygrpc": "grpc",
    "libarrow": "pyarrow",
    "polars": "polars",
    "libtbb": "TBB",
    "librdkafka": "librdkafka",
    "libjemalloc": "jemalloc",
    "tokenizers": "tokenizers",
    "libtorch": "torch",
    "cv2": "OpenCV",
    "tensorflow": "tensorflow",
    "jaxlib": "jax",
    "duckdb": "duckdb",
}
"""Parts of the names of libraries that start threads of their own, and what users know them as."""
_SYSTEM_V = {"shm": "shared memory", "sem": "a set of semaphores", "msg": "a queue of messages"}
_HARMLESS_THREADS = frozenset({"jemalloc_bg_thd"})
"""Of an allocator that has prepared for forks, and goes on without it: pyarrow's, and so of what uses pandas."""
_STARTERS = ("threading", "concurrent", "asyncio", "multiprocessing", "squall", "importlib")
"""Who starts a thread for somebody else."""


class Found(NamedTuple):
    """How it stands with this process."""

    obstacles: tuple[str, ...]
    """Why it cannot be forked."""
    files: Mapping[int, str] = {}
    """Descriptors that are open for reading, and where each file is."""
    outputs: Mapping[int, int] = {}
    """Descriptors that are the same pipe as 1 or 2."""

    @property
    def cause(self) -> str:
        """All of it in words for the user; empty if it can be forked."""
        if not self.obstacles:
            return ""
        told = [one[:OBSTACLES_CHARS_MAX] for one in self.obstacles[:OBSTACLES_MAX]]
        while len(told) > 1 and len("; ".join(told)) > OBSTACLES_CHARS_MAX:
            told.pop()
        left_out = len(self.obstacles) - len(told)
        more = (f"and {left_out} more",) if left_out > 0 else ()
        return "; ".join((*told, *more)) + f". A copy would not have it, or not its own: {ADVICE}"


class ThreadWatch:
    """Notes, while it is entered, which module starts which thread."""

    def __init__(self) -> None:
        self._module: dict[threading.Thread, str] = {}
        self._is_on = False

    def __enter__(self) -> ThreadWatch:
        start = threading.Thread.start
        self._is_on = True

        def noted(thread: threading.Thread) -> None:
            if self._is_on:
                self._module[thread] = _calling_module()
            start(thread)

        self._start, self._noted = start, noted
        threading.Thread.start = noted  # type: ignore[assignment,method-assign]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_on = False
        # Whatever else has put itself in front of ours meanwhile stays there.
        if threading.Thread.start is self._noted:
            threading.Thread.start = self._start  # type: ignore[method-assign]

    def module_of(self, thread: threading.Thread) -> str:
        """Who started it, else whose code it runs; empty where neither is known."""
        return self._module.get(thread) or _running_module(thread)


def quiet() -> None:
    """Close what libraries start again by themselves: the monitor of progress bars, idle HTTP connections. What that
    fails with says nothing: what is open then is seen."""
    tqdm = sys.modules.get("tqdm.std")
    if tqdm is not None:
        with contextlib.suppress(Exception):
            _quiet_tqdm(tqdm)
    for kind, close in _pools():
        for one in _instances(kind):
            with contextlib.suppress(Exception):
                close(one)


def _quiet_tqdm(tqdm: Any) -> None:
    if tqdm.tqdm.monitor is not None:
        tqdm.tqdm.monitor.exit()
        tqdm.tqdm.monitor = None
    # A lock between processes, which would be one for all forks; made again with the next bar.
    lock = tqdm.TqdmDefaultWriteLock
    if "mp_lock" in vars(lock):
        del lock.mp_lock
    if "_lock" in vars(tqdm.tqdm):
        del tqdm.tqdm._lock


def _pools() -> Iterator[tuple[type, Callable[[Any], None]]]:
    manager = getattr(sys.modules.get("urllib3.poolmanager"), "PoolManager", None)
    if isinstance(manager, type):
        yield manager, lambda one: one.clear()
    pool = getattr(sys.modules.get("httpcore"), "ConnectionPool", None)
    if isinstance(pool, type):
        yield pool, lambda one: one.close()


def look(watch: ThreadWatch, *kept: int, has_threads: bool = False) -> Found:
    """How it stands; `kept` are descriptors of ours. With `has_threads` there may be some: they are saved with all else
    that is in the container."""
    ours = () if has_threads else (*_threads(watch), *_daemons(), *_system_v(), *_directory())
    obstacles = [*ours, *_cuda(), *_programs(), *_shared_memory()]
    files: dict[int, str] = {}
    outputs: dict[int, int] = {}
    pipes = {_identity(number): number for number in (1, 2)}
    for descriptor in _descriptors():
        if descriptor <= 2 or descriptor in kept:
            continue
        try:
            kind = os.fstat(descriptor).st_mode
        except OSError:
            continue  # what listed them
        if stat.S_ISFIFO(kind) and _identity(descriptor) in pipes:
            outputs[descriptor] = pipes[_identity(descriptor)]
        elif stat.S_ISREG(kind) and _is_read_only(descriptor) and not _target(descriptor).startswith("/proc/"):
            files[descriptor] = _target(descriptor)
            obstacles += () if has_threads else _not_in_forks(descriptor)
        elif obstacle := _describe(descriptor, kind):
            obstacles.append(obstacle)
    return Found(tuple(dict.fromkeys(obstacles)), files, outputs)


# Threads


def _threads(watch: ThreadWatch) -> Iterator[str]:
    known = {thread.native_id: thread for thread in threading.enumerate()}
    # One that Python has joined may take a moment until the kernel is done with it.
    deadline = time.monotonic() + ENDING_S
    while _others() - known.keys() and time.monotonic() < deadline:
        time.sleep(ENDING_S / 50)
    native: list[str] = []
    for number in sorted(_others()):
        thread = known.get(number)
        if thread is None:
            native.append(_read(f"/proc/self/task/{number}/comm"))
            continue
        module = watch.module_of(thread)
        whose = f", started by module {module}" if module else ""
        yield f"thread {thread.name!r} is running{whose}"
    yield from _strangers({thread.ident for thread in known.values()}, native)
    if native:
        yield _describe_native(native)


def _strangers(known: Container[int | None], native: list[str]) -> Iterator[str]:
    """Of threads that `threading` has not started those that run Python. Python's number of one says nothing of the
    kernel's: for each a name is taken from those of `native`, if it can be the one that such a thread begins with."""
    ours = _read("/proc/self/comm")
    for ident, frame in sys._current_frames().items():
        if ident in known or not native:
            continue
        native.remove(ours if ours in native else native[0])
        module = _outermost_module(frame)
        yield "a thread of _thread.start_new_thread is running" + (f", code of module {module}" if module else "")


def _others() -> set[int]:
    """Threads beside the main one that matter, by their numbers."""
    numbers = {int(name) for name in os.listdir("/proc/self/task")} - {os.getpid()}
    return {one for one in numbers if _read(f"/proc/self/task/{one}/comm") not in _HARMLESS_THREADS}


def _describe_native(names: list[str]) -> str:
    maps = _read("/proc/self/maps")
    libraries = sorted({title for part, title in _NATIVE_LIBRARIES.items() if part in maps})
    hint = f", of one of these perhaps: {', '.join(libraries)}" if libraries else ""
    named = ", ".join(sorted(set(filter(None, names)))) or "unknown"
    count = "1 thread" if len(names) == 1 else f"{len(names)} threads"
    return f"{count} of compiled code ({named}) {'is' if len(names) == 1 else 'are'} running{hint}"


def _calling_module() -> str:
    """The module of the user's, or of a library, that has caused this call."""
    frame: FrameType | None = sys._getframe(2)
    module = ""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _STARTERS:
            return module
        frame = frame.f_back
    return module


def _running_module(thread: threading.Thread) -> str:
    return _outermost_module(sys._current_frames().get(thread.ident or 0))


def _outermost_module(frame: FrameType | None) -> str:
    """Of the outermost code that is run, but for what runs all threads."""
    found = ""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _STARTERS:
            found = module
        frame = frame.f_back
    return found


# The rest


def _cuda() -> Iterator[str]:
    # What has that name and no such part, as what stands in for it does, has initialised nothing.
    asked = getattr(getattr(sys.modules.get("torch"), "cuda", None), "is_initialized", None)
    if (asked is not None and asked()) or any(_target(number).startswith("/dev/nvidia") for number in _descriptors()):
        yield "CUDA is in use, which no fork can go on with"


def _programs() -> Iterator[str]:
    for _, name, parent in _processes():
        if parent == os.getpid():
            yield f"the program {name!r} is running, which this process started"


def _daemons() -> Iterator[str]:
    """Programs that are nobody's children any more: they stay in the template's container."""
    if not _is_in_container():
        return
    for pid, name, parent in _processes():
        if pid not in (1, os.getpid()) and parent != os.getpid():
            yield f"the program {name!r} is running in the background"


def _processes() -> Iterator[tuple[int, str, int]]:
    """Pid, name and parent of each that is there to see and has not ended."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        # "pid (name) state parent …", and a name may have anything in it.
        head, _, tail = _read(f"/proc/{entry}/stat").rpartition(")")
        words = tail.split()
        if len(words) > 1 and words[0] not in "ZX":
            yield int(entry), head.partition("(")[2], int(words[1])


def _system_v() -> Iterator[str]:
    if not _is_in_container():
        return
    for kind, title in _SYSTEM_V.items():
        if len(_read(f"/proc/sysvipc/{kind}").splitlines()) > 1:
            yield f"{title} of System V is in use, which would be missing in containers"


def _directory() -> Iterator[str]:
    """Where user code has gone to, which a fork goes to by its path."""
    try:
        os.getcwd()
    except FileNotFoundError:
        yield f"the working directory {os.readlink('/proc/self/cwd').removesuffix(' (deleted)')} is not there any more"


def _is_in_container() -> bool:
    """What is to be seen beside this process is a template's own: who has started it is outside."""
    return os.getppid() == 0


def _not_in_forks(descriptor: int) -> Iterator[str]:
    """A file that is open for reading, and that a container could not open at its path."""
    path = _target(descriptor)
    if not _leads_to(path, descriptor):
        yield f"the file {path.removesuffix(' (deleted)')} is open, and not there any more"
        return
    for place in _EMPTY_IN_FORKS:
        if path.startswith(f"{place}/") and os.path.ismount(place) and _is_in_container():
            yield f"the file {path} is open, and {place} is empty in each container"


def _shared_memory() -> Iterator[str]:
    found = set()
    for line in _read("/proc/self/maps").splitlines():
        words = line.split(None, 5)
        if len(words) > 1 and words[1].startswith("rw") and words[1].endswith("s"):
            found.add(words[5] if len(words) > 5 else "")
    for path in sorted(found):
        if path.startswith("/dev/nvidia"):
            continue  # said already
        what = (
            "a lock of multiprocessing" if "/sem." in path else f"memory shared between processes ({path or 'no name'})"
        )
        yield f"{what} is in use, which would be one for all containers"


def _describe(descriptor: int, kind: int) -> str:
    """Why this descriptor cannot be forked; empty if it can."""
    target = _target(descriptor)
    if stat.S_ISDIR(kind) or target.startswith("/proc/"):
        return f"{target} is open, which leads to the files of another container"
    if stat.S_ISREG(kind):
        return f"the file {target} is open for writing, by all containers at once"
    if stat.S_ISSOCK(kind):
        return _describe_socket(descriptor)
    if stat.S_ISFIFO(kind):
        return "a pipe is open, perhaps of multiprocessing"
    if stat.S_ISCHR(kind):
        is_harmless = target in _HARMLESS_DEVICES or target.startswith("/dev/nvidia")  # that was said already
        return "" if is_harmless else f"the device {target} is open"
    if "eventpoll" in target:
        return f"an event loop is open{_of_holder(_loops())}"
    what = re.sub(r"^anon_inode:\[?|\]$", "", target)
    return f"a descriptor of the kernel ({what}) is open"


def _describe_socket(descriptor: int) -> str:
    peer = ""
    with socket.socket(fileno=os.dup(descriptor)) as one:
        is_local = one.family == socket.AF_UNIX
        is_listening = False
        with contextlib.suppress(OSError):
            is_listening = bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        with contextlib.suppress(OSError):
            peer = _address(one.getsockname() if is_listening else one.getpeername())
    holders = [one for one in _instances(socket.socket) if _number_of(one) == descriptor]
    if is_local and not peer and not is_listening and (loops := _loops()):
        return f"an event loop is open{_of_holder(loops)}"
    what = "a socket is open" if not peer else f"a connection to {peer} is open"
    if is_listening:
        what = f"a socket is listening at {peer}"
    return f"{what}{_of_holder(holders)}"


def _address(address: Any) -> str:
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return os.fsdecode(address)


def _loops() -> list[Any]:
    """Event loops that nobody has closed."""
    events = sys.modules.get("asyncio.events")
    if events is None:
        return []
    return [one for one in _instances(events.AbstractEventLoop) if _is_open(one)]


def _is_open(loop: Any) -> bool:
    try:
        return not loop.is_closed()
    except Exception:  # noqa: BLE001 - anybody's class, perhaps half made
        return False


def _number_of(one: Any) -> int:
    try:
        return int(one.fileno())
    except Exception:  # noqa: BLE001 - anybody's class, perhaps half made
        return -1


def _of_holder(held: list[Any]) -> str:
    """Which module has one of these, as far as that can be told."""
    for one in held:
        if module := _holding_module(one):
            return f", in module {module}"
    return ""


def _holding_module(held: Any) -> str:
    """The nearest module that refers to it, but for Python's own."""
    seen: set[int] = set()
    around: list[Any] = [held]
    for _ in range(6):
        nearer = around
        around = []
        for one in gc.get_referrers(*nearer):
            if id(one) in seen or one is nearer or one is around:
                continue
            seen.add(id(one))
            name = _module_name(one)
            if name and name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("squall."):
                return name
            if issubclass(type(one), (dict, list, tuple, set)) or type(one).__dictoffset__:
                around.append(one)
        if not around or len(seen) > 10_000:
            return ""
    return ""


def _module_name(one: Any) -> str:
    if issubclass(type(one), dict):
        return str(dict.get(one, "__name__", "")) if dict.__contains__(one, "__spec__") else ""
    return str(getattr(type(one), "__module__", ""))


def _instances(kind: type) -> list[Any]:
    """All there are. By their types, and asked nothing: a proxy passes what it is asked on to what it stands for, which
    is gone perhaps, or is made then."""
    return [one for one in gc.get_objects() if issubclass(type(one), kind)]


def _descriptors() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))


def _target(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def _leads_to(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _identity(descriptor: int) -> tuple[int, int]:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return (-1, descriptor)
    return found.st_dev, found.st_ino


def _is_read_only(descriptor: int) -> bool:
    import fcntl  # cold start: templates that have files open only

    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""
