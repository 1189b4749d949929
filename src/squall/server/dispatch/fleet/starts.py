"""Containers on their way: given to nodes, started there, and watched until their guest serves.

Which container goes to which node is the scheduler's decision; this carries it out, and tells those who wait when a
container cannot be started.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from squall.protocol import errors
from squall.protocol.bucket import BucketStart
from squall.protocol.call import Failure
from squall.protocol.errors import ChannelClosed, PlatformError
from squall.protocol.function import FunctionSpec
from squall.protocol.task_set import TaskSet
from squall.protocol.volume import VolumesFetched, VolumeStart
from squall.server.dispatch.asset.secrets import NOTHING, Given
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.fleet.detours import Detours
from squall.server.dispatch.fleet.givers import Givers
from squall.server.dispatch.fleet.node import Node, claim_of
from squall.server.model.clock import Clock
from squall.server.model.config import ServerConfig
from squall.server.policy.timeouts import startup_message
from squall.server.scheduler import Pending, Scheduler

if TYPE_CHECKING:
    from squall.server.dispatch.fleet.fleet import ContainerFleet

_log = logging.getLogger("squall.server.dispatch.fleet.starts")

REFUSAL_FIRST_S = 0.25
REFUSAL_MAX_S = 10.0
SAID_REFUSALS = 4
"""Refusals for lack of room before the app's log says what its start waits for."""
FETCH_SAID_S = 10.0
"""Between two lines of an app's log that say how far the fetching of volumes is."""
REFUSALS_MAX = 5
"""Refusals, other than for lack of room or of the image, before those who wait are told."""
PICKLED_BYTES_MAX = 256 * 1024
"""Of a user's exception at a start: each call that waits gets it."""
CAUSE_CHARS_MAX = 500
"""Of why a start took the path it did: it is kept with the container, and may be of the user's making."""
NODES_S = 15.0
"""How long after a restart nodes may take to be back; an agent tries each 5 s at least."""

ROOM_EVERY_S = 0.05
"""Between two looks at which idle containers may end for others."""
GIVE_WAY_MAX = 32
"""Containers that give way at a time, of those that are still counted on (`scheduler/promises.py`)."""
CHOOSE_EVERY_S = 0.01
"""Between two turns in which those are looked for: however many cannot, others have their turns."""


def _pending_of(container: Container) -> Pending:
    spec = container.spec
    return Pending(
        container.container_id, spec.function_id, spec.image_id, claim_of(spec), container.dispatcher.root_app_id,
        container.asked_at,
    )  # fmt: skip


async def _nothing(spec: FunctionSpec) -> Given:
    return NOTHING


async def _no_volumes(container: Container) -> tuple[VolumeStart, ...]:
    return ()


async def _no_buckets(spec: FunctionSpec) -> tuple[BucketStart, ...]:
    return ()


