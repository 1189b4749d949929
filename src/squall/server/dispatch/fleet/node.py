"""A node as the server sees it, and what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from squall.protocol.container import ContainerExec
from squall.protocol.empty import Empty
from squall.protocol.errors import ChannelClosed
from squall.protocol.function import FunctionSpec
from squall.protocol.node import ContainerEnd, ContainerStart, ContainerStarted, NodeHello, NodeReport
from squall.protocol.template import NodeTemplatesUnneeded
from squall.protocol.volume import NodeVolumesFetch, VolumesFetched, VolumeStart
from squall.server.scheduler import MEMORY_FLOOR_MIB, Claim, NodeView

if TYPE_CHECKING:
    from squall.protocol.bucket import BucketStart
    from squall.protocol.peer import Peer
    from squall.protocol.stream import Stream
    from squall.server.dispatch.asset.secrets import Given
    from squall.server.dispatch.fleet.container import Container
    from squall.server.dispatch.fleet.printed_before import Gate
    from squall.server.model.clock import Timer

START_TIMEOUT_S = 120.0
ROOTS_MAX = 10_000
END_TIMEOUT_S = 60.0


def claim_of(spec: FunctionSpec) -> Claim:
    """What one container of the function reserves."""
    resources = spec.resources
    return Claim(resources.cpu_milli or 0, max(resources.memory_mib or 0, MEMORY_FLOOR_MIB))


class Node:
    """One machine with an agent; `peer` is None while the agent is away."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.peer: Peer | None = None
        self.cpu_milli = 0
        self.memory_mib = 0
        self.hostname = ""
        self.pythons: tuple[str, ...] = ()
        self.containers: dict[str, Container] = {}
        self.image_ids: set[str] = set()
        self.missing_image_ids: set[str] = set()
        self._unsaid_image_ids: set[str] = set()
        """It had them before its last hello, and has not said yet whether it still does."""
        self.on_images_changed: Callable[[], None] = lambda: None
        """Called when one comes, or is gone."""
        self.report: NodeReport | None = None
        self.is_report_new = False
        """Nothing has been done about it yet."""
        self.is_relieving = False
        """It is being asked to free memory. One that swaps takes its time."""
        self.held_volumes: frozenset[tuple[str, int]] = frozenset()
        """Versions of volumes that it needs, as it has said last; also while its agent is away."""
        self._roots: dict[str, None] = {}
        """Of versions that were fetched there, the last ones last: most likely they still are."""
        self.lost_timer: Timer | None = None
        self.line_count = 0
        """Log lines its agent has sent since its last hello."""
        self.gates: dict[Gate, None] = {}
        """Connections of its containers that wait for more of them."""

    def greeted(self, hello: NodeHello, peer: Peer) -> None:
        """Its agent is there (again)."""
        self.peer = peer
        self.line_count = 0
        self.cpu_milli = hello.cpu_milli
        self.memory_mib = hello.memory_mib
        self.hostname = hello.hostname
        self.pythons = hello.pythons
        self.missing_image_ids.clear()
        self._roots.clear()
        self._unsaid_image_ids = set(self.image_ids)
        if self.lost_timer is not None:
            self.lost_timer.cancel()
            self.lost_timer = None

    def tell_unneeded(self, record: NodeTemplatesUnneeded) -> None:
        """Which templates nobody needs any more, if its agent is there."""
        if self.peer is not None:
            self.peer.event("NodeTemplatesUnneeded", record)

    def lines_came(self, count: int) -> None:
        """So many more log lines of its containers are stored."""
        self.line_count += count
        for gate in list(self.gates):
            gate.lines_came()

    def view(self, containers_max: int) -> NodeView:
        """The node for the scheduler; nothing is placed on it while its agent is away."""
        return NodeView(
            self.node_id,
            self.cpu_milli,
            self.memory_mib,
            containers_max,
            is_draining=self.peer is None,
            image_ids=self.image_ids,
            missing_image_ids=self.missing_image_ids,
        )

    async def start(
        self, container: Container, given: Given, volumes: tuple[VolumeStart, ...], buckets: tuple[BucketStart, ...]
    ) -> ContainerStarted:
        """Ask for a container; `given` is what is in the secrets of its function.

        Raises:
            PlatformError: as in `ContainerStart`; `unavailable` when the agent is away.
        """
        spec = container.spec
        record = ContainerStart(
            container.container_id,
            spec.app_id,
            spec.function_id,
            spec.image_id,
            spec.mounts,
            spec.env,
            spec.resources,
            spec.is_network_blocked,
            spec.version,
            spec.is_snapshot_enabled,
            spec.isolation,
            spec.startup_timeout_s,
            "" if spec.is_pinned else spec.variant_of or spec.function_id,
            given.values,
            given.mark,
            volumes,
            buckets,
            container.is_plain,
        )
        if self.peer is None:
            raise ChannelClosed(f"ContainerStart: {self.node_id} went away before it was asked")
        started = await self.peer.request("ContainerStart", record, ContainerStarted, timeout_s=START_TIMEOUT_S)
        self.has_image(spec.image_id)
        return started

    async def fetch(self, volumes: Sequence[VolumeStart], on_progress: Callable[[VolumesFetched], None]) -> None:
        """Have versions of volumes there before a container is started with them, however long that takes.

        Raises:
            PlatformError: the node has no room, or a version cannot be had; the agent is away.
        """
        missing = tuple(one for one in volumes if one.root and one.root not in self._roots)
        if not missing:
            return
        if self.peer is None:
            raise ChannelClosed(f"NodeVolumesFetch: {self.node_id} went away before it was asked")
        stream = self.peer.stream("NodeVolumesFetch", NodeVolumesFetch(missing))
        is_done = False
        try:
            while (told := await stream.next(VolumesFetched)) is not None:
                is_done = told[0].is_done
                on_progress(told[0])
        finally:
            if not is_done:
                stream.cancel()
        self._roots |= dict.fromkeys(one.root for one in missing)
        while len(self._roots) > ROOTS_MAX:
            del self._roots[next(iter(self._roots))]

    def may_lack_volumes(self) -> None:
        """A start took too long: perhaps something was fetched again."""
        self._roots.clear()

    def has_image(self, image_id: str) -> None:
        """The image is there."""
        self._unsaid_image_ids.discard(image_id)
        if image_id not in self.image_ids:
            self.image_ids.add(image_id)
            self.missing_image_ids.discard(image_id)
            self.on_images_changed()

    def said_all_images(self) -> None:
        """Its agent has said which images are there: what was removed while it was away is not."""
        self.image_ids -= self._unsaid_image_ids
        self._unsaid_image_ids.clear()
        self.on_images_changed()

    def lacks_image(self, image_id: str) -> None:
        """It is not: no container of it is placed here until it is built."""
        self.image_ids.discard(image_id)
        self.missing_image_ids.add(image_id)
        self.on_images_changed()

    async def end(self, container_id: str, grace_s: float) -> None:
        """Ask for a container's end.

        Raises:
            PlatformError: the agent is away, or did not answer.
        """
        if self.peer is not None:
            await self.peer.request(
                "ContainerEnd", ContainerEnd(container_id, grace_s), Empty, timeout_s=END_TIMEOUT_S + grace_s
            )

    def exec(self, record: ContainerExec) -> Stream:
        """Run a command in one of its containers.

        Raises:
            ChannelClosed: the agent is away.
        """
        if self.peer is None:
            raise ChannelClosed(f"NodeExec: {self.node_id} is away")
        return self.peer.stream("NodeExec", record)
