"""Processes that a template has left where none should be, and their end.

Whoever forks for a template ends at once, when it has forked the clone in its turn; beside that there is nobody in a
template's namespace of processes but its first process and its program, and nobody in a clone's cell but what the clone
has started. User code could leave one in either: out of the limits that were made for it, and in sight of all clones.
It is no child of a clone's, so it is one of the template's program, or of its first process if its parent has ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from squall.runtime.aside import run_aside
from squall.runtime.cgroup import Cgroup
from squall.runtime.container import Clone
from squall.runtime.errors import RuntimeFailure
from squall.runtime.poll import Poller
from squall.runtime.procfs import has_ended, read_children, read_file

if TYPE_CHECKING:
    from squall.runtime.templates import Template

OUTRUN_S, OUTRUN_PAUSE_S = 10.0, 0.005
PAUSE_S = 2.0
"""Between two looks, both of which a stray has to be seen by: an honest fork does not live that long."""


class Strays:
    """Looks after each fork, for as long as there is something to see.

    Args:
        clones_of: those of a template, by its id, that have not ended.
    """

    def __init__(self, poller: Poller, clones_of: Callable[[str], Sequence[Clone]]) -> None:
        self._poller = poller
        self._clones_of = clones_of
        self._seen: dict[str, set[int]] = {}
        """Of each template that is looked after: who was there and should not have been."""

    def watch(self, template: Template) -> None:
        """Look in a while, and end who is there and should not be."""
        # One look at a time: two in a row would take a fork that has just been made for one that stays.
        template_id = template.entry.spec.container_id
        if template_id not in self._seen:
            self._look_later(template, set())

    def _look_later(self, template: Template, seen: set[int]) -> None:
        self._seen[template.entry.spec.container_id] = seen
        self._poller.call_later(PAUSE_S, lambda: self._look(template))

    def _look(self, template: Template) -> None:
        seen = self._seen.pop(template.entry.spec.container_id)
        if template.entry.exit_status is not None:
            return
        clones = self._clones_of(template.entry.spec.container_id)
        try:
            found = _find(template, clones)
        except (FileNotFoundError, ProcessLookupError):
            return  # its first process is ending, and all of it with that
        for pid in found & seen:
            _kill(pid)
        if found or any(clone.channel is not None and not clone.is_joined for clone in clones):
            self._look_later(template, found)


def end_rest(poller: Poller, cgroup: Cgroup, first_pid: int = 0) -> None:
    """End all that is in a cgroup but its first process: at once, and aside whoever forks faster than that."""
    with contextlib.suppress(RuntimeFailure, OSError):
        if _kill_rest(cgroup, first_pid):
            run_aside(poller, lambda: _outrun(cgroup, first_pid), lambda _: None)


def _kill_rest(cgroup: Cgroup, first_pid: int) -> bool:
    """Whether there was anybody."""
    rest = [pid for pid in cgroup.pids() if pid != first_pid]
    for pid in rest:
        _kill(pid)
    return bool(rest)


def _outrun(cgroup: Cgroup, first_pid: int) -> None:
    deadline = time.monotonic() + OUTRUN_S
    is_anybody_there = True
    while is_anybody_there and time.monotonic() < deadline:
        # Who is frozen does not fork; and v1's freezer holds even who was killed.
        with contextlib.suppress(RuntimeFailure):
            cgroup.freeze()
        try:
            is_anybody_there = _kill_rest(cgroup, first_pid)
        finally:
            cgroup.thaw()
        time.sleep(OUTRUN_PAUSE_S)


def find_program(first_pid: int, program_pid: int) -> str:
    """The name of a program beside that of a template, which has to be alone to be forked; empty if it is."""
    own = _namespace_of(first_pid)
    for pid, namespace in _below(first_pid, program_pid, ()).items():
        if namespace == own:
            try:
                return read_file(f"/proc/{pid}/comm").decode(errors="replace").rstrip("\n")
            except (FileNotFoundError, ProcessLookupError):
                continue
    return ""


def _find(template: Template, clones: Sequence[Clone]) -> set[int]:
    first_pid = template.entry.forked.pid
    known = {pid for clone in clones for pid in (clone.cell_pid, clone.pid)} | template.copies
    # While a clone is on its way nobody knows which process of its cell it is; if it never joins, the cell ends.
    looked_at = {clone.cell.namespaces["pid"] for clone in clones if clone.cell is not None and clone.is_joined}
    looked_at.add(_namespace_of(first_pid))
    return {pid for pid, namespace in _below(first_pid, template.pid, known).items() if namespace in looked_at}


def _below(first_pid: int, program_pid: int, known: Container[int]) -> Mapping[int, int]:
    """Children of a template's first process and of its program that have not ended, and the namespaces of processes
    that they are in. Nothing is read of those that are known: a burst has hundreds, and the loop that looks forks."""
    found = {}
    for pid in (*_children(first_pid), *_children(program_pid)):
        if pid in known:
            continue
        try:
            if not has_ended(pid):
                found[pid] = _namespace_of(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _children(pid: int) -> Iterator[int]:
    """Of all its threads, as far as there is such a process."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            yield from read_children(pid, int(thread))
    except (FileNotFoundError, ProcessLookupError):
        return


def _namespace_of(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/pid").st_ino


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
