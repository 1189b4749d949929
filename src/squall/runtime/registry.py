"""The containers of one spawner: starting, running, ended, and on their way out.

Nothing here waits. Work that takes time happens in forked processes; their channels and pidfds call back.

A container is `starting` until its channel ends, then `running`; `ended` from the moment its first process is reaped
(the kernel has ended every other process in it by then) until it is removed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from squall.runtime.cgroup import CgroupTree
from squall.runtime.container import (
    DEVICES,
    CgroupEntry,
    Entry,
    Outcome,
    Reply,
    close_descriptors,
    output_pipe,
    receive,
)
from squall.runtime.errors import ContainerExists, ContainerMissing, RuntimeFailure, describe_errno
from squall.runtime.execs import Execs
from squall.runtime.executor import Executor, NamespaceExecutor
from squall.runtime.id_ranges import UserNamespaces
from squall.runtime.launch import Forked, LaunchKit, fork_aside, fork_first
from squall.runtime.layer_mounts import LayerMounts
from squall.runtime.mounts import ensure_no_mounts
from squall.runtime.poll import Poller
from squall.runtime.records import Record, Records, check_name
from squall.runtime.spec import (
    NAMESPACES,
    ContainerSpec,
    ContainerStatus,
    ContainerUsage,
    ExecSpec,
    ExitStatus,
)
from squall.runtime.wire import failure_from_json

UP_PAUSE_S = 0.005


class Registry:
    """Every container of this spawner."""

    def __init__(
        self,
        instance: str,
        records: Records,
        tree: CgroupTree,
        kit: LaunchKit,
        poller: Poller,
        layer_mounts: LayerMounts,
        on_exit: Callable[[str, ExitStatus], None],
    ) -> None:
        self._instance = instance
        self._records = records
        self._tree = tree
        self._kit = kit
        self._poller = poller
        self._on_exit = on_exit
        self._layer_mounts = layer_mounts
        self._user_namespaces = UserNamespaces()
        self._entries: dict[str, Entry] = {}
        self._executors: Mapping[str, Executor] = {NAMESPACES: NamespaceExecutor(poller)}
        self._execs = Execs(kit, poller, self._executors, self._first_pids)

    # ---- what there is

    def statuses(self) -> list[ContainerStatus]:
        """Every container, in the order they were started."""
        return [
            ContainerStatus(name, entry.forked.pid, dict(entry.spec.labels), entry.exit_status)
            for name, entry in self._entries.items()
            if entry.started is None
        ]

    def running_count(self) -> int:
        """Containers that have not ended."""
        return sum(1 for entry in self._entries.values() if entry.exit_status is None)

    def container_ids(self) -> list[str]:
        """Ids of every container, ended ones included."""
        return list(self._entries)

    def usage(self, container_id: str) -> ContainerUsage:
        """Counters of a running container."""
        return self._running(container_id).cgroup.usage()

    def outputs(self, container_id: str) -> Reply:
        """Fresh copies of its output descriptors, as the answer to `adopt`."""
        entry = self._known(container_id)
        return Reply(self._started_values(entry), tuple(os.dup(descriptor) for descriptor in entry.outputs))

    def _known(self, container_id: str) -> Entry:
        entry = self._entries.get(container_id)
        if entry is None or entry.started is not None:
            raise ContainerMissing(f"no container {container_id}")
        return entry

    def _running(self, container_id: str) -> Entry:
        entry = self._known(container_id)
        if entry.exit_status is not None:
            raise ContainerMissing(f"container {container_id} has ended")
        return entry

    @staticmethod
    def _started_values(entry: Entry) -> dict[str, Any]:
        return {"pid": entry.forked.pid, "phase_ms": entry.phase_ms}

    def _executor(self, spec: ContainerSpec) -> Executor:
        executor = self._executors.get(spec.isolation)
        if executor is None:
            known = ", ".join(self._executors)
            raise RuntimeFailure(
                f"cannot start container {spec.container_id}: unknown isolation {spec.isolation!r}; known: {known}"
            )
        return executor

    def _let_go(self, container_id: str) -> None:
        self._layer_mounts.release(container_id)
        self._records.forget(container_id)

    # ---- start

    def start(self, spec: ContainerSpec, answer: Outcome) -> None:
        """Begin a container; the answer comes when its program is executed.

        Raises:
            RuntimeFailure: what can be known at once; nothing was made then.
        """
        begin_ns = time.monotonic_ns()
        _check_spec(spec)
        executor = self._executor(spec)
        if spec.container_id in self._entries:
            raise ContainerExists(f"cannot start container {spec.container_id}: it exists; remove it first")
        self._records.write(Record(spec.container_id, spec.state_dir))
        try:
            user_namespace_fd = self._user_namespaces.get(spec.id_range)
            image_points = self._layer_mounts.take(spec.container_id, spec.layers)
            cgroup = self._tree.create(f"squall/{self._instance}/{spec.container_id}", spec.limits, DEVICES)
        except RuntimeFailure:
            self._let_go(spec.container_id)
            raise
        phase_ms = {"prepare": (time.monotonic_ns() - begin_ns) / 1e6}
        out_read, out_write = output_pipe(spec)
        error_read, error_write = output_pipe(spec)
        cgroup_entry = CgroupEntry.of(cgroup)
        try:
            forked = fork_first(
                self._kit, spec.id_range, user_namespace_fd,
                executor.plan_start(spec, cgroup_entry.tasks_paths, image_points),
                (out_write, error_write), cgroup_fd=cgroup_entry.unified_fd, has_own_network=spec.network is None,
            )  # fmt: skip
        except RuntimeFailure:
            cgroup.remove()
            executor.forget(spec.container_id)
            self._let_go(spec.container_id)
            close_descriptors(out_read, error_read)
            raise
        finally:
            cgroup_entry.close()
            close_descriptors(out_write, error_write)
        entry = Entry(spec, cgroup, (out_read, error_read), forked, answer, phase_ms)
        self._entries[spec.container_id] = entry
        self._poller.watch(forked.channel.fileno(), lambda _: self._on_start_message(entry))
        self._poller.watch(forked.pidfd, lambda _: self._on_first_ended(entry))

    def _on_start_message(self, entry: Entry) -> None:
        message = receive(entry.forked.channel)
        if message is None:
            self._end_channel(entry.forked)
            self._on_start_settled(entry)
        elif "phase_ms" in message:
            entry.phase_ms |= message["phase_ms"]
            entry.executed_ns = time.monotonic_ns()
        else:
            reason = message["error"]
            entry.failure = failure_from_json(
                {"kind": message["kind"], "message": f"cannot start container {entry.spec.container_id}: {reason}"}
            )

    def _on_start_settled(self, entry: Entry) -> None:
        if not entry.failure and not entry.executed_ns:
            entry.failure = RuntimeFailure(
                f"cannot start container {entry.spec.container_id}: its first process was killed while it was set up "
                "(a memory or process limit too small for the start itself?)"
            )
        self._await_up(entry)

    def _await_up(self, entry: Entry) -> None:
        """Answer the request for a start once the container's program has been executed, or never will be."""
        if entry.started is None:
            return
        if not entry.failure and entry.exit_status is None and not self._executor(entry.spec).is_up(entry):
            self._poller.call_later(UP_PAUSE_S, lambda: self._await_up(entry))
            return
        answer, entry.started = entry.started, None
        if entry.failure:
            failure = entry.failure
            entry.removals.append(lambda _: answer(failure))
            self._kill_all(entry)
            if entry.exit_status is not None:
                self._finish_removal(entry)
        else:
            entry.phase_ms["execute"] = (time.monotonic_ns() - entry.executed_ns) / 1e6
            answer(Reply(self._started_values(entry), tuple(os.dup(descriptor) for descriptor in entry.outputs)))

    def _on_first_ended(self, entry: Entry) -> None:
        _, status = os.waitpid(entry.forked.pid, 0)
        self._poller.unwatch(entry.forked.pidfd)
        os.close(entry.forked.pidfd)
        executor = self._executor(entry.spec)
        entry.exit_status = executor.exit_status(entry, status)
        while entry.forked.channel.fileno() >= 0:
            # It has ended, so what it said is all there and the end follows; the start is answered before the exit is
            # told.
            self._on_start_message(entry)
        if entry.started is not None:
            entry.failure = entry.failure or executor.start_failure(entry, status)
            self._await_up(entry)
        if entry.failure and entry.spec.container_id not in self._entries:
            return
        if not entry.failure:
            self._on_exit(entry.spec.container_id, entry.exit_status)
        if entry.removals and entry.spec.container_id in self._entries:
            self._finish_removal(entry)

    def _end_channel(self, forked: Forked) -> None:
        self._poller.unwatch(forked.channel.fileno())
        forked.channel.close()

    # ---- signals, freezing

    def kill(self, container_id: str, number: int, answer: Outcome) -> None:
        """Signal the first process, or with SIGKILL end every process; the answer comes when it is sent."""
        entry = self._known(container_id)
        if number == signal.SIGKILL:
            self._kill_all(entry)
            answer(Reply())
        else:
            self._executor(entry.spec).signal(entry, number, answer)

    def _kill_all(self, entry: Entry) -> None:
        if entry.exit_status is None:
            # Pid 1 first: it may not have reached its cgroup yet.
            signal.pidfd_send_signal(entry.forked.pidfd, signal.SIGKILL)
            entry.cgroup.kill()

    def freeze(self, container_id: str, answer: Outcome) -> None:
        """Stop every process; the answer comes when they have stopped."""
        entry = self._running(container_id)
        self._aside(entry.cgroup.freeze, answer)

    def thaw(self, container_id: str) -> None:
        """Let them run again."""
        self._running(container_id).cgroup.thaw()

    def _aside(self, action: Callable[[], None], answer: Outcome) -> None:
        forked = fork_aside(action)
        failures: list[RuntimeFailure] = []

        def on_message(_: int) -> None:
            message = receive(forked.channel)
            if message is not None:
                failures.append(failure_from_json({"kind": message["kind"], "message": message["error"]}))
                return
            self._end_channel(forked)
            os.waitpid(forked.pid, 0)
            os.close(forked.pidfd)
            answer(failures[0] if failures else Reply())

        self._poller.watch(forked.channel.fileno(), on_message)

    # ---- exec

    def exec(self, container_id: str, spec: ExecSpec, answer: Outcome) -> None:
        """Begin one more program in a container; the answer comes when it is executed."""
        entry = self._running(container_id)
        self._execs.start(entry, spec, self._user_namespaces.get(entry.spec.id_range), answer)

    def wait_exec(self, exec_id: str, answer: Outcome) -> None:
        """The answer comes when the program has ended; known until its container is removed."""
        self._execs.wait(exec_id, answer)

    def _first_pids(self) -> set[int]:
        return {entry.forked.pid for entry in self._entries.values() if entry.exit_status is None}

    # ---- removal

    def remove(self, container_id: str, answer: Outcome) -> None:
        """Kill what is left and take everything away; the answer comes when it is gone."""
        entry = self._entries.get(container_id)
        if entry is None:
            answer(Reply())
            return
        entry.removals.append(answer)
        if entry.exit_status is None:
            self._kill_all(entry)
        else:
            self._finish_removal(entry)

    def _finish_removal(self, entry: Entry) -> None:
        answers, entry.removals = entry.removals, []
        outcome: Reply | RuntimeFailure = Reply()
        try:
            entry.cgroup.remove()
            remove_scratch(entry.spec.state_dir)
        except RuntimeFailure as failure:
            # The record stays, so that the next sweep tries again; so does the entry, for another `remove`.
            outcome = failure
        else:
            close_descriptors(*entry.outputs)
            self._execs.forget(entry.spec.container_id)
            self._executor(entry.spec).forget(entry.spec.container_id)
            self._let_go(entry.spec.container_id)
            del self._entries[entry.spec.container_id]
        for answer in answers:
            answer(outcome)


