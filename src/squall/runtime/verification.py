"""Is the child of a template what it says it is? Looked up in the kernel, before it is told anything.

User code runs between the fork and the moment at which the guest has given its powers up (`os.register_at_fork`), and
it may have replaced the guest altogether. So nothing here takes its word: where it is, what it may do and what it holds
is read from outside, while it waits. What it keeps from then on cannot grow: it has no capability that it was not to
have, no way to anybody else's namespaces, and nobody who could hand it a descriptor or shares its own with it. Why each
of these is looked at, and what is not: docs/decisions/0066.

All of it is on the way of a start: what is known of its cell before the fork is read before (`Cell`).
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from squall.runtime import syscalls as sc
from squall.runtime.errors import TemplateUnfit
from squall.runtime.procfs import filter_count, read_children, read_file, read_status

NAMESPACES = ("user", "mnt", "net", "ipc", "uts", "cgroup", "pid")
"""In the order in which they are entered: the first gives the right to enter the others, the last is for children."""
_HARMLESS_DEVICES = frozenset(os.makedev(1, minor) for minor in (3, 5, 7, 8, 9))
"""null, zero, full, random, urandom."""

DESCRIPTORS_MAX = 1_024
"""Of a clone: the spawner looks at each, and has others to look after."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What was made for a clone, read before anybody of its template's was near it."""

    pid: int
    """Of its first process."""
    namespaces: Mapping[str, int]
    """Their inodes."""
    root: tuple[int, int]
    """Device and inode of its root directory."""
    mounts: frozenset[int]
    """Ids of all that is mounted in it."""
    cgroups: bytes

    @classmethod
    def of(cls, pid: int) -> Cell:
        """The one whose first process this is, which waits.

        Raises:
            OSError: it has ended.
        """
        root = os.stat(f"/proc/{pid}/root")
        return cls(
            pid=pid,
            namespaces={name: os.stat(f"/proc/{pid}/ns/{name}").st_ino for name in NAMESPACES},
            root=(root.st_dev, root.st_ino),
            mounts=frozenset(int(line.split(b" ", 1)[0]) for line in read_file(f"/proc/{pid}/mountinfo").splitlines()),
            cgroups=read_file(f"/proc/{pid}/cgroup"),
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """What a clone has to be."""

    cell: Cell
    first_pid: int
    """Of its template's container: whose child it is once the process that forked it has ended."""
    cgroup_name: str
    """Below the top of each hierarchy that is used."""
    capabilities: int
    channel_inode: tuple[int, int]
    output_inodes: frozenset[tuple[int, int]]
    """Pipes of its template's, which it has until it gets its own."""
    filter_count: int
    """Filters of system calls it wears: those of its template, and one more."""


def verify(pid: int, expected: Expected) -> None:
    """Raises `TemplateUnfit` with what is not as it has to be."""
    try:
        for problem in (
            _of_namespaces(pid, expected.cell),
            _of_status(pid, expected),
            _of_cgroups(pid, expected),
            _of_places(pid, expected.cell),
            _of_descriptors(pid, expected),
            _of_family(pid, expected.cell),
        ):
            if problem:
                raise TemplateUnfit(f"cannot use a fork of the template: {problem}")
    except (FileNotFoundError, ProcessLookupError):
        raise TemplateUnfit("cannot use a fork of the template: it has ended") from None


def restored_problem(pid: int, first_pid: int, saved_filter_count: int) -> str:
    """What a template that was brought back from disk is not, and has to be, beside its container's first process.

    Args:
        saved_filter_count: of system calls, as it wore them when it was saved.
    """
    try:
        status = read_status(pid)
        if any(int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb")):
            return "it has capabilities"
        if status["NoNewPrivs"] != "1" or status["Seccomp"] != "2" or status["Threads"] != "1":
            return "it is not confined as a template is"
        if filter_count(pid) != saved_filter_count:
            return "it does not wear the filters of system calls that it was saved with"
        for name in NAMESPACES:
            if os.stat(f"/proc/{pid}/ns/{name}").st_ino != os.stat(f"/proc/{first_pid}/ns/{name}").st_ino:
                return f"it is in another {name} namespace"
    except (FileNotFoundError, ProcessLookupError):
        return "it has ended"
    return ""


def _of_namespaces(pid: int, cell: Cell) -> str:
    for name, inode in cell.namespaces.items():
        if os.stat(f"/proc/{pid}/ns/{name}").st_ino != inode:
            return f"it is not in the {name} namespace made for it"
    return ""


def _of_status(pid: int, expected: Expected) -> str:
    status = read_status(pid)
    for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"):
        if int(status[name], 16) & ~expected.capabilities:
            return f"it has kept capabilities ({name} {status[name]})"
    if status["NoNewPrivs"] != "1" or status["Seccomp"] != "2":
        return "it has not given up new privileges, or wears no filter of system calls"
    if int(status.get("Seccomp_filters", expected.filter_count)) < expected.filter_count:
        return "it does not wear the container's filter of system calls"
    if status["Threads"] != "1" or status["TracerPid"] != "0":
        return "it has several threads, or is traced"
    # Descriptors are nobody's but its own, as the filter sees to it. Memory could be that of a parent which waits for
    # it in one of its threads only.
    parent = int(status["PPid"])
    if parent != expected.first_pid and sc.is_memory_shared(pid, parent):
        return "its memory is that of another process, too"
    return ""


def _of_cgroups(pid: int, expected: Expected) -> str:
    wanted = expected.cell.cgroups
    if os.fsencode(expected.cgroup_name) not in wanted or read_file(f"/proc/{pid}/cgroup") != wanted:
        return "it is not in the cgroups made for it"
    return ""


def _of_places(pid: int, cell: Cell) -> str:
    """Its root and its working directory, which it may have set by a descriptor of its template's."""
    root = os.stat(f"/proc/{pid}/root")
    if (root.st_dev, root.st_ino) != cell.root:
        return "its root directory is not that of its cell"
    # By mount and not by device: a directory of the machine may be bound into both, and above it is its template's.
    if sc.find_file(f"/proc/{pid}/cwd").mount_id not in cell.mounts:
        return "its working directory is not in its cell"
    return ""


def _of_descriptors(pid: int, expected: Expected) -> str:
    with os.scandir(f"/proc/{pid}/fd") as found:
        # No further: it may hold a million, and all other containers wait meanwhile.
        names = [entry.name for entry in itertools.islice(found, DESCRIPTORS_MAX + 1)]
    if len(names) > DESCRIPTORS_MAX:
        return f"it holds more than {DESCRIPTORS_MAX} descriptors, which is as many as are looked at"
    for name in names:
        path = f"/proc/{pid}/fd/{name}"
        if not _is_harmless(sc.find_file(path), expected):
            return f"it holds {os.readlink(path)} of its template (descriptor {name}); close it before the fork"
    return ""


def _is_harmless(file: sc.File, expected: Expected) -> bool:
    """Whether a descriptor leads nowhere but into its own cell, and to the spawner."""
    if stat.S_ISSOCK(file.mode):
        return file.inode == expected.channel_inode
    if stat.S_ISFIFO(file.mode):
        return file.inode in expected.output_inodes
    if stat.S_ISCHR(file.mode):
        return file.device in _HARMLESS_DEVICES
    # By a mount of its template's it would reach what all forks of that find, and write to it.
    return stat.S_ISREG(file.mode) and file.mount_id in expected.cell.mounts


def _of_family(pid: int, cell: Cell) -> str:
    if read_children(pid):
        return "it has child processes"
    # By the cell's own /proc: whoever else is in its pid namespace may have powers that this one has given up.
    inside = [name for name in os.listdir(f"/proc/{cell.pid}/root/proc") if name.isdigit()]
    if len(inside) != 2:
        return "its cell holds processes that are not its own"
    return ""
