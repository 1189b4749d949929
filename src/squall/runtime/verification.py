"""Is the child of a template what it says it is? Looked up in the kernel, before it is told anything.

User code runs between the fork and the moment at which the guest has given its powers up (`os.register_at_fork`), and
it may have replaced the guest altogether. So nothing here takes its word: where it is, what it may do and what it holds
is read from outside, while it waits. What it keeps from then on cannot grow: it has no capability that it was not to
have, no way to anybody else's namespaces, and nobody who could hand it a descriptor.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from squall.runtime.errors import TemplateUnfit

NAMESPACES = ("user", "mnt", "net", "ipc", "uts", "cgroup", "pid")
"""In the order in which they are entered: the first gives the right to enter the others, the last is for children."""
# Descriptors that lead to nobody else. Not among them: directories (of the template's files), what is in a /proc,
# namespaces, other processes, and all sockets but one.
_HARMLESS = re.compile(r"pipe:\[\d+\]|anon_inode:\[(eventpoll|eventfd|timerfd|signalfd)\]|anon_inode:inotify|/.*")

DESCRIPTORS_MAX = 1_024
"""Of a clone: the spawner looks at each, and has others to look after."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a clone has to be."""

    cell_pid: int
    template_pid: int
    cgroup_name: str
    """Below the top of each hierarchy that is used."""
    cgroup_devices: frozenset[int]
    """File systems of the files by which cgroups are entered: others', too."""
    capabilities: int
    channel_inode: int
    filter_count: int
    """Filters of system calls it wears: those of its template, and one more."""


def verify(pid: int, expected: Expected) -> None:
    """Raises `TemplateUnfit` with what is not as it has to be."""
    try:
        for problem in (
            _of_namespaces(pid, expected),
            _of_status(pid, expected),
            _of_cgroups(pid, expected),
            _of_places(pid, expected),
            _of_descriptors(pid, expected),
            _of_family(pid, expected),
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


def _of_namespaces(pid: int, expected: Expected) -> str:
    for name in NAMESPACES:
        if os.stat(f"/proc/{pid}/ns/{name}").st_ino != os.stat(f"/proc/{expected.cell_pid}/ns/{name}").st_ino:
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
    return ""


def _of_cgroups(pid: int, expected: Expected) -> str:
    with open(f"/proc/{expected.cell_pid}/cgroup", encoding="utf-8") as file:
        wanted = file.read()
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        found = file.read()
    if expected.cgroup_name not in wanted or found != wanted:
        return "it is not in the cgroups made for it"
    return ""


def _of_places(pid: int, expected: Expected) -> str:
    """Its root and its working directory, which it may have set by a descriptor of its template's."""
    with open(f"/proc/{expected.cell_pid}/mountinfo", encoding="utf-8", errors="replace") as file:
        devices = {line.split(" ", 3)[2] for line in file}
    own, wanted = os.stat(f"/proc/{pid}/root"), os.stat(f"/proc/{expected.cell_pid}/root")
    if (own.st_dev, own.st_ino) != (wanted.st_dev, wanted.st_ino):
        return "its root directory is not that of its cell"
    place = os.stat(f"/proc/{pid}/cwd").st_dev
    if f"{os.major(place)}:{os.minor(place)}" not in devices:
        return "its working directory is not in its cell"
    return ""


def _of_descriptors(pid: int, expected: Expected) -> str:
    hidden = os.stat(f"/proc/{expected.template_pid}/root/proc").st_dev
    names = os.listdir(f"/proc/{pid}/fd")
    if len(names) > DESCRIPTORS_MAX:
        return f"it holds {len(names)} descriptors; at most {DESCRIPTORS_MAX} are looked at"
    for name in names:
        path = f"/proc/{pid}/fd/{name}"
        found, target = os.stat(path), os.readlink(path)
        if stat.S_ISSOCK(found.st_mode):
            if found.st_ino != expected.channel_inode:
                return f"it holds a socket that is not its own (descriptor {name})"
        elif (
            stat.S_ISDIR(found.st_mode)
            or found.st_dev in {hidden, *expected.cgroup_devices}
            or not _HARMLESS.fullmatch(target)
        ):
            return f"it holds {target} of its template (descriptor {name}); close it before the fork"
    return ""


def _of_family(pid: int, expected: Expected) -> str:
    if read_children(pid):
        return "it has child processes"
    # By the cell's own /proc: whoever else is in its pid namespace may have powers that this one has given up.
    inside = [name for name in os.listdir(f"/proc/{expected.cell_pid}/root/proc") if name.isdigit()]
    if len(inside) != 2:
        return "its cell holds processes that are not its own"
    return ""


def read_status(pid: int) -> Mapping[str, str]:
    """The fields of a process's status."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def filter_count(pid: int) -> int:
    """How many filters of system calls a process wears; 1 where the kernel does not count them."""
    return int(read_status(pid).get("Seccomp_filters", "1"))


def read_children(pid: int) -> Sequence[int]:
    """Pids of a process's children, as this process sees them; those of its first thread."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]
