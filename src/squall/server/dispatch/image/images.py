"""Image builds, forwarded to a node; equal builds at the same time are one build with several listeners.

Those with other values of secrets are none of these, though they make the same image: the node takes what the one has
made from its cache for the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from weakref import WeakValueDictionary

from squall.protocol import image as wire
from squall.protocol import image_steps
from squall.protocol.errors import FORBIDDEN, INVALID, UNAVAILABLE, ChannelClosed, PlatformError
from squall.protocol.image import BuildEvent, ImageBuild, ImageInvalid
from squall.protocol.secret_mark import secret_mark
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.fleet.node import Node
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.dispatch.image.catalog import ImageCatalog
from squall.server.dispatch.image.users import ImageUsers
from squall.server.model.clock import Clock

EVENTS_MAX = 5_000
"""Of one build, kept for those who join it later."""
NODES_MAX = 4
"""How many nodes may go away during one build before those who wait are told."""
BUILDS_INSIDE_MAX = 4
"""At a time, asked for by containers of one app and of what descends from it; the others wait."""
NODE_WAIT_S = 15.0
"""How long a build waits for a node: an agent that starts together with the server is a moment late. After a restart,
also for one that has built the image, and says so."""


class _Build:
    """A build under way."""

    def __init__(self) -> None:
        self.events: list[BuildEvent] = []
        self.dropped = 0
        self.error: PlatformError | None = None
        self.is_over = False
        self.listeners = 0
        self.changed = asyncio.Event()

    def wake(self) -> None:
        # A new event for each change: whoever waits on the old one wakes up exactly once.
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Images:
    """Builds by image; which nodes have which."""

    def __init__(
        self,
        nodes: Callable[[], list[Node]],
        tasks: TaskSet,
        *,
        catalog: ImageCatalog,
        users: ImageUsers,
        clock: Clock,
    ) -> None:
        self._nodes = nodes
        self._catalog = catalog
        self._users = users
        self._clock = clock
        self._began_at_s = clock.monotonic()
        self._tasks = tasks
        self._builds: dict[str, tuple[_Build, asyncio.Future[None]]] = {}
        self._rooms: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """By root of the apps whose containers build."""

    async def build(self, record: ImageBuild) -> AsyncIterator[BuildEvent]:
        """Build an image, or join who builds it already.

        Raises:
            PlatformError: `invalid` for a wrong definition, `unavailable` without a node, and what the build says.
        """
        try:
            image_steps.check(record.spec)
        except ImageInvalid as error:
            raise PlatformError(INVALID, f"ImageBuild: {error}") from error
        # Who wants a step anew is not served by a build that has it from the cache. With a wrong token of one, all who
        # joined would fail.
        forced = next((number for number, step in enumerate(record.spec.steps, 1) if step.force_build), 0)
        run_id = record.run_id if forced else ""
        key = f"{wire.image_id(record.spec)}:{forced}:{secret_mark(record.secrets)}:{run_id}"
        # Before a node hears of it: what is removed there meanwhile is not this.
        self._users.claim(record.app_id, wire.image_id(record.spec))
        found = self._builds.get(key)
        if found is None:
            build = _Build()
            found = (build, self._tasks.start(self._run(key, build, record)))
            self._builds[key] = found
        build, running = found
        build.listeners += 1
        try:
            async for event in _events(build):
                yield event
        finally:
            build.listeners -= 1
            if build.listeners == 0 and not build.is_over:
                # Whoever asks now begins anew: what is being given up has no result.
                self._forget(key, build)
                running.cancel()

    async def build_inside(self, record: ImageBuild, root_app_id: str) -> AsyncIterator[BuildEvent]:
        """The same for a container: a few at a time of everything that descends from one app.

        Raises:
            PlatformError: as `build`.
        """
        room = self._rooms.setdefault(root_app_id, asyncio.Semaphore(BUILDS_INSIDE_MAX))
        async with room:
            async for event in self.build(record):
                yield event

    async def find(self, record: ImageBuild, functions: Iterable[Dispatcher], why: str) -> AsyncIterator[BuildEvent]:
        """The same for a container that may build nothing; `why` says so in words.

        Raises:
            PlatformError: `forbidden` when no node is known to have the image.
        """
        image_id = wire.image_id(record.spec)
        known = any(image_id in node.image_ids for node in self._nodes())
        if not known and not any(one.spec.image_id == image_id for one in functions):
            raise PlatformError(FORBIDDEN, f"ImageBuild: {why}; build the image first from outside, by running an app "
                                "that uses it")  # fmt: skip
        yield BuildEvent("built", image_id=image_id)

    def _forget(self, key: str, build: _Build) -> None:
        found = self._builds.get(key)
        if found is not None and found[0] is build:
            del self._builds[key]

    async def _run(self, key: str, build: _Build, record: ImageBuild) -> None:
        try:
            for tries_left in range(NODES_MAX - 1, -1, -1):
                try:
                    await self._run_at(await self._choose(record.spec), build, record)
                    break
                except ChannelClosed:
                    # What it had built is there when it is back; another one takes what the cache of that one has.
                    if not tries_left:
                        raise
        except ChannelClosed:
            message = f"ImageBuild: {NODES_MAX} times the node that built the image went away; run it again"
            build.error = PlatformError(UNAVAILABLE, message)
        except PlatformError as error:
            build.error = error
        finally:
            build.is_over = True
            self._forget(key, build)
            build.wake()

    async def _run_at(self, node: Node, build: _Build, record: ImageBuild) -> None:
        if node.peer is None:
            raise ChannelClosed(f"NodeImageBuild: {node.node_id} went away before it was asked")
        async for event, _ in node.peer.stream("NodeImageBuild", record).items(BuildEvent):
            if event.kind == "built":
                node.has_image(event.image_id)
                await self._catalog.built(record, event)
            if len(build.events) < EVENTS_MAX or event.kind != "line":
                build.events.append(event)
            else:
                build.dropped += 1
            build.wake()

    async def _choose(self, spec: wire.ImageSpec) -> Node:
        """The node that has the image; else with most of the images that its steps name, of those the one with the
        fewest containers."""
        image_id = wire.image_id(spec)
        named = {step.image_id for step in spec.steps if step.image_id}
        is_forced = any(step.force_build for step in spec.steps)
        waited_s = 0.0
        while True:
            nodes = [node for node in self._nodes() if node.peer is not None]
            # Built a second time it would have other packages, and take the time once more. A forced build wants that.
            if nodes and (is_forced or waited_s >= NODE_WAIT_S or not await self._is_expected(image_id)):
                return min(
                    nodes,
                    key=lambda node: (
                        image_id not in node.image_ids,
                        len(named - node.image_ids),
                        len(node.containers),
                        node.node_id,
                    ),
                )
            if waited_s >= NODE_WAIT_S:
                raise PlatformError(UNAVAILABLE, "ImageBuild: no node is connected; see `squall server status`")
            await asyncio.sleep(0.1)
            waited_s += 0.1

    async def _is_expected(self, image_id: str) -> bool:
        """Whether a node that is not back since the server's start, or has not said it yet, may have an image that none
        is known to have."""
        if self._clock.monotonic() - self._began_at_s >= NODE_WAIT_S:
            return False
        is_here = any(image_id in node.image_ids for node in self._nodes() if node.peer is not None)
        return not is_here and await self._catalog.is_known(image_id)


async def _events(build: _Build) -> AsyncIterator[BuildEvent]:
    """What the build said so far and says from now on."""
    position = 0
    while True:
        changed = build.changed
        while position < len(build.events):
            position += 1
            yield build.events[position - 1]
        if build.is_over:
            if build.error is not None:
                raise build.error
            return
        await changed.wait()
