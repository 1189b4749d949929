"""The containers of one spawner: starting, running, ended, and on their way out.

Nothing here waits. Work that takes time happens in forked processes; their channels and pidfds call back.

A container is `starting` until its channel ends, then `running`; `ended` from the moment its first process is reaped
(the kernel has ended every other process in it by then) until it is removed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from squall.runtime.aside import run_aside
from squall.runtime.bucket.servers import BucketServers
from squall.runtime.cgroup import Cgroup, CgroupTree, without_unified
from squall.runtime.clones import kill_process, send_signal
from squall.runtime.container import (
    CgroupEntry,
    Entry,
    Outcome,
    Reply,
    close_descriptors,
    copy_descriptors,
    output_pipes,
    receive,
)
from squall.runtime.contract import NAMESPACES_MAX
from squall.runtime.criu.saving import Saving
from squall.runtime.errors import (
    ContainerExists,
    ContainerMissing,
    FeatureMissing,
    RuntimeFailure,
    TemplateUnfit,
    as_failure,
    describe_errno,
)
from squall.runtime.execs import Execs
from squall.runtime.executor import Executor, NamespaceExecutor
from squall.runtime.forking import Ends, Forking
from squall.runtime.ground import Ground
from squall.runtime.gvisor.executor import GvisorExecutor
from squall.runtime.gvisor.slot import restore_slot
from squall.runtime.gvisor.snapshots import Hands, Snapshots
from squall.runtime.launch import Forked, LaunchKit, fork_first, fork_network_namespaces
from squall.runtime.layer_mounts import LayerMounts
from squall.runtime.mounter import Mounter
from squall.runtime.mounts import ensure_no_mounts
from squall.runtime.poll import Poller
from squall.runtime.records import Records
from squall.runtime.spec import (
    GVISOR,
    NAMESPACES,
    ContainerSpec,
    ContainerStatus,
    ContainerUsage,
    ExecSpec,
    ExitStatus,
    IdRange,
    Volume,
)
from squall.runtime.templates import Templates
from squall.runtime.volumes import VolumeUsers, end_swapped, swap
from squall.runtime.wire import failure_from_json

UP_PAUSE_S = 0.005
LEAVE_PAUSES_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
"""Before it is looked again whether nobody is left in a cgroup; then it is not waited for any more, but seen to."""


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
        self._tree = tree
        self._kit = kit
        self._poller = poller
        self._on_exit = on_exit
        self._ground = Ground(instance, records, layer_mounts, VolumeUsers(kit.images_fd, set()))
        self._entries: dict[str, Entry] = {}
        self._clone_tree = without_unified(tree)
        self._buckets = BucketServers(instance, tree, kit, poller, self._ground.user_namespaces, self._tell_user)
        gvisor = GvisorExecutor(kit, poller)
        self._executors: Mapping[str, Executor] = {NAMESPACES: NamespaceExecutor(poller), GVISOR: gvisor}
        hands = Hands(self._launch, self._kill_all, self._end_saved, self.remove)
        self._snapshots = Snapshots(gvisor, poller, hands)
        self._execs = Execs(kit, poller, self._executors, self._first_pids)
        self._templates = Templates(self._execs, poller, self._kill_all)
        self._saving = Saving(poller)
        ends = Ends(self._kill_all, self._tell_exit, self._execs.reap_soon, self._finish_removal)
        self._mounter = Mounter(poller, kit.images_fd)
        own = (self._entries, self._ground, self._clone_tree)
        self.forking = Forking(*own, kit, poller, self._templates, ends, self._mounter)

    # ---- what there is

    def statuses(self) -> list[ContainerStatus]:
        """Every container, in the order they were started."""
        return [
            ContainerStatus(name, entry.first_pid, dict(entry.spec.labels), entry.exit_status, entry.is_prepared)
            for name, entry in self._entries.items()
            if entry.started is None and not self._snapshots.is_check(name)
        ]

    def running_count(self) -> int:
        """Containers that have not ended."""
        return sum(1 for entry in self._entries.values() if entry.exit_status is None)

    def container_ids(self) -> list[str]:
        """Ids of every container, ended ones and those that are about to begin included."""
        return [*self._entries, *self._snapshots.pending_ids(), *self._buckets.starting_ids()]

    def usage(self, container_id: str) -> ContainerUsage:
        """Counters of a container that runs or is prepared."""
        return self._alive(self._there(container_id)).cgroup.usage()

    def outputs(self, container_id: str) -> Reply:
        """Fresh copies of its output descriptors, as the answer to `adopt`."""
        entry = self._known(container_id)
        values = entry.started_values
        if entry.clone is not None:
            values |= {"env": dict(entry.spec.env), "cwd": entry.spec.cwd}
        values["bucket_pids"] = self._buckets.pids(container_id)
        return Reply(values, copy_descriptors(*entry.outputs))

    def _there(self, container_id: str) -> Entry:
        entry = self._entries.get(container_id)
        if entry is None or entry.started is not None:
            raise ContainerMissing(f"no container {container_id}")
        return entry

    def _known(self, container_id: str) -> Entry:
        entry = self._there(container_id)
        if entry.is_prepared:
            raise ContainerMissing(f"no container {container_id}: it has not begun yet")
        return entry

    def _running(self, container_id: str) -> Entry:
        return self._alive(self._known(container_id))

    @staticmethod
    def _alive(entry: Entry) -> Entry:
        if entry.exit_status is not None or entry.is_saved:
            raise ContainerMissing(f"container {entry.spec.container_id} has ended")
        return entry

    def _executor(self, spec: ContainerSpec) -> Executor:
        executor = self._executors.get(spec.isolation)
        if executor is None:
            known = ", ".join(self._executors)
            raise RuntimeFailure(
                f"cannot start container {spec.container_id}: unknown isolation {spec.isolation!r}; known: {known}"
            )
        return executor

    # ---- start

    def start(self, spec: ContainerSpec, answer: Outcome) -> None:
        """Begin a container; the answer comes when its program is executed.

        Raises:
            RuntimeFailure: what can be known at once; nothing was made then.
        """
        self._executor(spec)
        is_pending = self._snapshots.is_pending(spec.container_id) or self._buckets.is_known(spec.container_id)
        if spec.container_id in self._entries or is_pending:
            raise ContainerExists(f"cannot start container {spec.container_id}: it exists; remove it first")
        if spec.template_id and spec.isolation == GVISOR:
            self._snapshots.restore(spec, answer)
        elif spec.template_id:
            self.forking.start(spec, answer)
        elif spec.buckets:
            self._buckets.start(spec, lambda outcome: self._launch_with_buckets(spec, outcome, answer))
        else:
            self._launch(spec, answer)

    def _launch_with_buckets(self, spec: ContainerSpec, outcome: Reply | RuntimeFailure, answer: Outcome) -> None:
        if isinstance(outcome, RuntimeFailure):
            answer(outcome)
            return
        try:
            self._launch(spec, answer, outcome.values)
        except (RuntimeFailure, OSError) as error:
            failure = as_failure(error)
            self._buckets.end(spec.container_id, lambda _: answer(failure))

    def _launch(self, spec: ContainerSpec, answer: Outcome, earlier_ms: Mapping[str, float] | None = None) -> None:
        executor = self._executor(spec)
        if _is_forked(spec) and self._kit.pause_fd < 0:
            raise FeatureMissing(
                f"cannot start template {spec.container_id}: catatonit is missing; install the package catatonit"
            )
        begin_ns = time.monotonic_ns()
        tree = self._clone_tree if _is_forked(spec) else self._tree
        cgroup, image_points = self._ground.take(spec, tree, executor.limits(spec))
        with contextlib.ExitStack() as undo:
            undo.callback(self._ground.leave, spec, cgroup)
            user_namespace_fd = self._ground.user_namespaces.get(spec.id_range)
            phase_ms = {**(earlier_ms or {}), "prepare": (time.monotonic_ns() - begin_ns) / 1e6}
            reads, writes = output_pipes(spec)
            undo.callback(close_descriptors, *reads, *writes)
            undo.callback(executor.forget, spec.container_id)
            trees = self._buckets.take(spec.container_id)
            undo.callback(close_descriptors, *trees.values())
            with contextlib.closing(CgroupEntry.of(cgroup)) as cgroup_entry:
                forked = fork_first(
                    self._kit, spec.id_range, user_namespace_fd,
                    executor.plan_start(spec, cgroup_entry.tasks_paths, image_points),
                    writes, cgroup_fd=cgroup_entry.unified_fd, has_own_network=spec.network is None, trees=trees,
                )  # fmt: skip
            undo.pop_all()
        close_descriptors(*trees.values())
        entry = Entry(spec, cgroup, reads, forked, answer, phase_ms)
        if _is_forked(spec):
            # Its program comes later than its first process.
            entry.write_ends = writes
        elif spec.buckets:
            # Whoever reads it may be told of them when all of its own processes have closed it.
            entry.write_ends = writes[1:]
            os.close(writes[0])
        else:
            close_descriptors(*writes)
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
        if _is_forked(entry.spec) and not entry.failure and entry.executed_ns and entry.exit_status is None:
            self._begin_template(entry)
            return
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
        outputs: tuple[int, ...] = ()
        try:
            outputs = copy_descriptors(*entry.outputs)
        except OSError as error:
            reason = f"cannot start container {entry.spec.container_id}: its output cannot be handed over: {error}"
            entry.failure = entry.failure or RuntimeFailure(reason)
        if entry.failure:
            close_descriptors(*outputs)
            failure = entry.failure
            entry.removals.append(lambda _: answer(failure))
            self._kill_all(entry)
            if entry.exit_status is not None:
                self._finish_removal(entry)
        else:
            entry.phase_ms["execute"] = (time.monotonic_ns() - entry.executed_ns) / 1e6
            if entry.spec.is_template and entry.spec.isolation == GVISOR:
                self._snapshots.begin(entry)
            bucket_pids = self._buckets.pids(entry.spec.container_id)
            answer(Reply({**entry.started_values, "bucket_pids": bucket_pids}, outputs))

    def _begin_template(self, entry: Entry) -> None:
        """Execute the program of a template beside its first process."""
        container_id = entry.spec.container_id

        def on_executed(outcome: Reply | RuntimeFailure) -> None:
            close_descriptors(*entry.write_ends)
            entry.write_ends = ()
            if isinstance(outcome, RuntimeFailure):
                entry.failure = failure_from_json(
                    {"kind": type(outcome).__name__, "message": f"cannot start template {container_id}: {outcome}"}
                )
            self._await_up(entry)

        write_ends = (entry.write_ends[0], entry.write_ends[1])
        try:
            self._templates.begin(entry, write_ends, self._ground.user_namespaces.get(entry.spec.id_range), on_executed)
        except RuntimeFailure as failure:
            on_executed(failure)
        except OSError as error:
            on_executed(RuntimeFailure(str(error)))

    def template_report(self, container_id: str, answer: Outcome) -> None:
        """The answer comes when a template has said how far it has come."""
        reporting = self._snapshots if self._snapshots.knows(container_id) else self._templates
        reporting.report(container_id, answer)

    def save(self, template_id: str, directory: str, file_bytes_max: int, answer: Outcome) -> None:
        """The answer comes when a template is saved in a directory."""
        template = self._templates.ready(template_id)
        if template is None:
            raise TemplateUnfit(f"cannot save template {template_id}: it is not ready, or has ended")
        self._saving.save(template, directory, file_bytes_max, answer)

    def _on_first_ended(self, entry: Entry) -> None:
        _, status = os.waitpid(entry.forked.pid, 0)
        self._poller.unwatch(entry.forked.pidfd)
        os.close(entry.forked.pidfd)
        if not entry.removals and self._snapshots.takes_end(entry):
            return
        executor = self._executor(entry.spec)
        entry.exit_status = executor.exit_status(entry, status)
        if entry.program_status is not None:
            # The first process only waits, and is killed when its program has ended.
            entry.exit_status = replace(entry.program_status, is_oom=entry.exit_status.is_oom)
        if entry.spec.buckets:
            close_descriptors(*entry.write_ends)
            entry.write_ends = ()
        while entry.forked.channel.fileno() >= 0:
            # It has ended, so what it said is all there and the end follows; the start is answered before the exit is
            # told.
            self._on_start_message(entry)
        self._templates.forget(entry.spec.container_id)
        self._snapshots.forget(entry.spec.container_id)
        if entry.started is not None:
            entry.failure = entry.failure or executor.start_failure(entry, status)
            if _is_forked(entry.spec) and not entry.failure:
                # Its program was not executed yet.
                entry.failure = RuntimeFailure(
                    f"cannot start template {entry.spec.container_id}: its first process ended"
                )
            self._await_up(entry)
        if entry.failure and entry.spec.container_id not in self._entries:
            return
        if not entry.failure:
            self._tell_exit(entry)
        if entry.removals and entry.spec.container_id in self._entries:
            self._finish_removal(entry)

    def _tell_user(self, container_id: str, text: str) -> None:
        """Say something among what a container prints; nobody waits for room there."""
        entry = self._entries.get(container_id)
        if entry is not None and len(entry.outputs) > 1:
            with contextlib.suppress(OSError):
                # The other end of the pipe: its own belongs to the container.
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(f"/proc/self/fd/{entry.outputs[1]}", flags)
                try:
                    os.write(descriptor, f"squall: {text}\n".encode())
                finally:
                    os.close(descriptor)

    def _tell_exit(self, entry: Entry) -> None:
        assert entry.exit_status is not None, "it has ended"
        if self._snapshots.is_check(entry.spec.container_id):
            self._snapshots.check_ended(entry.spec.container_id, entry.exit_status)
            return
        self._on_exit(entry.spec.container_id, entry.exit_status)

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
        elif entry.is_saved:
            self._end_saved(entry)
            answer(Reply())
        elif _is_forked(entry.spec):
            self._templates.end(container_id)
            answer(Reply())
        elif entry.clone is not None:
            if entry.exit_status is None:
                entry.clone.sent_signal = number
                send_signal(entry.clone, number)
            answer(Reply())
        else:
            self._executor(entry.spec).signal(entry, number, answer)

    def _kill_all(self, entry: Entry) -> None:
        if entry.is_saved:
            self._end_saved(entry)
        elif entry.exit_status is None:
            # Pid 1 first: it may not have reached its cgroup yet.
            kill_process(entry.forked.pidfd)
            if entry.clone is not None:
                # Nobody of it is outside of its pid namespace, which ends with its pid 1; that was verified.
                entry.clone.sent_signal = signal.SIGKILL
                if entry.clone.cell_pidfd >= 0:
                    kill_process(entry.clone.cell_pidfd)  # its maker may be at work still
                if entry.clone.pidfd >= 0 and not entry.clone.is_joined:
                    kill_process(entry.clone.pidfd)  # the one that was found somewhere else
            if entry.clone is not None or _is_forked(entry.spec):
                with contextlib.suppress(RuntimeFailure):
                    entry.cgroup.thaw()  # v1's freezer holds even who was killed
            else:
                entry.cgroup.kill()
                self._buckets.hurry(entry.spec.container_id)

    def _end_saved(self, entry: Entry) -> None:
        """What is there of it is a snapshot: it ends when it is told to."""
        if entry.exit_status is None:
            entry.exit_status = ExitStatus(code=None, signal=int(signal.SIGKILL))
            self._snapshots.forget(entry.spec.container_id)
            self._tell_exit(entry)
            if entry.removals:
                self._finish_removal(entry)

    def freeze(self, container_id: str, answer: Outcome) -> None:
        """Stop every process; the answer comes when they have stopped."""
        entry = self._running(container_id)
        run_aside(self._poller, entry.cgroup.freeze, answer)

    def thaw(self, container_id: str) -> None:
        """Let them run again."""
        self._running(container_id).cgroup.thaw()

    def swap_volume(self, container_id: str, volume: Volume, answer: Outcome) -> None:
        """Let another version of a volume take the place of the one there; the answer comes when it has."""
        entry = self._there(container_id)
        if entry.is_leaving:
            raise ContainerMissing(f"no container {container_id}: it is being removed")
        id_range = entry.spec.id_range
        user_namespace_fd = self._ground.user_namespaces.get(id_range)
        images_fd = self._kit.images_fd

        def swapped(outcome: Reply | RuntimeFailure) -> None:
            answer(outcome)
            run_aside(self._poller, lambda: end_swapped(images_fd, container_id, volume.name), is_over)

        def is_over(_: Reply | RuntimeFailure) -> None:
            entry.mounting -= 1
            if entry.removals and entry.exit_status is not None:
                self._finish_removal(entry)

        entry.mounting += 1
        run_aside(self._poller, lambda: swap(images_fd, container_id, volume, id_range, user_namespace_fd), swapped)

    # ---- exec

    def exec(self, container_id: str, spec: ExecSpec, answer: Outcome) -> None:
        """Begin one more program in a container; the answer comes when it is executed."""
        entry = self._running(container_id)
        if entry.clone is None:
            user_namespace_fd = self._ground.user_namespaces.get(entry.spec.id_range)
        else:
            user_namespace_fd = self._ground.user_namespaces.get_nested(entry.spec.id_range, entry.spec.user[0])
        self._execs.start(entry, spec, user_namespace_fd, answer)

    def make_network_namespaces(self, id_range: IdRange, uid: int, count: int, answer: Outcome) -> None:
        """The answer comes with their descriptors."""
        nested_fd = self._ground.user_namespaces.get_nested(id_range, uid)
        forked = fork_network_namespaces(nested_fd, min(count, NAMESPACES_MAX), self._poller.private)
        descriptors: list[int] = []
        failures: list[RuntimeFailure] = []

        def on_message(_: int) -> None:
            message = receive(forked.channel, descriptors)
            if message is not None:
                if "error" in message:
                    failures.append(failure_from_json({"kind": message["kind"], "message": message["error"]}))
                return
            self._end_channel(forked)
            os.waitpid(forked.pid, 0)
            os.close(forked.pidfd)
            if descriptors:
                answer(Reply(None, tuple(descriptors)))
            else:
                answer(
                    failures[0]
                    if failures
                    else RuntimeFailure("cannot make network namespaces: what makes them was killed")
                )

        self._poller.watch(forked.channel.fileno(), on_message)

    def wait_exec(self, exec_id: str, answer: Outcome) -> None:
        """The answer comes when the program has ended; known until its container is removed."""
        self._execs.wait(exec_id, answer)

    def _first_pids(self) -> set[int]:
        return {entry.forked.pid for entry in self._entries.values() if entry.exit_status is None}

    # ---- removal

    def remove(self, container_id: str, answer: Outcome) -> None:
        """Kill what is left and take everything away; the answer comes when it is gone."""
        if self._snapshots.is_pending(container_id):
            self._snapshots.give_up(container_id, answer)
            return
        if self._buckets.is_starting(container_id):
            self._buckets.end(container_id, lambda failure: answer(failure or Reply()))
            return
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
        if self._snapshots.outlives(entry.spec.container_id, lambda: self._finish_removal(entry)):
            return
        if self._entries.get(entry.spec.container_id) is not entry:
            self._answer_removals(entry, Reply())
        elif not (entry.is_leaving or entry.mounting):
            entry.is_leaving = True
            # Before all else: none of its processes is left that might wait for them.
            self._buckets.end(entry.spec.container_id, lambda failure: self._without_buckets(entry, failure))

    def _without_buckets(self, entry: Entry, failure: RuntimeFailure | None) -> None:
        if failure is None:
            self._remove_cgroup(entry, 0)
        else:
            self._leave(entry, failure)

    def _remove_cgroup(self, entry: Entry, tries: int) -> None:
        try:
            entry.cgroup.remove(timeout_s=0.0)
        except (RuntimeFailure, OSError):
            if tries < len(LEAVE_PAUSES_S):
                # As a rule somebody is on the way out.
                self._poller.call_later(LEAVE_PAUSES_S[tries], lambda: self._remove_cgroup(entry, tries + 1))
                return
            try:
                run_aside(self._poller, lambda: _end_all(entry.cgroup), lambda outcome: self._leave(entry, outcome))
            except (RuntimeFailure, OSError) as failure:
                self._leave(entry, as_failure(failure))
        else:
            self._leave(entry, Reply())

    def _leave(self, entry: Entry, outcome: Reply | RuntimeFailure) -> None:
        """Let go of its volumes, if its cgroup is gone, and then of the rest."""
        container_id, users = entry.spec.container_id, self._ground.volume_users
        if isinstance(outcome, RuntimeFailure) or not users.has_some(container_id):
            self._leave_rest(entry, outcome)
            return

        def on_dropped(dropped: Reply | RuntimeFailure) -> None:
            if not isinstance(dropped, RuntimeFailure):
                users.dropped(container_id)
            self._leave_rest(entry, dropped)

        self._mounter.drop(container_id, on_dropped)

    def _leave_rest(self, entry: Entry, outcome: Reply | RuntimeFailure) -> None:
        """Take away all but cgroup and volumes, if these are gone."""
        entry.is_leaving = False
        if not isinstance(outcome, RuntimeFailure):
            try:
                remove_scratch(entry.spec.state_dir)
            except (RuntimeFailure, OSError) as failure:
                outcome = as_failure(failure)
        # Else the record stays, so that the next sweep tries again; so does the entry, for another `remove`.
        if not isinstance(outcome, RuntimeFailure):
            # A template whose first process has failed has its write ends still.
            close_descriptors(*entry.outputs, *entry.write_ends)
            entry.outputs = entry.write_ends = ()
            self._execs.forget(entry.spec.container_id)
            self._executor(entry.spec).forget(entry.spec.container_id)
            self._ground.forget(entry.spec.container_id)
            self._templates.removed(entry.spec.container_id)
            del self._entries[entry.spec.container_id]
            if entry.clone is not None:
                entry.clone.close()
                self._templates.died(entry.clone.template_id, entry.spec.container_id)
        self._answer_removals(entry, outcome)

    @staticmethod
    def _answer_removals(entry: Entry, outcome: Reply | RuntimeFailure) -> None:
        answers, entry.removals = entry.removals, []
        for answer in answers:
            answer(outcome)


def _end_all(cgroup: Cgroup) -> None:
    """End who is in a cgroup still, and remove it. Blocks."""
    cgroup.kill()
    cgroup.remove()


def _is_forked(spec: ContainerSpec) -> bool:
    """Whether it is a template whose program is added to a first process that waits."""
    return spec.is_template and spec.isolation == NAMESPACES


def remove_scratch(state_dir: str) -> None:
    """Make sure nothing is mounted below a container's directory; remove what only a mounted container needs."""
    ensure_no_mounts(state_dir)
    restore_slot(state_dir)
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
