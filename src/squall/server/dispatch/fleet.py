"""All containers: asked for, placed, started, watched and ended.

The decisions are the autoscaler's and the scheduler's; this carries them out and tells the dispatchers what became of
their containers.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

from squall.protocol import errors
from squall.protocol.call import Failure
from squall.protocol.errors import ChannelClosed, PlatformError
from squall.protocol.guest import GuestStop, Ready
from squall.protocol.ids import new_id
from squall.protocol.log import SYSTEM, LogEntry
from squall.protocol.node import ContainerExited
from squall.protocol.peer import Peer, TaskSet
from squall.server.dispatch.container import Container
from squall.server.dispatch.dispatcher import Dispatcher
from squall.server.dispatch.node import Node, claim_of
from squall.server.dispatch.scaling import Scaling
from squall.server.model.clock import Clock
from squall.server.model.config import ServerConfig
from squall.server.model.logs import LogStore
from squall.server.policy.timeouts import startup_message
from squall.server.scheduler import Pending, plan

_log = logging.getLogger("squall.server.dispatch.fleet")

LAST_FRAMES_S = 2.0
"""How long after a container's exit its connection may bring what it sent last."""
END_SLACK_S = 30.0
REFUSAL_FIRST_S = 0.25
REFUSAL_MAX_S = 10.0
MEMORY_PRESSURE = 0.92
"""Share of a node's memory in use from which idle containers are ended."""
REFUSALS_MAX = 5
"""Refusals, other than for lack of room, before those who wait are told."""


