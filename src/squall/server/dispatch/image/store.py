"""The store of layers that nodes share: what the server needs of it is noted there, and garbage is removed on demand.

The server has no credentials of the store. It says which images stay, and nodes do the rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from squall.protocol.empty import Empty
from squall.protocol.errors import CONFLICT, INVALID, NOT_FOUND, UNAVAILABLE, ChannelClosed, PlatformError
from squall.protocol.image_store import DAY_S, GRACE_S, ImageStoreGc, NodeImagesUsed, NodeStoreGc, StoreGcEvent
from squall.server.dispatch.clock import AgeClock

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane
    from squall.server.dispatch.fleet.node import Node

NOTE_S = DAY_S / 2
"""How often nodes are told which images are needed."""
USED_S = 2 * DAY_S
"""What was used since counts as needed then."""
NODE_S = 600.0
_IMAGES_MAX = 1_000_000

_log = logging.getLogger("squall.server.dispatch.image.store")


class ImageStore:
    """What the server says about the store of layers."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._age_clock = AgeClock(plane.clock)
        self._noted_s: float | None = None
        """By the monotonic clock."""

    async def tick(self) -> None:
        """Tell the nodes which images are needed, when it is time."""
        now_s = self._plane.clock.monotonic()
        nodes = self._connected()
        if not nodes or (self._noted_s is not None and now_s - self._noted_s < NOTE_S):
            return
        self._noted_s = now_s
        try:
            await self._note(nodes)
        except PlatformError as error:
            _log.warning("cannot say which images are needed: %s", error)

    async def remove_garbage(self, record: ImageStoreGc) -> AsyncIterator[StoreGcEvent]:
        """See `ImageStoreGc`.

        Raises:
            PlatformError: as it says; `conflict` with a node that does not heed it.
        """
        if not GRACE_S <= record.older_than_s < float("inf"):
            message = f"ImageStoreGc: older_than_s={record.older_than_s} is no such time; give at least 7 days"
            raise PlatformError(INVALID, message)
        nodes = self._connected()
        for node, error in zip(nodes, await self._note(nodes), strict=True):
            if error is not None and error.code == INVALID:
                message = f"ImageStoreGc: node {node.node_id} is of an earlier version of Squall, which puts images"
                raise PlatformError(CONFLICT, f"{message} without regard to this; upgrade it first")
        for node in nodes:
            if node.peer is None:
                continue
            # Made as it is sent: what is needed later finds the store as it is left, or is put again.
            needed = await self._needed(record.older_than_s)
            request = NodeStoreGc(record.older_than_s, record.is_dry_run, needed)
            try:
                async for event, _ in node.peer.stream("NodeStoreGc", request).items(StoreGcEvent):
                    if event.kind == "done" and not record.is_dry_run:
                        await self._forget(event.removed_image_ids)
                    yield event
                return
            except ChannelClosed as error:
                message = "ImageStoreGc: the node that did it is gone; what it left goes the next time"
                raise PlatformError(UNAVAILABLE, message) from error
            except PlatformError as error:
                if error.code != NOT_FOUND:
                    raise
        message = "ImageStoreGc: no connected node has a store of layers; set SQUALL_LAYER_URL on the nodes"
        raise PlatformError(NOT_FOUND, message)

    def _connected(self) -> list[Node]:
        return [node for node in self._plane.fleet.nodes.values() if node.peer is not None]

    async def _needed(self, since_s: float) -> tuple[str, ...]:
        """Images that apps, containers and names need, or that were used lately, and those that these take from."""
        plane = self._plane
        images = {image.image_id: image for image in await plane.store.list_images(_IMAGES_MAX)}
        used_after = self._age_clock.now() - since_s
        found = {image_id for image_id, image in images.items() if image.used_at > used_after}
        found |= {name.image_id for name in await plane.store.list_image_names()}
        found |= plane.image_users.now().keys()
        new = found
        while new:
            taken = {step.image_id for one in new if one in images for step in images[one].spec.steps if step.image_id}
            new = taken - found
            found = found | new
        return tuple(sorted(found))

    async def _note(self, nodes: list[Node]) -> list[PlatformError | None]:
        """What each node could not do."""
        record = NodeImagesUsed(await self._needed(USED_S))

        async def note(node: Node) -> PlatformError | None:
            try:
                assert node.peer is not None
                await node.peer.request("NodeImagesUsed", record, Empty, timeout_s=NODE_S)
            except ChannelClosed:
                return None
            except PlatformError as error:
                _log.info("node %s: %s", node.node_id, error)
                return error
            return None

        return list(await asyncio.gather(*(note(node) for node in nodes)))

    async def _forget(self, image_ids: tuple[str, ...]) -> None:
        """These are not in the store any more."""
        elsewhere = {image_id for node in self._plane.fleet.nodes.values() for image_id in node.image_ids}
        # Whoever came to need one meanwhile builds it anew, and may look at it before.
        await self._plane.catalog.forget(frozenset(image_ids) - elsewhere - set(await self._needed(0.0)))