def remove_scratch(state_dir: str) -> None:
    """Make sure nothing is mounted below a container's directory; remove what only a mounted container needs."""
    ensure_no_mounts(state_dir)
    # The rest is overlayfs's mark that the upper was not synced; it refuses to mount one whose mark is still there, so
    # that a crash of the machine is noticed. Ours was unmounted, and the page cache has all of it.
    mark = f"{state_dir}/rw/work/work/incompat"
    removals = (
        (os.rmdir, f"{state_dir}/mnt"),
        (os.unlink, f"{mark}/volatile/dirty"),
        (os.rmdir, f"{mark}/volatile"),
        (os.rmdir, mark),
    )
    for remove, path in removals:
        try:
            remove(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise RuntimeFailure(describe_errno("remove", path, error.errno or 0)) from error


def _check_spec(spec: ContainerSpec) -> None:
    check_name("a container id", spec.container_id)
    if not spec.argv:
        raise RuntimeFailure(f"cannot start container {spec.container_id}: argv is empty")
    if not spec.layers:
        raise RuntimeFailure(f"cannot start container {spec.container_id}: it has no layers")
    paths = [*spec.layers, spec.state_dir, spec.cwd]
    paths += [path for bind in spec.binds for path in (bind.source, bind.target)]
    for path in paths:
        if not path.startswith("/"):
            raise RuntimeFailure(f"cannot start container {spec.container_id}: {path!r} is not an absolute path")
    if not os.path.isdir(spec.state_dir):
        raise RuntimeFailure(f"cannot start container {spec.container_id}: no state directory {spec.state_dir}")
