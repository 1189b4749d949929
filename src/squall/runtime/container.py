"""A container as the spawner keeps it: what it was made from, what it holds, how it ended."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from squall.runtime import syscalls as sc
from squall.runtime.cgroup import DEFAULT_DEVICES, Cgroup
from squall.runtime.errors import RuntimeFailure
from squall.runtime.launch import MESSAGE_BYTES_MAX, Forked
from squall.runtime.spec import ContainerSpec, ExitStatus
from squall.runtime.verification import Cell
from squall.runtime.wire import DESCRIPTORS_MAX

# Numbers by which shells, and tini, say that a program was ended by a signal.
SIGNAL_CODE_BASE = 128
# "m": a container is in its cgroup before its devices are made. Its own processes cannot make any: that takes a
# capability over the machine.
DEVICES = tuple(replace(rule, access="rwm") for rule in DEFAULT_DEVICES)

Done = Callable[[RuntimeFailure | None], None]
Outcome = Callable[["Reply | RuntimeFailure"], None]


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request, with descriptors the receiver is to own."""

    values: Any = None
    descriptors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CgroupEntry:
    """How a process of one thread enters a container's cgroups without stopping the machine.

    Writing to `cgroup.procs` takes a lock over every process of the machine and, when nobody did so lately, waits for
    an RCU grace period: 4-20 ms. A single thread that moves itself by v1's `tasks`, and a child cloned into a v2
    cgroup, need neither.
    """

    unified_fd: int
    tasks_paths: tuple[str, ...]

    @classmethod
    def of(cls, cgroup: Cgroup) -> CgroupEntry:
        """The way into one container's cgroups; close it."""
        unified_fd, tasks_paths = -1, []
        for path in cgroup.procs_paths:
            folder = os.path.dirname(path)
            if os.path.exists(f"{folder}/tasks"):
                tasks_paths.append(f"{folder}/tasks")
            else:
                unified_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return cls(unified_fd, tuple(tasks_paths))

    def close(self) -> None:
        """Close the descriptor."""
        if self.unified_fd >= 0:
            os.close(self.unified_fd)


