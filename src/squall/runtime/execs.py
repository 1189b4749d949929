"""Further programs in running containers: started by a helper that joins the container, reaped as children of ours."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from squall.runtime.container import CgroupEntry, Entry, Outcome, Reply, close_descriptors, output_pipes, receive
from squall.runtime.criu.launch import fork_restore
from squall.runtime.criu.tool import PLACE, find_tool
from squall.runtime.errors import ContainerMissing, RuntimeFailure, TemplateUnfit
from squall.runtime.executor import Executor
from squall.runtime.launch import Forked, LaunchKit, fork_beside
from squall.runtime.operations import Phase
from squall.runtime.plan import plan_exec_entry, plan_template
from squall.runtime.poll import Poller
from squall.runtime.spec import ContainerSpec, ExecSpec, ExitStatus
from squall.runtime.wire import failure_from_json

STRAY_PAUSE_S = 0.05
STRAY_LOOKS = 40
RESTORE_TIMEOUT_S = 30.0


@dataclass(slots=True)
class ExecEntry:
    """One process added to a container."""

    exec_id: str
    container_id: str
    exit_status: ExitStatus | None = None
    waiters: list[Outcome] = field(default_factory=list)


@dataclass(slots=True)
class _PendingExec:
    """What is known of an exec while its helper works."""

    exec_id: str
    entry: Entry
    descriptors: list[int]
    answer: Outcome
    helper_pid: int = 0
    pid: int = 0
    failure: RuntimeFailure | None = None


class Execs:
    """The programs added to containers, known until their container is removed."""

    def __init__(
        self, kit: LaunchKit, poller: Poller, executors: Mapping[str, Executor], first_pids: Callable[[], set[int]]
    ) -> None:
        self._kit = kit
        self._executors = executors
        self._first_pids = first_pids
        self._poller = poller
        self._execs: dict[str, ExecEntry] = {}
        self._unreaped: set[int] = set()
        self._pending: dict[str, _PendingExec] = {}
        self._count = 0

    def start(self, entry: Entry, spec: ExecSpec, user_namespace_fd: int, answer: Outcome) -> None:
        """Begin one more program in a container; the answer comes when it is executed."""
        if not spec.argv:
            raise RuntimeFailure(f"cannot run a program in container {entry.spec.container_id}: argv is empty")
        executor = self._executors[entry.spec.isolation]
        ours, theirs = ([], []) if spec.has_pty else _standard_pipes(entry.spec)
        try:
            # As the next one will be called.
            phases = executor.plan_exec(spec, entry.spec, str(self._count + 1))
            self._join(entry, phases, dict(enumerate(theirs)), ours, user_namespace_fd, answer)
        except BaseException:
            close_descriptors(*ours)
            raise
        finally:
            close_descriptors(*theirs)

    def start_template(
        self, entry: Entry, outputs: tuple[int, int], control: socket.socket, user_namespace_fd: int, answer: Outcome
    ) -> None:
        """Begin the program of a template, with its first process there; the caller closes what it gave."""
        standard = {1: outputs[0], 2: outputs[1]}
        self._join(entry, plan_template(entry.spec), standard, [], user_namespace_fd, answer, control)

    def restore_template(self, entry: Entry, outputs: tuple[int, int], control: socket.socket, answer: Outcome) -> None:
        """The same with a program that was saved: it is brought back and not executed."""
        tool = find_tool()
        if tool is None:
            raise TemplateUnfit(f"cannot bring a template back: CRIU is not in {PLACE}; make criu puts it there")

        def fork(cgroup_entry: CgroupEntry) -> Forked:
            return fork_restore(
                self._kit, tool, entry.spec.id_range, plan_exec_entry(cgroup_entry.tasks_paths), entry.forked.pidfd,
                outputs, control, entry.spec.restore_from, cgroup_entry.unified_fd, self._poller.private,
            )  # fmt: skip

        pending = self._begin(entry, [], answer, fork)

        def on_late() -> None:
            if self._pending.get(pending.exec_id) is pending:
                # CRIU ends with its helper, and the container when this has failed.
                os.kill(pending.helper_pid, signal.SIGKILL)
                pending.failure = TemplateUnfit(f"it was not back within {RESTORE_TIMEOUT_S:g} s")

        self._poller.call_later(RESTORE_TIMEOUT_S, on_late)

    def _join(
        self, entry: Entry, phases: Sequence[Phase], standard: Mapping[int, int], ours: list[int],
        user_namespace_fd: int, answer: Outcome, control: socket.socket | None = None,
    ) -> None:  # fmt: skip
        def fork(cgroup_entry: CgroupEntry) -> Forked:
            return fork_beside(
                self._kit, entry.spec.id_range, user_namespace_fd, plan_exec_entry(cgroup_entry.tasks_paths), phases,
                entry.forked.pidfd, standard, cgroup_fd=cgroup_entry.unified_fd, control=control,
            )  # fmt: skip

        self._begin(entry, ours, answer, fork)

    def _begin(
        self, entry: Entry, ours: list[int], answer: Outcome, fork: Callable[[CgroupEntry], Forked]
    ) -> _PendingExec:
        self._count += 1
        cgroup_entry = CgroupEntry.of(entry.cgroup)
        try:
            forked = fork(cgroup_entry)
        finally:
            cgroup_entry.close()
        pending = _PendingExec(f"{entry.spec.container_id}/{self._count}", entry, ours, answer)
        pending.helper_pid = forked.pid
        self._pending[pending.exec_id] = pending
        self._poller.watch(forked.channel.fileno(), lambda _: self._on_message(forked, pending))
        return pending

    def wait(self, exec_id: str, answer: Outcome) -> None:
        """The answer comes when the program has ended."""
        execution = self._execs.get(exec_id)
        if execution is None:
            raise ContainerMissing(f"no process {exec_id}: unknown, or its container has been removed")
        if execution.exit_status is not None:
            answer(Reply(execution.exit_status))
        else:
            execution.waiters.append(answer)

    def forget(self, container_id: str) -> None:
        """Drop what is known of the programs of a container that is being removed; all of them have ended."""
        for exec_id in [
            exec_id for exec_id, execution in self._execs.items() if execution.container_id == container_id
        ]:
            del self._execs[exec_id]

    def _on_message(self, forked: Forked, pending: _PendingExec) -> None:
        message = receive(forked.channel, pending.descriptors)
        if message is None:
            self._poller.unwatch(forked.channel.fileno())
            forked.channel.close()
            # Not a blocking wait: a freeze may have caught the helper. Nor before it has ended: until then the
            # program is its child and not ours.
            self._poller.watch(forked.pidfd, lambda _: self._on_helper_ended(forked, pending))
        elif "pid" in message:
            pending.pid = message["pid"]
        elif "error" in message:
            reason = f"in container {pending.entry.spec.container_id}: {message['error']}"
            pending.failure = failure_from_json({"kind": message["kind"], "message": reason})

    def _on_helper_ended(self, forked: Forked, pending: _PendingExec) -> None:
        os.waitpid(forked.pid, 0)
        self._poller.unwatch(forked.pidfd)
        os.close(forked.pidfd)
        del self._pending[pending.exec_id]
        if pending.pid:
            self._watch(pending)
        else:
            self._reap_strays(pending.entry)
            if not pending.failure:
                container_id = pending.entry.spec.container_id
                pending.failure = ContainerMissing(
                    f"container {container_id} ended before a program could be run in it"
                )
        if pending.failure:
            close_descriptors(*pending.descriptors)
            pending.answer(pending.failure)
        else:
            values = {"exec_id": pending.exec_id, "pid": pending.pid}
            pending.answer(Reply(values, tuple(pending.descriptors)))

    def _watch(self, pending: _PendingExec) -> None:
        """Reap it when it ends: the end of the container's pid 1 waits for that."""
        execution = ExecEntry(pending.exec_id, pending.entry.spec.container_id)
        if not pending.failure:
            self._execs[pending.exec_id] = execution
        self._unreaped.add(pending.pid)
        pidfd = os.pidfd_open(pending.pid)

        def on_ended(_: int) -> None:
            _, status = os.waitpid(pending.pid, 0)
            self._unreaped.discard(pending.pid)
            self._poller.unwatch(pidfd)
            os.close(pidfd)
            executor = self._executors[pending.entry.spec.isolation]
            executor.exec_ended(pending.entry, pending.exec_id.rpartition("/")[2], status)
            execution.exit_status = executor.exec_status(status)
            for answer in execution.waiters:
                answer(Reply(execution.exit_status))
            execution.waiters.clear()

        self._poller.watch(pidfd, on_ended)

    def _reap_strays(self, entry: Entry) -> None:
        """Reap a program whose helper was killed before it could tell its pid, until the container has ended.

        It shares the container's cgroup, so whoever killed the helper kills it too; unreaped it would hold pid 1's end.
        """
        if entry.exit_status is not None:
            return
        self._reap_unknown()
        self._poller.call_later(STRAY_PAUSE_S, lambda: self._reap_strays(entry))

    def reap_soon(self, looks: int = STRAY_LOOKS) -> None:
        """Reap what a process of ours has left that was killed: it has ended, or is about to."""
        self._reap_unknown()
        if looks:
            self._poller.call_later(STRAY_PAUSE_S, lambda: self.reap_soon(looks - 1))

    def _reap_unknown(self) -> None:
        # While a helper may still tell, a child we do not know yet may be its.
        if all(pending.pid for pending in self._pending.values()):
            known = self._first_pids() | self._unreaped | {pending.pid for pending in self._pending.values()}
            for pid in _children_in_namespaces() - known:
                os.waitpid(pid, os.WNOHANG)


def _children_in_namespaces() -> set[int]:
    """Children of ours that live in a pid namespace below our own: pids 1, programs, strays; no helpers."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    own = _namespace_depth("self")
    return {int(pid) for pid in children if _namespace_depth(pid) > own}


def _namespace_depth(pid: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return len(line.split()) - 1
    return 0


def _standard_pipes(spec: ContainerSpec) -> tuple[list[int], list[int]]:
    """Our ends and theirs of stdin, stdout and stderr."""
    in_read, in_write = os.pipe2(os.O_CLOEXEC)
    os.fchown(in_read, spec.id_range.start + spec.user[0], spec.id_range.start + spec.user[1])
    try:
        reads, writes = output_pipes(spec)
    except OSError:
        close_descriptors(in_read, in_write)
        raise
    return [in_write, *reads], [in_read, *writes]
