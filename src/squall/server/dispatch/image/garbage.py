"""Removal of images that nothing needs, from every node that is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from squall.protocol.errors import INVALID, ChannelClosed, PlatformError
from squall.protocol.image_catalog import ImageGc, ImageGcDone, NodeGc, NodeImageGc
from squall.server.dispatch.fleet.node import Node

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane

NODE_S = 600.0
"""How long a node may take."""


async def collect_images(plane: ControlPlane, record: ImageGc) -> ImageGcDone:
    """See `ImageGc`. What one node cannot do keeps no other from it.

    Raises:
        PlatformError: `invalid` for a time that is none.
    """
    if not 0 <= record.older_than_s < float("inf"):
        raise PlatformError(INVALID, f"ImageGc: older_than_s={record.older_than_s} is no time; give seconds from 0 on")
    async with plane.image_users.steady:
        named = await plane.store.list_image_names()

        def request() -> NodeImageGc:
            needed = {image_id: list(users) for image_id, users in plane.image_users.now().items()}
            for name in named:
                needed.setdefault(name.image_id, []).append(f"name {name.ref}")
            users_of = {image_id: tuple(users) for image_id, users in needed.items()}
            return NodeImageGc(record.older_than_s, record.is_dry_run, users_of)

        nodes = [node for node in plane.fleet.nodes.values() if node.peer is not None]
        done = await asyncio.gather(*(ask_node(node, "NodeImageGc", request) for node in nodes))
        if not record.is_dry_run:
            for node, result in zip(nodes, done, strict=True):
                for image_id in result.gone_image_ids:
                    node.lacks_image(image_id)
            gone = {image_id for result in done for image_id in result.gone_image_ids}
            elsewhere = {image_id for node in plane.fleet.nodes.values() for image_id in node.image_ids}
            await plane.catalog.forget(frozenset(gone - elsewhere))
    return ImageGcDone(tuple(done))


async def ask_node(node: Node, method: str, request: Callable[[], Any]) -> NodeGc:
    """What a node has removed; its error in place of one that it raises."""
    try:
        assert node.peer is not None
        # Made as it is sent: what is asked of the node after this, and so is not in it, reaches the node after this.
        return await node.peer.request(method, request(), NodeGc, timeout_s=NODE_S)
    except ChannelClosed:
        return NodeGc(node.node_id, error="its agent is gone; see `squall server status`")
    except PlatformError as error:
        return NodeGc(node.node_id, error=error.message)