class ContainerFleet:
    """Implements what dispatchers ask for (`dispatcher.Fleet`)."""

    def __init__(self, *, clock: Clock, config: ServerConfig, logs: LogStore, tasks: TaskSet) -> None:
        self._clock = clock
        self._config = config
        self._logs = logs
        self._tasks = tasks
        self.nodes: dict[str, Node] = {}
        self.containers: dict[str, Container] = {}
        self.pending: dict[str, Container] = {}
        self.stopped: OrderedDict[str, Container] = OrderedDict()
        self._scaling = Scaling(self, clock)

    def changed(self, dispatcher: Dispatcher) -> None:
        """See `dispatcher.Fleet`."""
        self._scaling.changed(dispatcher)

    # Asking for containers

    def request(self, dispatcher: Dispatcher, count: int) -> None:
        """Ask for more containers of a function."""
        for _ in range(count):
            container = Container(new_id("ct"), dispatcher, self._clock.now(), self._clock.monotonic())
            self.containers[container.container_id] = container
            self.pending[container.container_id] = container
            dispatcher.add(container)
        if count:
            self.place()

    def cancel_pending(self, dispatcher: Dispatcher, count: int) -> None:
        """Ask for fewer, the latest first, before they are placed."""
        for container in [one for one in self.pending.values() if one.dispatcher is dispatcher][::-1][:count]:
            self.kill(container, "no longer wanted")

    def adopt(self, container_id: str, dispatcher: Dispatcher, node: Node) -> None:
        """A container that ran before this server did: wait for its guest."""
        now = self._clock.monotonic()
        container = Container(container_id, dispatcher, self._clock.now(), now)
        container.is_adopted = True
        # One that is for a single input has had it, or has it now.
        container.has_served = dispatcher.spec.scaling.is_single_use
        container.node = node
        container.last_heard_at = now
        node.containers[container_id] = container
        self.containers[container_id] = container
        dispatcher.add(container)
        self._watch_start(container, self._config.heartbeat_timeout_s)

    def place(self) -> None:
        """Give pending containers to nodes, as many as fit."""
        now = self._clock.monotonic()
        wanting = tuple(
            Pending(one.container_id, one.dispatcher.spec.function_id, one.dispatcher.spec.image_id,
                    claim_of(one.dispatcher.spec))
            for one in self.pending.values() if one.not_before <= now
        )  # fmt: skip
        if not wanting:
            return
        views = tuple(node.view(self._config.containers_per_node_max) for node in self.nodes.values() if node.peer)
        made = plan(wanting, views)
        for placement in made.placements:
            container = self.pending.pop(placement.container_id)
            node = self.nodes[placement.node_id]
            container.node = node
            node.containers[container.container_id] = container
            container.mark("placed", now)
            self._tasks.start(self._start(container, node))
        for container_id, reason in made.impossible:
            refused = self.pending[container_id]
            refused.exit_reason = f"could not be started: {reason}"
            self._finish(refused)
            refused.dispatcher.fail_queued(Failure("invalid", f"function {refused.dispatcher.spec.name}: {reason}"))
        if made.waiting:
            self._make_room(made.waiting)

    def _make_room(self, waiting: tuple[str, ...]) -> None:
        """End idle containers of other functions, longest idle first, for those that fit nowhere."""
        wanting = {self.pending[one].dispatcher for one in waiting if one in self.pending}
        idle = [one for one in self.containers.values() if one.is_spare and one.dispatcher not in wanting]
        idle.sort(key=lambda one: one.idle_since)
        leaving = sum(1 for one in self.containers.values() if one.is_draining or one.ending)
        for container in idle[: max(0, len(waiting) - leaving)]:
            self.drain(container, "another function needs its place")

    async def _start(self, container: Container, node: Node) -> None:
        try:
            started = await node.start(container)
        except ChannelClosed:
            # Whether it was started is unknown: its agent says so when it is back (`nodes.py`), or the node is lost.
            self._watch_start(container, container.dispatcher.spec.startup_timeout_s)
            return
        except PlatformError as error:
            if error.code == errors.TIMED_OUT and not container.is_stopped:
                self.kill(container, "its node did not start it in time")
                failure = Failure("startup_timed_out", error.message, container_id=container.container_id)
                container.dispatcher.attempts.start_failed(container, failure, is_final=False)
            else:
                self._refused(container, node, error)
            return
        for phase, duration_ms in started.phase_ms.items():
            container.phase_ms.setdefault(f"start.{phase}", duration_ms)
        container.mark("process", self._clock.monotonic())
        if container.ending:
            # The request to end it may have overtaken its start, when there was nothing to end yet.
            await self._end(container, node, 0.0)
            return
        if not container.is_ready and not container.is_stopped:
            self._watch_start(container, container.dispatcher.spec.startup_timeout_s)

    def _refused(self, container: Container, node: Node, error: PlatformError) -> None:
        """The node did not start it: somewhere else, or later, or never."""
        node.containers.pop(container.container_id, None)
        if container.is_stopped:
            return
        container.node = None
        if container.ending:
            self._finish(container)
            return
        dispatcher = container.dispatcher
        container.refusals += 1
        is_final = error.code in (errors.UNSUPPORTED, errors.INVALID)
        if error.code == errors.NOT_FOUND:
            node.lacks_image(dispatcher.spec.image_id)
            is_final = all(dispatcher.spec.image_id in one.missing_image_ids for one in self.nodes.values())
        if is_final or (error.code != errors.EXHAUSTED and container.refusals >= REFUSALS_MAX):
            kind = "image" if error.code == errors.NOT_FOUND else "invalid" if is_final else "lost"
            self.log(container, f"could not be started: {error.message}")
            container.exit_reason = f"could not be started: {error.message}"
            self._finish(container)
            dispatcher.attempts.start_failed(container, Failure(kind, error.message), is_final=True)
            return
        _log.warning("container %s was refused by %s: %s", container.container_id, node.node_id, error.message)
        delay_s = min(REFUSAL_FIRST_S * 2.0 ** (container.refusals - 1), REFUSAL_MAX_S)
        container.not_before = self._clock.monotonic() + delay_s
        self.pending[container.container_id] = container
        self._clock.call_later(delay_s, self.place)

    def _watch_start(self, container: Container, timeout_s: float) -> None:
        container.timers.append(self._clock.call_later(timeout_s, lambda: self._start_overdue(container)))

    def _start_overdue(self, container: Container) -> None:
        if container.is_ready or container.is_stopped or container.ending:
            return
        if not container.is_adopted:
            message = startup_message(container.dispatcher.spec.startup_timeout_s)
            failure = Failure("startup_timed_out", message, container_id=container.container_id)
            container.start_failure = True
            self.kill(container, "it was not ready in time")
            container.dispatcher.attempts.start_failed(container, failure, is_final=True)
        else:
            self.kill(container, "it did not come back to this server")

    # What guests say

    def connected(self, container: Container, peer: Peer) -> None:
        """The guest's connection is there (again)."""
        if container.peer is not None and container.peer is not peer:
            container.peer.channel.close()
        container.peer = peer
        container.last_heard_at = self._clock.monotonic()
        container.mark("connected", container.last_heard_at)

    def ready(self, container: Container, record: Ready) -> None:
        """The guest serves."""
        if container.is_stopped or container.ending:
            return
        container.phase_ms.setdefault("import", record.import_ms)
        container.dispatcher.ready(container, record.credit_max)

    def startup_failed(self, container: Container, failure: Failure) -> None:
        """The guest could not load the function; it exits by itself."""
        if container.is_ready or container.start_failure:
            return
        container.start_failure = True
        container.exit_reason = f"{failure.kind}: {failure.message}"[:500]
        self.kill(container, "its function could not be loaded", 1.0)
        is_final = failure.kind not in ("lost", "crashed")
        container.dispatcher.attempts.start_failed(container, failure, is_final=is_final)

    def disconnected(self, container: Container, peer: Peer) -> None:
        """The guest's connection is gone: it comes back, or its exit is reported."""
        if container.peer is not peer:
            return
        container.peer = None
        container.dispatcher.refresh(container)
        if container.exit is not None:
            self._finish(container)

    # Ending containers

    def drain(self, container: Container, reason: str) -> None:
        """See `dispatcher.Fleet`."""
        if container.is_stopped or container.ending:
            return
        if container.node is None or not container.is_ready:
            self.kill(container, reason)
            return
        container.is_draining = True
        container.drain_reason = container.drain_reason or reason
        container.dispatcher.refresh(container)
        if container.is_busy or container.exit_reason:
            return
        container.exit_reason = container.drain_reason
        grace_s = self._config.drain_grace_s
        container.tell("GuestStop", GuestStop(grace_s))
        timer = self._clock.call_later(grace_s, lambda: self.kill(container, container.drain_reason))
        container.timers.append(timer)

    def kill(self, container: Container, reason: str, grace_s: float = 0.0) -> None:
        """See `dispatcher.Fleet`."""
        if container.is_stopped or container.ending:
            return
        container.ending = reason
        container.exit_reason = container.exit_reason or reason
        container.dispatcher.refresh(container)
        node = container.node
        if node is None:
            self._finish(container)
            return
        self._tasks.start(self._end(container, node, grace_s))
        timer = self._clock.call_later(grace_s + END_SLACK_S, lambda: self._finish(container))
        container.timers.append(timer)

    async def _end(self, container: Container, node: Node, grace_s: float) -> None:
        try:
            await node.end(container.container_id, grace_s)
        except PlatformError as error:
            _log.warning("ending container %s: %s", container.container_id, error.message)

    def exited(self, record: ContainerExited) -> None:
        """An agent reports a container's end. What it sent last may still be on its own connection."""
        container = self.containers.get(record.container_id)
        if container is None or container.exit is not None:
            return
        container.exit = record
        container.dispatcher.refresh(container)
        if container.peer is None:
            self._finish(container)
        else:
            container.timers.append(self._clock.call_later(LAST_FRAMES_S, lambda: self._finish(container)))

    def _finish(self, container: Container) -> None:
        """A container is gone for good."""
        if container.is_stopped:
            return
        was_asked = bool(container.ending) or container.is_draining
        has_crashed = not container.ending and container.has_crashed
        container.is_stopped = True
        container.stopped_at = self._clock.now()
        container.cancel_timers()
        container_id, dispatcher = container.container_id, container.dispatcher
        self.containers.pop(container_id, None)
        self.pending.pop(container_id, None)
        if container.node is not None:
            container.node.containers.pop(container_id, None)
        self.stopped[container_id] = container
        while len(self.stopped) > self._config.stopped_containers_max:
            self.stopped.popitem(last=False)
        dispatcher.remove(container)
        if container.peer is not None:
            container.peer.channel.close()
        if not was_asked:
            self.log(container, f"container ended: {container.ending_in_words()}")
        dispatcher.attempts.container_ended(container, has_crashed=has_crashed)
        if container.exit is not None and not (was_asked or container.is_ready or container.is_adopted):
            self._crashed_at_start(container)
        self._logs.finish(dispatcher.spec.app_id, container_id)
        for callback in container.on_stopped:
            callback()
        self.place()

    def _crashed_at_start(self, container: Container) -> None:
        exited = container.exit
        if exited is None or exited.is_lost:
            return  # its node's fault, not its function's: whoever waits for it gets another one
        ending = container.ending_in_words()
        message = f"the container ended before its function was loaded ({ending}); its log has what it printed last"
        kind = "oom" if exited.is_oom else "disk" if exited.over_disk else "crashed"
        failure = Failure(kind, message, container_id=container.container_id)
        container.dispatcher.attempts.start_failed(container, failure, is_final=kind != "crashed")

    # Nodes

    def node_lost(self, node: Node) -> None:
        """A node did not come back: its containers are gone."""
        node.lost_timer = None
        if node.peer is not None:
            return
        self.nodes.pop(node.node_id, None)
        for container in list(node.containers.values()):
            self.lost(container)

    def lost(self, container: Container) -> None:
        """A container is gone and nobody saw how."""
        container.exit_reason = container.exit_reason or "its node was lost"
        self._finish(container)

    def tick(self, now: float) -> None:
        """Once a second: guests that fell silent, functions that need fewer containers."""
        for container in list(self.containers.values()):
            is_silent = now - container.last_heard_at > self._config.heartbeat_timeout_s
            if container.is_ready and not container.ending and is_silent:
                self.kill(container, "it was silent for too long")
        for node in self.nodes.values():
            self._relieve(node)
        self._scaling.tick()
        self.place()

    def _relieve(self, node: Node) -> None:
        """Memory of the node runs out: end the newest idle container, the one that costs least to start again."""
        report = node.report
        if report is None or report.memory_used_mib < node.memory_mib * MEMORY_PRESSURE:
            return
        idle = [one for one in node.containers.values() if one.is_spare]
        if idle:
            node.report = None  # the next report tells whether it helped
            self.drain(max(idle, key=lambda one: one.created_at), "its node is short of memory")

    def log(self, container: Container, text: str) -> None:
        """Say something in the app's log."""
        spec = container.dispatcher.spec
        entry = LogEntry(
            self._clock.now(), SYSTEM, text, container.container_id, "", spec.app_id, spec.function_id
        )  # fmt: skip
        self._logs.append((entry,))