class Starts:
    """The fleet's containers that do not serve yet."""

    def __init__(self, fleet: ContainerFleet, *, clock: Clock, config: ServerConfig, tasks: TaskSet) -> None:
        self._fleet = fleet
        self._clock = clock
        self._config = config
        self._tasks = tasks
        self.pending: dict[str, Container] = {}
        """Those that no node has been asked for yet."""
        self._is_placing = self._is_due = self._is_choosing = False
        self.scheduler = Scheduler()
        self._nodes_expected_until_s = 0.0
        self._givers = Givers(fleet, self.scheduler)
        self._detours = Detours(fleet.log)
        self._room_made_at = float("-inf")
        self.given: Callable[[FunctionSpec], Awaitable[Given]] = _nothing
        """What is in the secrets of a function."""
        self.volumes: Callable[[Container], Awaitable[tuple[VolumeStart, ...]]] = _no_volumes
        """The volumes of a container's function, each with the version that it begins with."""
        self.buckets: Callable[[FunctionSpec], Awaitable[tuple[BucketStart, ...]]] = _no_buckets
        """The buckets of a function, each with its keys."""
        self._making_room: set[Container] = set()
        """Idle ones that are on their way out for those who wait."""

    def request(self, container: Container) -> None:
        """A container needs a node."""
        self.pending[container.container_id] = container
        self.scheduler.want(_pending_of(container))

    def held(self, container: Container, node: Node) -> None:
        """A container is on that node that this server has not put there."""
        self.scheduler.hold(_pending_of(container), node.node_id)

    def ended(self, container: Container) -> None:
        """A container is gone: its place is free, or it needs none any more."""
        self.pending.pop(container.container_id, None)
        self._making_room.discard(container)
        self.scheduler.unwant(container.container_id)
        self.scheduler.ended(container.container_id)

    def node_changed(self, node: Node) -> None:
        """A node is there, or its agent has gone or come back."""
        self.scheduler.node_came(node.view(self._config.containers_per_node_max))

    def claim_changed(self, container: Container) -> None:
        """What it runs waits for calls of its own, or not any more: that changes what it claims."""
        if self.scheduler.waits(container.container_id, is_waiting=container.is_waiting) and self.pending:
            self._clock.call_later(0.0, self.place)

    def place(self) -> None:
        """Give pending containers to nodes, as many as fit."""
        self._is_due = True
        # To end one places the others: after it, and not inside of it, once for each that ends.
        if self._is_placing:
            return
        self._is_placing = True
        try:
            while self._is_due:
                self._is_due = False
                self._place()
        finally:
            self._is_placing = False

    def _place(self) -> None:
        if not self.pending:
            return
        now = self._clock.monotonic()
        made = self.scheduler.place()
        for placement in made.placements:
            container = self.pending.pop(placement.container_id)
            node = self._fleet.nodes[placement.node_id]
            container.node = node
            node.containers[container.container_id] = container
            container.mark("placed", now)
            self._tasks.start(self._start(container, node))
        for container_id, reason in made.impossible:
            refused = self.pending.get(container_id)
            if refused is None:
                continue  # it was not wanted any more when an earlier one had failed
            refused.exit_reason = f"could not be started: {reason}"
            self._fleet.finish(refused)
            refused.dispatcher.fail_queued(Failure("invalid", f"function {refused.dispatcher.spec.name}: {reason}"))
        if made.has_more:
            self._clock.call_later(0.0, self.place)
        elif self.scheduler.waiting_count:
            self._fail_those_without_image()
            self._make_room(now)

    def _fail_those_without_image(self) -> None:
        for image_id in self.scheduler.images_wanted():
            if not self._is_nowhere(image_id):
                continue
            why = f"image {image_id} is on no node that is connected; run or deploy the app again to build it"
            for container_id in self.scheduler.waiting_for(image_id):
                without = self.pending.get(container_id)
                if without is not None:
                    self._lacks_image(without, why)

    def expect_nodes(self) -> None:
        """There are functions from before this server began: nodes that it does not know yet may have their images."""
        self._nodes_expected_until_s = self._clock.monotonic() + NODES_S

    def _is_nowhere(self, image_id: str) -> bool:
        nodes = self._fleet.nodes.values()
        if not nodes or self._clock.monotonic() < self._nodes_expected_until_s:
            return False
        return all(image_id in node.missing_image_ids for node in nodes)

    def _lacks_image(self, container: Container, why: str) -> None:
        """No node has its image."""
        container.exit_reason = f"could not be started: {why}"
        self._fleet.finish(container)
        container.dispatcher.attempts.start_failed(container, Failure("image", why), is_final=True)

    def _make_room(self, now: float) -> None:
        """End idle containers of other functions, longest idle first, for those that fit nowhere."""
        if now < self._room_made_at + ROOM_EVERY_S:
            return  # the fleet asks again each second, and whatever ends asks, too
        self._room_made_at = now
        missing = self.scheduler.waiting_count - len(self._making_room)
        leaving: list[Container] = []
        for container in self._fleet.idle:
            if len(leaving) >= missing:
                break
            idle_s = now - container.idle_since
            if container.is_spare and self.scheduler.may_evict(container.container_id, idle_s):
                leaving.append(container)
        for container in leaving:
            if container.is_spare:  # another one of its function may have been the last that it could lose
                self._making_room.add(container)
                self._fleet.drain(container, "another function needs its place")

    def tick(self) -> None:
        """Once a second: those that have most give way to those that have waited long."""
        self.place()
        if self.scheduler.waiting_count and not self._is_choosing:
            self._give_way()

    def _give_way(self) -> None:
        self._is_choosing = False
        now = self._clock.monotonic()
        self._givers.begin()
        has_more = self.scheduler.give_way(now, GIVE_WAY_MAX, self._givers.make)
        for container, one in self._givers.made:
            self.scheduler.promise(container.container_id, one, now)
        self._is_choosing = has_more
        if has_more:
            self._clock.call_later(CHOOSE_EVERY_S, self._give_way)

    async def _start(self, container: Container, node: Node) -> None:
        try:
            volumes = await self.volumes(container)
            await node.fetch(volumes, self._progress(container))
            given = await self.given(container.spec)
            buckets = await self.buckets(container.spec)
            if container.is_stopped:
                return  # meanwhile
            started = await node.start(container, given, volumes, buckets)
        except ChannelClosed:
            # Whether it was started is unknown: its agent says so when it is back (`nodes.py`), or the node is lost.
            self.watch(container, container.spec.startup_timeout_s)
            return
        except PlatformError as error:
            if error.code == errors.TIMED_OUT and not container.is_stopped:
                node.may_lack_volumes()
                self._fleet.kill(container, "its node did not start it in time")
                message = f"{container.dispatcher.in_words()}: {error.message}"
                failure = Failure("startup_timed_out", message, container_id=container.container_id)
                container.dispatcher.attempts.start_failed(container, failure, is_final=False)
            else:
                self._refused(container, node, error)
            return
        for phase, duration_ms in started.phase_ms.items():
            container.phase_ms.setdefault(f"start.{phase}", duration_ms)
        container.path, container.path_cause = started.path, started.cause[:CAUSE_CHARS_MAX]
        if container.is_serving:  # a copy can be quicker to serve than its agent to answer
            container.dispatcher.calls.recorder.container_path(container)
        self._detours.note(container, started)
        container.mark("process", self._clock.monotonic())
        if container.ending:
            # The request to end it may have overtaken its start, when there was nothing to end yet.
            await self._fleet.end_at(node, container)
            return
        if not container.is_serving and not container.is_stopped:
            self.watch(container, container.spec.startup_timeout_s)

    def _progress(self, container: Container) -> Callable[[VolumesFetched], None]:
        """Says in the app's log how far it is that volumes are fetched for a container, and gives that up when nobody
        wants it any more."""
        said_at = self._clock.monotonic()

        def say(progress: VolumesFetched) -> None:
            nonlocal said_at
            if container.is_stopped or container.ending:
                raise PlatformError(errors.UNAVAILABLE, "the container is not wanted any more")
            now = self._clock.monotonic()
            if progress.is_done or now < said_at + FETCH_SAID_S:
                return
            said_at = now
            got, wanted = progress.fetched_bytes / 1e9, progress.wanted_bytes / 1e9
            self._fleet.log(
                container, f"volumes: {got:.1f} of {wanted:.1f} GB are on its node; it starts with all of it"
            )

        return say

    def _refused(self, container: Container, node: Node, error: PlatformError) -> None:
        """The node did not start it: somewhere else, or later, or never."""
        node.containers.pop(container.container_id, None)
        self.scheduler.ended(container.container_id)
        if container.is_stopped:
            return
        container.node = None
        if container.ending:
            self._fleet.finish(container)
            return
        if error.code == errors.NOT_FOUND:
            self._elsewhere(container, node, error)
            return
        container.refusals += 1
        failure = self._why_never(container, error)
        if failure is not None:
            container.exit_reason = f"could not be started: {error.message}"
            self._fleet.finish(container)
            container.dispatcher.attempts.start_failed(container, failure, is_final=True)
            return
        _log.warning("container %s was refused by %s: %s", container.container_id, node.node_id, error.message)
        if container.refusals == SAID_REFUSALS:
            self._fleet.log(container, f"it cannot be started now, and is tried again: {error.message}")
        delay_s = min(REFUSAL_FIRST_S * 2.0 ** (container.refusals - 1), REFUSAL_MAX_S)
        self.pending[container.container_id] = container
        self._clock.call_later(delay_s, lambda: self._again(container))

    def _again(self, container: Container) -> None:
        """The time to wait after a refusal is over."""
        if self.pending.get(container.container_id) is container:
            self.request(container)
            self.place()

    def _elsewhere(self, container: Container, node: Node, error: PlatformError) -> None:
        """The node lacks the image: each is asked once, and however many lack it, one that has it starts it."""
        image_id = container.spec.image_id
        node.lacks_image(image_id)
        if self._is_nowhere(image_id):
            self._lacks_image(container, error.message)
            return
        _log.info("container %s goes elsewhere: %s", container.container_id, error.message)
        self.request(container)
        self.place()

    def _why_never(self, container: Container, error: PlatformError) -> Failure | None:
        """What those who wait are told, unless it may be tried again."""
        is_hopeless = container.refusals >= REFUSALS_MAX and error.code != errors.EXHAUSTED
        if error.code in (errors.UNSUPPORTED, errors.INVALID):
            return Failure("invalid", error.message)
        return Failure("lost", error.message) if is_hopeless else None

    def watch(self, container: Container, timeout_s: float) -> None:
        """End the container unless its guest serves by then; an earlier limit does not count any more."""
        if container.start_limit is not None:
            container.start_limit.cancel()
        container.start_limit = self._clock.call_later(timeout_s, lambda: self._overdue(container))
        container.timers.append(container.start_limit)

    def never_came(self, container: Container) -> None:
        """Its guest was announced and is gone: the one in its place has its own time, which begins when the node has
        answered."""
        if container.start_limit is not None:
            self.watch(container, container.spec.startup_timeout_s)

    def _overdue(self, container: Container) -> None:
        if container.is_ready or container.is_stopped or container.ending:
            return
        if not container.is_adopted:
            message = f"{container.dispatcher.in_words()}: {startup_message(container.spec.startup_timeout_s)}"
            failure = Failure("startup_timed_out", message, container_id=container.container_id)
            container.start_failure = True
            self._fleet.kill(container, "it was not ready in time")
            container.dispatcher.attempts.start_failed(container, failure, is_final=True)
        else:
            self._fleet.kill(container, "it did not come back to this server")

    def failed(self, container: Container, failure: Failure, pickled: bytes = b"") -> None:
        """The guest could not load the function, or a hook of its class raised what is pickled; it exits by itself."""
        if container.is_ready or container.start_failure:
            return
        container.start_failure = True
        container.exit_reason = f"{failure.kind}: {failure.message}"[:500]
        self._fleet.kill(container, "its function could not be loaded", 1.0)
        is_final = failure.kind not in ("lost", "crashed")
        if len(pickled) > PICKLED_BYTES_MAX:
            pickled = b""
        container.dispatcher.attempts.start_failed(container, failure, is_final=is_final, pickled=pickled)

    def crashed(self, container: Container) -> None:
        """The container ended by itself before its guest served."""
        exited = container.exit
        if exited is None or exited.is_lost:
            return  # its node's fault, not its function's: whoever waits for it gets another one
        ending = container.ending_in_words()
        what = container.dispatcher.in_words()
        message = f"{what}: the container ended before it was loaded ({ending}); its log has what it printed last"
        if exited.exit_code == 0:
            # Nothing of ours ends so early and well.
            message += "; an entrypoint of its image must end in executing its arguments"
        if exited.is_oom:
            message += "; give the function more with memory=, or let it use less when its module is imported"
        kind = "oom" if exited.is_oom else "disk" if exited.over_disk else "crashed"
        failure = Failure(kind, message, container_id=container.container_id)
        container.dispatcher.attempts.start_failed(container, failure, is_final=kind != "crashed")
