"""Clones from the cell to the end: made ahead or at once, forked, begun, and taken away when they end.

A clone is prepared in two steps, its cell and its fork, each of which may be done ahead; then it begins. It is a child
of its template's first process, and its end is told by its cell's: nobody in that is left then.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from squall.runtime.cgroup import CgroupTree
from squall.runtime.clones import Clones, entry_paths, kill_process
from squall.runtime.container import (
    Clone,
    Entry,
    Outcome,
    Reply,
    close_descriptors,
    copy_descriptors,
    output_pipes,
    receive,
    status_of_clone,
)
from squall.runtime.errors import ContainerExists, ContainerMissing, RuntimeFailure, as_failure
from squall.runtime.ground import Ground
from squall.runtime.launch import Forked, LaunchKit, fork_cell
from squall.runtime.mounter import Mounter
from squall.runtime.plan import plan_cell
from squall.runtime.poll import Poller
from squall.runtime.spec import ContainerSpec, ExitStatus, Volume
from squall.runtime.strays import Strays, end_rest
from squall.runtime.templates import Templates
from squall.runtime.verification import Cell
from squall.runtime.wire import failure_from_json

_KILLED = ExitStatus(code=None, signal=int(signal.SIGKILL))


class Ends(NamedTuple):
    """What the registry does with any container."""

    kill: Callable[[Entry], None]
    """End every process of it."""
    tell: Callable[[Entry], None]
    """Tell the agents that it has ended."""
    reap: Callable[[], None]
    """Reap what one of our own processes has left that was killed."""
    finish: Callable[[Entry], None]
    """Take away what is left of one that has ended, and answer those who wait for that."""


class Forking:
    """The clones among the containers of a registry, whose entries it shares."""

    def __init__(
        self, entries: dict[str, Entry], ground: Ground, tree: CgroupTree, kit: LaunchKit, poller: Poller,
        templates: Templates, ends: Ends, mounter: Mounter,
    ) -> None:  # fmt: skip
        self._entries = entries
        self._ground = ground
        self._tree = tree
        self._kit = kit
        self._poller = poller
        self._templates = templates
        self._ends = ends
        self._clones = Clones(kit, poller)
        self._mounter = mounter
        self._strays = Strays(poller, self._clones_of)

    def start(self, spec: ContainerSpec, answer: Outcome) -> None:
        """Prepare a clone and let it begin; the answer comes when it has."""

        def on_prepared(outcome: Reply | RuntimeFailure) -> None:
            if isinstance(outcome, RuntimeFailure):
                answer(outcome)
                return
            try:
                self.begin(spec.container_id, spec.env, answer, spec.volumes)
            except RuntimeFailure as failure:
                answer(failure)

        self.prepare(spec, is_parked=True, answer=on_prepared)

    def prepare(self, spec: ContainerSpec, *, is_parked: bool, answer: Outcome) -> None:
        """Make a cell, or have a clone made in one that is there, or both; the answer comes when it is done.

        Raises:
            RuntimeFailure: what can be known at once; nothing was made then.
        """
        entry = self._entries.get(spec.container_id)
        if entry is not None and is_parked and _is_bare_cell(entry):
            if entry.exit_status is not None:
                raise ContainerMissing(f"cannot prepare container {spec.container_id}: its cell has ended")
            self._fork_clone(entry, answer)
            return
        if entry is not None:
            raise ContainerExists(f"cannot prepare container {spec.container_id}: it exists; remove it first")
        begin_ns = time.monotonic_ns()
        if spec.volumes:
            self._mounter.get_ready()
        template = self._templates.of(spec)
        cgroup, image_points = self._ground.take(spec, self._tree, spec.limits)
        try:
            plan = plan_cell(spec, entry_paths(cgroup), image_points, template.files)
            phase_ms = {"prepare": (time.monotonic_ns() - begin_ns) / 1e6}
            nested_fd = self._ground.user_namespaces.get_nested(spec.id_range, spec.user[0])
            forked = fork_cell(
                self._kit, spec.id_range, nested_fd, plan, template.entry.forked.pidfd,
                has_own_network=spec.network is None,
            )  # fmt: skip
        except BaseException:
            self._ground.leave(spec, cgroup)
            raise
        entry = Entry(spec, cgroup, (), forked, answer, phase_ms, clone=Clone(spec.template_id))
        self._entries[spec.container_id] = entry
        self._templates.lives(spec.template_id, spec.container_id)
        self._poller.watch(forked.channel.fileno(), lambda _: self._on_cell_message(entry, is_parked=is_parked))

    def _on_cell_message(self, entry: Entry, *, is_parked: bool) -> None:
        clone, maker = entry.clone, entry.forked
        assert clone is not None, "it is a clone's cell"
        given: list[int] = []
        message = receive(maker.channel, given)
        if message is not None and "pid" in message:
            clone.cell_pid = message["pid"]
            if given:
                clone.cell_pidfd = given[0]
            else:
                _kill(clone.cell_pid)
                entry.failure = RuntimeFailure("cannot make a cell: the spawner has no descriptor left to hold it by")
            return
        close_descriptors(*given)
        if message is not None and "phase_ms" in message:
            entry.executed_ns = time.monotonic_ns()
            entry.phase_ms |= {f"cell_{name}": took for name, took in message["phase_ms"].items()}
            return
        if message is not None:
            reason = f"cannot make a cell for container {entry.spec.container_id}: {message['error']}"
            entry.failure = entry.failure or failure_from_json({"kind": message["kind"], "message": reason})
            return
        self._poller.unwatch(maker.channel.fileno())
        maker.channel.close()
        _, status = os.waitpid(maker.pid, 0)
        os.close(maker.pidfd)
        if os.WIFSIGNALED(status):
            # Whom it had forked are our children now, and hold the end of the template's pid namespace until reaped.
            self._ends.reap()
        answer, entry.started = entry.started, None
        assert answer is not None, "the channel ends once"
        if not entry.failure and not entry.executed_ns:
            entry.failure = RuntimeFailure(
                f"cannot make a cell for container {entry.spec.container_id}: it was killed while it was set up"
            )
        if not entry.failure:
            try:
                clone.cell = Cell.of(clone.cell_pid)
            except (RuntimeFailure, OSError) as error:
                entry.failure = RuntimeFailure(f"cannot make a cell for container {entry.spec.container_id}: {error}")
        if clone.cell_pidfd < 0:
            # Nothing is in it, or it ends with who has made it.
            entry.exit_status = _KILLED
        else:
            entry.forked = Forked(clone.cell_pid, clone.cell_pidfd, maker.channel)
            self._poller.watch(clone.cell_pidfd, lambda _: self._on_cell_ended(entry))
        if entry.failure:
            self._discard(entry, entry.failure, answer)
            return
        if entry.removals:
            self._ends.kill(entry)
        elif is_parked:
            self._fork_clone(entry, answer)
            return
        answer(Reply())

    def _fork_clone(self, entry: Entry, answer: Outcome) -> None:
        clone = entry.clone
        assert clone is not None, "it has a cell"
        begin_ns = time.monotonic_ns()

        def on_joined(failure: RuntimeFailure | None) -> None:
            entry.phase_ms["fork"] = (time.monotonic_ns() - begin_ns) / 1e6
            if failure:
                self._discard(entry, failure, answer)
                return
            self._poller.watch(clone.pidfd, lambda _: self._on_clone_ended(entry))
            answer(Reply())
            if clone.waiting is None and not entry.mounting:
                # Nobody has let it begin at once: it has time to get further.
                self._clones.let_wait(clone)

        try:
            template = self._templates.of(entry.spec)
            self._clones.fork(clone, entry.spec, entry.cgroup, template, on_joined)
        except (RuntimeFailure, OSError) as failure:
            self._discard(entry, failure, answer)
        else:
            self._strays.watch(template)

    def begin(self, container_id: str, env: Mapping[str, str], answer: Outcome, volumes: Sequence[Volume] = ()) -> None:
        """Let a prepared container begin; the answer comes when it has.

        Args:
            volumes: with these versions in the places that were made for them.

        Raises:
            ContainerMissing: there is none.
            RuntimeFailure: it was prepared for other volumes.
        """
        entry = self._entries.get(container_id)
        if entry is None or not entry.is_prepared or entry.exit_status is not None or entry.write_ends:
            raise ContainerMissing(f"no container {container_id} is prepared")
        clone = entry.clone
        assert clone is not None, "what is prepared is a clone"
        if [_place_of(one) for one in volumes] != [_place_of(one) for one in entry.spec.volumes]:
            raise RuntimeFailure(f"cannot begin container {container_id}: it was prepared for other volumes")

        def on_joined(outcome: Reply | RuntimeFailure) -> None:
            if isinstance(outcome, RuntimeFailure):
                answer(outcome)
            elif volumes:
                self._mount(entry, volumes, on_mounted)
            else:
                self._give(entry, clone, env, answer)

        def on_mounted(outcome: Reply | RuntimeFailure) -> None:
            if isinstance(outcome, RuntimeFailure):
                self._discard(entry, outcome, answer)
            else:
                self._give(entry, clone, env, answer)

        if clone.is_joined:
            on_joined(Reply())
        else:
            self._fork_clone(entry, on_joined)

    def _mount(self, entry: Entry, volumes: Sequence[Volume], answer: Outcome) -> None:
        """Let the versions be seen that a clone is to have; the answer comes when they are."""
        begin_ns = time.monotonic_ns()
        container_id, id_range = entry.spec.container_id, entry.spec.id_range
        user_namespace_fd = self._ground.user_namespaces.get(id_range)

        def on_mounted(outcome: Reply | RuntimeFailure) -> None:
            entry.phase_ms["volumes"] = (time.monotonic_ns() - begin_ns) / 1e6
            entry.mounting -= 1
            answer(outcome)
            if entry.exit_status is not None and entry.removals:
                self._ends.finish(entry)

        entry.mounting += 1
        try:
            self._mounter.attach(container_id, volumes, id_range, user_namespace_fd, on_mounted)
        except (RuntimeFailure, OSError) as error:
            on_mounted(as_failure(error))

    def _give(self, entry: Entry, clone: Clone, env: Mapping[str, str], answer: Outcome) -> None:
        begin_ns = time.monotonic_ns()
        try:
            reads, writes = output_pipes(entry.spec)
        except OSError as error:
            self._discard(entry, error, answer)
            return
        entry.outputs = reads

        def on_begun(failure: RuntimeFailure | None) -> None:
            entry.phase_ms["begin"] = (time.monotonic_ns() - begin_ns) / 1e6
            if failure:
                self._discard(entry, failure, answer)
                return
            try:
                outputs = copy_descriptors(*entry.outputs)
            except OSError as error:
                self._discard(entry, error, answer)
            else:
                answer(Reply(entry.started_values, outputs))

        network_env = entry.spec.network.env if entry.spec.network else {}
        # Kept for commands that are run in it later: no process is started with these, so the kernel does not know.
        entry.spec = replace(entry.spec, env={**network_env, **env})
        try:
            self._clones.give(clone, entry.spec.env, writes, on_begun)
        except RuntimeFailure as failure:
            self._discard(entry, failure, answer)
        finally:
            close_descriptors(*writes)

    def _clones_of(self, template_id: str) -> list[Clone]:
        return [
            entry.clone
            for entry in self._entries.values()
            if entry.clone is not None and entry.clone.template_id == template_id and entry.exit_status is None
        ]

    def _discard(self, entry: Entry, failure: RuntimeFailure | OSError, answer: Outcome) -> None:
        """Take a clone that was not begun away; the answer comes when nothing of it is left. What is told is as it was:
        a full disk is not the template's fault."""
        told = as_failure(failure)
        entry.failure = told
        entry.removals.append(lambda _: answer(told))
        self._ends.kill(entry)
        if entry.exit_status is not None:
            self._ends.finish(entry)

    def _on_clone_ended(self, entry: Entry) -> None:
        """Its first process is gone, and the rest of it is to go, too."""
        assert entry.clone is not None, "it is a clone"
        self._poller.unwatch(entry.clone.pidfd)
        kill_process(entry.forked.pidfd)

    def _on_cell_ended(self, entry: Entry) -> None:
        clone = entry.clone
        assert clone is not None, "it is a clone's cell"
        self._poller.unwatch(clone.cell_pidfd)
        if clone.pidfd >= 0:
            self._poller.unwatch(clone.pidfd)
        # Of one that is on its way, whoever waits for it is told, and nobody else.
        is_known = entry.started is None and clone.waiting is None
        # The kernel tells an exit status once its process is reaped, which the end of pid 1 has waited for.
        self._clones.drain(clone)
        entry.exit_status = status_of_clone(clone, is_oom=entry.is_oom)
        # What it forked before it was in the cell's pid namespace, and hid in its cgroup, is ended here.
        end_rest(self._poller, entry.cgroup)
        self._clones.hang_up(clone)
        self._clones.give_up(clone)
        if entry.spec.container_id not in self._entries:
            return
        if is_known and (clone.is_begun or not entry.removals):
            self._ends.tell(entry)
        if entry.removals and entry.spec.container_id in self._entries:
            self._ends.finish(entry)


def _place_of(volume: Volume) -> tuple[str, str, str]:
    return volume.name, volume.target, volume.sub_path


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _is_bare_cell(entry: Entry) -> bool:
    """Made, without a clone in it or on its way, and not to be removed."""
    clone = entry.clone
    return (
        clone is not None and entry.started is None and clone.channel is None and not clone.pid and not entry.removals
    )
