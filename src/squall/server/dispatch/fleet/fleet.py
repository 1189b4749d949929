"""All containers: asked for, started (`starts.py`), watched and ended.

The decisions are the autoscaler's and the scheduler's; this carries them out and tells the dispatchers what became of
their containers.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from squall.protocol.errors import PlatformError
from squall.protocol.guest import GuestStop, Ready
from squall.protocol.ids import born_at, new_id
from squall.protocol.log import SYSTEM, LogEntry
from squall.protocol.node import TEMPLATE_FUNCTIONS_MAX, ContainerExited, NodeReport
from squall.protocol.peer import Peer
from squall.protocol.records import replace
from squall.protocol.task_set import TaskSet
from squall.protocol.template import NodeTemplatesUnneeded
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.fleet.node import Node
from squall.server.dispatch.fleet.scaling import Scaling
from squall.server.dispatch.fleet.starts import Starts
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.dispatch.walk import Walk
from squall.server.model.clock import Clock
from squall.server.model.config import ServerConfig
from squall.server.model.logs import LogStore, printed_by

_log = logging.getLogger("squall.server.dispatch.fleet.fleet")

LAST_FRAMES_S = 2.0
"""How long after a container's exit its connection may bring what it sent last."""
END_SLACK_S = 30.0
PENDING_MAX = 2_000
"""Containers of one app, and of those that it started, that may wait for a place: they are served in turns, and more
would get none sooner."""
LOOKS_MAX = 2_000
"""Containers that are looked at in one turn of the event loop."""
MEMORY_PRESSURE = 0.92
"""Share of a machine's memory in use from which its node drops templates, and then ends idle containers."""


