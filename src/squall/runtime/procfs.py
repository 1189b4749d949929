"""What the kernel says of processes in /proc, read in as few system calls as it takes.

All of it raises `FileNotFoundError` or `ProcessLookupError` where the process has ended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

_BYTES = 65_536
_PF_EXITING = 4
_KILL = 1 << 8
"""SIGKILL, in a set of signals."""


def read_file(path: str) -> bytes:
    """A file of /proc: `open` would ask for its size, its place and whether it is a terminal."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while data := os.read(descriptor, _BYTES):
            parts.append(data)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def read_status(pid: int) -> Mapping[str, str]:
    """The fields of a process's status."""
    text = read_file(f"/proc/{pid}/status").decode(errors="replace")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def filter_count(pid: int) -> int:
    """How many filters of system calls a process wears; 1 where the kernel does not count them."""
    return int(read_status(pid).get("Seccomp_filters", "1"))


def read_children(pid: int, thread: int = 0) -> Sequence[int]:
    """Pids of a process's children, as this process sees them; those of its first thread, unless another is given."""
    return [int(word) for word in read_file(f"/proc/{pid}/task/{thread or pid}/children").split()]


def has_ended(pid: int) -> bool:
    """Whether nothing of a process runs, though it has not been reaped."""
    # A first thread may end before the others.
    words = _stat(pid)
    return words[0] in (b"Z", b"X") and int(words[17]) <= 1


def is_ending(pid: int) -> bool:
    """Whether nothing of a process runs, or it is on its way out: it closes what it has open before it has ended."""
    words = _stat(pid)
    return bool(int(words[6]) & _PF_EXITING) and int(words[17]) <= 1


def is_doomed(pid: int) -> bool:
    """Whether a process is gone, on its way out, or killed and does not know it yet."""
    try:
        # Of its threads the first says enough: what ends it ends them all, and the last one closes its files.
        is_on_its_way = int(_stat(pid)[6]) & _PF_EXITING
        return bool(is_on_its_way or int(read_status(pid).get("SigPnd", "0"), 16) & _KILL)
    except (FileNotFoundError, ProcessLookupError):
        return True


def program_of(pid: int) -> int:
    """The program that a container's first process was started with: of an init its eldest child. 0: it is gone.

    Raises:
        FileNotFoundError, ProcessLookupError: so is the first process.
    """
    if read_status(pid).get("NSpid", "").split()[-1:] != ["1"]:
        return pid
    return next(iter(read_children(pid)), 0)


def _stat(pid: int) -> Sequence[bytes]:
    """From the state on; "pid (name) state …", and a name may have anything in it."""
    return read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