@dataclass(slots=True)
class Clone:
    """One clone, from its cell on."""

    template_id: str
    cell_pid: int = 0
    """The first process of its cell."""
    cell_pidfd: int = -1
    cell: Cell | None = None
    """What is known of it; when it is made."""
    pid: int = 0
    pidfd: int = -1
    channel: socket.socket | None = None
    is_joined: bool = False
    is_begun: bool = False
    said_code: int | None = None
    """The exit code that it announced."""
    sent_signal: int | None = None
    """What ended it, where we did."""
    waiting: Done | None = None
    """Who waits for it to join, or to begin."""
    tries: int = 0
    """Counts the waits, so that the time limit of one does not end the next."""

    def close(self) -> None:
        """Close what is held of it."""
        for descriptor in (self.cell_pidfd, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        self.cell_pidfd = self.pidfd = -1


@dataclass(slots=True)
class Entry:
    """One container."""

    spec: ContainerSpec
    cgroup: Cgroup
    outputs: tuple[int, ...]
    """Read ends of its stdout and stderr; none of a clone before it begins."""
    forked: Forked
    started: Outcome | None
    """Answers the request that started it; None once answered."""
    phase_ms: dict[str, float] = field(default_factory=dict)
    executed_ns: int = 0
    """When the first process was about to execute its program."""
    failure: RuntimeFailure | None = None
    exit_status: ExitStatus | None = None
    removals: list[Outcome] = field(default_factory=list)
    is_leaving: bool = False
    """It is being taken away."""
    write_ends: tuple[int, ...] = ()
    """Of a template whose program is not executed yet; of a container with buckets, that of its stderr."""
    program_pid: int = 0
    """Of a template."""
    program_status: ExitStatus | None = None
    """Of a template: how its program has ended, whose end is the container's while nothing was forked from it."""
    is_saved: bool = False
    """Of a template: its processes have ended, and what they were is in a snapshot."""
    clone: Clone | None = None
    """Of a fork of a template: what it is beside its cell, whose first process is `forked`."""
    mounting: int = 0
    """How often its volumes are being mounted or swapped now: until that is over it is not taken away."""

    @property
    def first_pid(self) -> int:
        """Of the process that is the container's program, or that passes on to it what it is sent."""
        if self.is_saved:
            return 0
        return self.program_pid or (self.forked.pid if self.clone is None else self.clone.pid)

    @property
    def started_values(self) -> dict[str, Any]:
        """Of the answer to the request that started it."""
        return {"pid": self.first_pid, "phase_ms": self.phase_ms}

    @property
    def is_oom(self) -> bool:
        """The kernel has killed something in it for its memory; False also where that cannot be read just now."""
        try:
            return self.cgroup.oom_count() > 0
        except RuntimeFailure:
            # No descriptor is left to read it with, say. Its end is to be told all the same.
            return False

    @property
    def is_prepared(self) -> bool:
        """Made ahead, and not begun."""
        return self.clone is not None and not self.clone.is_begun


def status_from_wait(status: int, *, is_oom: bool) -> ExitStatus:
    """How a first process ended. tini reports its child's signal as 128 + signal, so exit(137) reads as SIGKILL."""
    if os.WIFSIGNALED(status):
        return ExitStatus(code=None, signal=os.WTERMSIG(status), is_oom=is_oom)
    code = os.WEXITSTATUS(status)
    if SIGNAL_CODE_BASE < code <= SIGNAL_CODE_BASE + signal.SIGRTMAX:
        return ExitStatus(code=None, signal=code - SIGNAL_CODE_BASE, is_oom=is_oom)
    return ExitStatus(code=code, signal=None, is_oom=is_oom)


def status_of_clone(clone: Clone, *, is_oom: bool) -> ExitStatus:
    """How a clone ended, which is no child of ours: as the kernel tells, else as it said, or as we did."""
    status = sc.exit_status_of(clone.pidfd) if clone.pidfd >= 0 else None
    if status is not None and os.WIFEXITED(status):
        return ExitStatus(code=os.WEXITSTATUS(status), signal=None, is_oom=is_oom)
    if status is not None:
        return ExitStatus(code=None, signal=os.WTERMSIG(status), is_oom=is_oom)
    if clone.said_code is not None:
        return ExitStatus(code=clone.said_code, signal=None, is_oom=is_oom)
    if clone.sent_signal is not None or is_oom:
        return ExitStatus(code=None, signal=clone.sent_signal or int(signal.SIGKILL), is_oom=is_oom)
    return ExitStatus(code=1, signal=None)


def output_pipes(spec: ContainerSpec) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pipes for stdout and stderr: our ends, to read without blocking, and the container's, to write. Both or none."""
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    try:
        error_read, error_write = os.pipe2(os.O_CLOEXEC)
    except OSError:
        close_descriptors(out_read, out_write)
        raise
    for read_end, write_end in ((out_read, out_write), (error_read, error_write)):
        # Non-blocking for the reader only: the other end is another open file.
        os.set_blocking(read_end, False)
        # Owned by the container's user, who else could not open /dev/stdout.
        os.fchown(write_end, spec.id_range.start + spec.user[0], spec.id_range.start + spec.user[1])
    return (out_read, error_read), (out_write, error_write)


def copy_descriptors(*descriptors: int) -> tuple[int, ...]:
    """Copies of them all, or none."""
    copies: list[int] = []
    try:
        for descriptor in descriptors:
            copies.append(os.dup(descriptor))
    except OSError:
        close_descriptors(*copies)
        raise
    return tuple(copies)


def close_descriptors(*descriptors: int) -> None:
    """Close them all."""
    for descriptor in descriptors:
        os.close(descriptor)


def receive(channel: socket.socket, descriptors: list[int] | None = None) -> dict[str, Any] | None:
    """The next message, or None at the end; descriptors that came with it are added to the list."""
    try:
        # Where none are expected the kernel drops them: nobody here would close them.
        descriptors_max = 0 if descriptors is None else DESCRIPTORS_MAX
        data, given, _, _ = socket.recv_fds(channel, MESSAGE_BYTES_MAX, descriptors_max)
    except ConnectionResetError:
        # Ended without reading what we never send.
        return None
    if descriptors is not None:
        descriptors.extend(given)
    if not data:
        return None
    message: dict[str, Any] = json.loads(data)
    return message
