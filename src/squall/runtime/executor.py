"""What a container's program is executed and confined by. Everything else of a container is the same for all of them:
its cgroup, network, root file system, output, and that its processes end with the first one.

`NamespaceExecutor` is the kernel's own walls; `gvisor.executor` puts a kernel of the container's own before them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Protocol

from squall.runtime.container import Entry, Outcome, Reply, status_from_wait
from squall.runtime.errors import RuntimeFailure
from squall.runtime.operations import Phase
from squall.runtime.plan import plan_exec, plan_start
from squall.runtime.poll import Poller
from squall.runtime.spec import ContainerSpec, ExecSpec, ExitStatus, Limits

INIT_WAIT_S = 0.002
INIT_WAITS_MAX = 1_000
# Signals tini leaves alone, since they mean its own bug: it would not forward them.
UNFORWARDED = frozenset({signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGTRAP,
                         signal.SIGSYS, signal.SIGKILL, signal.SIGSTOP})  # fmt: skip


class Executor(Protocol):
    """Nothing here waits."""

    def plan_start(
        self, spec: ContainerSpec, tasks_paths: Sequence[str], image_points: Mapping[str, str]
    ) -> list[Phase]:
        """What the first process does on its way. Followed by `forget`, however that ends.

        Raises:
            FeatureMissing: this machine cannot run such a container.
        """

    def limits(self, spec: ContainerSpec) -> Limits:
        """Those of its cgroup: the container's, and what the executor takes for itself."""

    def plan_exec(self, spec: ExecSpec, container: ContainerSpec, name: str) -> list[Phase]:
        """What one more process does once it is among the first one's namespaces; its name is the container's own."""

    def exec_ended(self, entry: Entry, name: str, status: int) -> None:
        """A program beside the first one has ended, or what stands for it outside has."""

    def is_up(self, entry: Entry) -> bool:
        """Whether the container's program has been executed, of one whose first process has executed its own."""

    def start_failure(self, entry: Entry, status: int) -> RuntimeFailure | None:
        """Why the program was never executed, of a first process that ended before `is_up`; None if it was."""

    def exit_status(self, entry: Entry, status: int) -> ExitStatus:
        """How a container ended whose first process ended so."""

    def exec_status(self, status: int) -> ExitStatus:
        """How a program beside the first one ended whose process ended so."""

    def signal(self, entry: Entry, number: int, answer: Outcome) -> None:
        """Send a signal to the program, other than the one that ends everything; the answer comes when it is sent."""

    def forget(self, container_id: str) -> None:
        """The container is gone. Idempotent."""


class NamespaceExecutor:
    """tini and the program in namespaces, under a filter of system calls."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller

    def plan_start(
        self, spec: ContainerSpec, tasks_paths: Sequence[str], image_points: Mapping[str, str]
    ) -> list[Phase]:
        """As `plan` says."""
        return plan_start(spec, tasks_paths, image_points)

    def limits(self, spec: ContainerSpec) -> Limits:
        """The container's; tini is nothing."""
        return spec.limits

    def plan_exec(self, spec: ExecSpec, container: ContainerSpec, name: str) -> list[Phase]:
        """As `plan` says."""
        return plan_exec(spec, container)

    def exec_ended(self, entry: Entry, name: str, status: int) -> None:
        """It is the program itself."""

    def is_up(self, entry: Entry) -> bool:
        """At once."""
        return True

    def start_failure(self, entry: Entry, status: int) -> RuntimeFailure | None:
        """Never: it is up at once."""
        return None

    def exit_status(self, entry: Entry, status: int) -> ExitStatus:
        """As tini says it."""
        return status_from_wait(status, is_oom=entry.is_oom)

    def exec_status(self, status: int) -> ExitStatus:
        """As the kernel says it."""
        if os.WIFSIGNALED(status):
            return ExitStatus(code=None, signal=os.WTERMSIG(status))
        return ExitStatus(code=os.WEXITSTATUS(status), signal=None)

    def signal(self, entry: Entry, number: int, answer: Outcome) -> None:
        """By tini, which passes it on to the program's process group."""
        self._signal_init(entry, number, answer, INIT_WAITS_MAX)

    def _signal_init(self, entry: Entry, number: int, answer: Outcome, waits: int) -> None:
        # tini takes signals by blocking and waiting for them. Between exec and that moment the kernel would drop what
        # is sent: pid 1 of a namespace ignores what it has no handler for.
        if entry.exit_status is None:
            if number not in UNFORWARDED and not takes_signals(entry.forked.pid) and waits > 0:
                self._poller.call_later(INIT_WAIT_S, lambda: self._signal_init(entry, number, answer, waits - 1))
                return
            signal.pidfd_send_signal(entry.forked.pidfd, number)
        answer(Reply())

    def forget(self, container_id: str) -> None:
        """Nothing is kept."""


def takes_signals(pid: int) -> bool:
    """Whether tini waits for signals and has somebody to pass them to.

    It blocks them before it forks its child, and sends them to the child's process group: until the child has made
    that, they would go nowhere. Its mask says nothing: while a process sits in sigtimedwait, what it waits for reads as
    not blocked.
    """
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = [int(child) for child in file.read().split()]
        return any(os.getpgid(child) == child for child in children)
    except (FileNotFoundError, ProcessLookupError):
        return True