class ContainerFleet:
    """Implements what dispatchers ask for (`dispatcher.Fleet`)."""

    def __init__(self, *, clock: Clock, config: ServerConfig, logs: LogStore, tasks: TaskSet) -> None:
        self._clock = clock
        self._config = config
        self._logs = logs
        self._tasks = tasks
        self.nodes: dict[str, Node] = {}
        self.containers: dict[str, Container] = {}
        self.active: dict[str, Dispatcher] = {}
        """Functions that have containers, by id."""
        self.idle: dict[Container, None] = {}
        self.stopped: OrderedDict[str, Container] = OrderedDict()
        self.starts = Starts(self, clock=clock, config=config, tasks=tasks)
        self._scaling = Scaling(self, clock)
        self._walk = Walk(clock, self._look, at_a_time=LOOKS_MAX)
        self.free_templates: Callable[[Node, int], Coroutine[Any, Any, bool]] = _free_none
        """Drops templates of a node that free about so many MiB; False where none would (`node_templates.py`)."""

    def changed(self, dispatcher: Dispatcher) -> None:
        """See `dispatcher.Fleet`."""
        self._scaling.changed(dispatcher)

    def claim_changed(self, container: Container) -> None:
        """See `dispatcher.Fleet`."""
        self.starts.claim_changed(container)

    # Asking for containers

    def request(self, dispatcher: Dispatcher, count: int, *, is_plain: bool = False) -> int:
        """Ask for more containers of a function; returns how many were asked for, at most `room`."""
        count = min(count, self.room(dispatcher))
        for _ in range(count):
            container = Container(new_id("ct"), dispatcher, self._clock.now(), self._clock.monotonic())
            container.is_plain = is_plain
            self._add(container)
            self.starts.request(container)
        if count:
            self.starts.place()
        return count

    def room(self, dispatcher: Dispatcher) -> int:
        """How many more of a function may be asked for: fewer where so many of its app wait for a place already. One
        that has none waiting gets one in any case."""
        room = PENDING_MAX - self.starts.scheduler.waiting_of(dispatcher.root_app_id)
        least = 0 if self.starts.scheduler.is_waiting(dispatcher.spec.function_id) else 1
        return max(room, least)

    def cancel_pending(self, dispatcher: Dispatcher, count: int) -> None:
        """Ask for fewer, the latest first, before they are placed."""
        waiting = [one for one in dispatcher.containers.values() if one.container_id in self.starts.pending]
        pending = [one for one in waiting if not (one.is_plain and dispatcher.quarantine.is_in_doubt)]
        for container in pending[::-1][:count]:
            self.kill(container, "no longer wanted")

    def _add(self, container: Container) -> None:
        self.containers[container.container_id] = container
        self.active[container.dispatcher.spec.function_id] = container.dispatcher
        container.dispatcher.add(container)

    def adopt(self, container_id: str, dispatcher: Dispatcher, node: Node, version: int = 0) -> None:
        """A container that ran before this server did: wait for its guest. One of an earlier version of its function
        may finish what it runs."""
        now = self._clock.monotonic()
        container = Container(container_id, dispatcher, self._asked_for_at(container_id), now)
        container.is_adopted = True
        if version != dispatcher.spec.version:
            container.spec = replace(dispatcher.spec, version=version)
            container.is_draining = True
            container.drain_reason = f"version {dispatcher.spec.version} of its function has taken its place"
        # One that is for a single input has had it, or has it now.
        container.has_served = dispatcher.spec.scaling.is_single_use
        container.node = node
        container.last_heard_at = now
        node.containers[container_id] = container
        self.starts.held(container, node)
        self._add(container)
        self.starts.watch(container, self._config.heartbeat_timeout_s)

    def _asked_for_at(self, container_id: str) -> float:
        """Of a container that another server asked for: its id says when."""
        now = self._clock.now()
        try:
            return min(born_at(container_id), now)
        except ValueError:
            return now

    def cancel_replaced(self, adopted: dict[Dispatcher, int]) -> None:
        """So many containers of these functions came with a node: as many that were asked for before are not wanted."""
        surplus: list[Container] = []
        for dispatcher, count in adopted.items():
            surplus += [one for one in self.starts.pending.values() if one.dispatcher is dispatcher][::-1][:count]
        # All of them first: the end of each has the others placed.
        for container in surplus:
            del self.starts.pending[container.container_id]
        for container in surplus:
            self.kill(container, "no longer wanted")

    # What guests say

    def connected(self, container: Container, peer: Peer, *, is_ahead: bool = False) -> None:
        """The guest's connection is there (again).

        Args:
            is_ahead: and the guest itself will be: what it is given until then waits for it.
        """
        if container.peer is not None and container.peer is not peer:
            container.peer.channel.close()
            self._never_came(container)
        container.peer = peer
        container.has_guest = not is_ahead
        container.last_heard_at = self._clock.monotonic()
        container.mark("connected", container.last_heard_at)

    def came(self, container: Container) -> None:
        """The guest that was announced is there: what it was given reaches it from now on."""
        if container.peer is not None and not container.has_guest:
            container.has_guest = True
            if container.is_serving:
                container.dispatcher.serves(container)

    def _never_came(self, container: Container) -> None:
        """The connection of a guest is gone; one that was only announced has got nothing of what it was given."""
        if container.is_ready and not container.has_guest:
            container.dispatcher.not_ready(container)
            self.starts.never_came(container)

    def ready(self, container: Container, record: Ready) -> None:
        """The guest serves."""
        if container.is_stopped or container.ending:
            return
        container.phase_ms.setdefault("import", record.import_ms)
        if record.enter_ms:
            container.phase_ms.setdefault("enter", record.enter_ms)
        container.dispatcher.ready(container, record.credit_max)
        if container.is_draining and not container.is_busy:
            self.drain(container, container.drain_reason)

    def disconnected(self, container: Container, peer: Peer) -> None:
        """The guest's connection is gone: it comes back, or its exit is reported."""
        if container.peer is not peer:
            return
        container.peer = None
        self._never_came(container)
        container.dispatcher.refresh(container)
        if container.exit is not None:
            self.finish(container)

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
            self.finish(container)
            return
        grace_s = container.grace_s(grace_s)
        self._tasks.start(self.end_at(node, container, grace_s))
        timer = self._clock.call_later(grace_s + END_SLACK_S, lambda: self.finish(container))
        container.timers.append(timer)

    def end(self, container: Container, reason: str, grace_s: float) -> None:
        """See `dispatcher.Fleet`."""
        finish_s = container.finish_s
        if not finish_s or not container.is_busy or not container.is_ready:
            self.kill(container, reason, grace_s)
            return
        self.drain(container, reason)
        container.timers.append(self._clock.call_later(finish_s, lambda: self.kill(container, reason, grace_s)))

    async def end_at(self, node: Node, container: Container, grace_s: float = 0.0) -> None:
        """Ask the node to end it; who reports the end is its agent."""
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
            self.finish(container)
        else:
            container.timers.append(self._clock.call_later(LAST_FRAMES_S, lambda: self.finish(container)))

    def finish(self, container: Container) -> None:
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
        self.starts.ended(container)
        if container.node is not None:
            container.node.containers.pop(container_id, None)
        self.stopped[container_id] = container
        while len(self.stopped) > self._config.stopped_containers_max:
            self.stopped.popitem(last=False)
        dispatcher.remove(container)
        if not dispatcher.containers:
            self.active.pop(dispatcher.spec.function_id, None)
        if container.peer is not None:
            container.peer.channel.close()
        if not was_asked:
            self.log(container, f"container ended: {container.ending_in_words()}")
        dispatcher.attempts.container_ended(container, has_crashed=has_crashed)
        if container.exit is not None and not (was_asked or container.is_ready or container.is_adopted):
            self.starts.crashed(container)
        self._logs.finish(dispatcher.spec.app_id, container_id)
        for callback in container.on_stopped:
            callback()
        self.starts.place()

    # Nodes

    def node_lost(self, node: Node) -> None:
        """A node did not come back: its containers are gone."""
        node.lost_timer = None
        if node.peer is not None:
            return
        _log.warning(
            "node %s is lost: not back after %g s, its containers (%d) count as gone",
            node.node_id,
            self._config.node_grace_s,
            len(node.containers),
        )
        self.nodes.pop(node.node_id, None)
        self.starts.scheduler.node_gone(node.node_id)
        for container in list(node.containers.values()):
            self.lost(container)

    def reported(self, node: Node, report: NodeReport) -> None:
        """How a node is."""
        node.report, node.is_report_new = report, True
        self.starts.scheduler.templates_told(node.node_id, report.template_function_ids[:TEMPLATE_FUNCTIONS_MAX])

    def unneeded(self, app_id: str, function_id: str = "", functions: Mapping[str, int] | None = None) -> None:
        """Nobody will ask for a container of the app any more, or of that function of it, or of others than these as
        they are since these versions. Who is away now is told when it comes (`NodeTemplates.greet`)."""
        record = NodeTemplatesUnneeded(app_id, function_id, dict(functions or {}))
        for node in self.nodes.values():
            node.tell_unneeded(record)

    def lost(self, container: Container) -> None:
        """A container is gone and nobody saw how."""
        container.exit_reason = container.exit_reason or "its node was lost"
        self.finish(container)

    def tick(self) -> None:
        """Once a second: guests that fell silent, nodes that run out of memory, who waits for a place."""
        self._walk.begin(self.containers.values())
        for node in self.nodes.values():
            self._relieve(node)
        self.starts.tick()

    def _look(self, container: Container) -> None:
        is_silent = self._clock.monotonic() - container.last_heard_at > self._config.heartbeat_timeout_s
        if container.is_ready and not container.ending and is_silent:
            self.kill(container, "it was silent for too long")
        if container.claims_cpu:
            self.starts.claim_changed(container)

    def _relieve(self, node: Node) -> None:
        """Memory of the node runs out: templates go first, which no call waits for; then the newest idle container, the
        one that costs least to start again."""
        report = node.report
        if report is None or not node.is_report_new or node.is_relieving:
            return
        node.is_report_new = False  # the next one tells whether it helped
        over_mib = report.memory_used_mib - int((report.memory_total_mib or node.memory_mib) * MEMORY_PRESSURE)
        if over_mib >= 0:
            node.is_relieving = True
            self._tasks.start(self._make_room(node, over_mib))

    async def _make_room(self, node: Node, wanted_mib: int) -> None:
        try:
            if await self.free_templates(node, wanted_mib) or node.peer is None:
                return
        finally:
            # What it has reported meanwhile may be from before.
            node.is_relieving = node.is_report_new = False
        idle = [one for one in node.containers.values() if one.is_spare]
        if idle:
            self.drain(max(idle, key=lambda one: one.created_at), "its node is short of memory")

    def log(self, container: Container, text: str, input_id: str = "") -> None:
        """Say something in the app's log, perhaps of one input."""
        entry = LogEntry(self._clock.now(), SYSTEM, text, container.container_id, input_id)
        self._logs.append((printed_by(container.spec, entry),))


async def _free_none(node: Node, wanted_mib: int) -> bool:
    """Where nobody knows of templates."""
    return False
