"""Images on their way out of a node, passed through: nothing of them is kept here, and no password."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from squall.protocol.errors import INVALID, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.image import ImageInvalid
from squall.protocol.image_transfer import ImageExport, ImagePush, TransferEvent, check_export, check_push
from squall.server.dispatch.fleet.node import Node


async def transfer(
    nodes: Iterable[Node], method: str, record: ImagePush | ImageExport
) -> AsyncIterator[tuple[TransferEvent, bytes]]:
    """Ask the nodes that are known to have the image, then the others: which had it before a restart is not known.

    Raises:
        PlatformError: `not_found` when none has it, `unavailable` without a node, and what the node says.
    """
    try:
        check_push(record) if isinstance(record, ImagePush) else check_export(record)
    except ImageInvalid as error:
        raise PlatformError(INVALID, f"{method}: {error}") from None
    connected = [node for node in nodes if node.peer is not None]
    if not connected:
        raise PlatformError(UNAVAILABLE, f"{method}: no node is connected; see `squall server status`")
    for node in sorted(connected, key=lambda node: (record.image_id not in node.image_ids, node.node_id)):
        if node.peer is None:
            continue
        try:
            async for event, body in node.peer.stream(f"Node{method}", record).items(TransferEvent):
                yield event, body
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
        else:
            return
    message = f"{method}: no node has the image {record.image_id}; build it first, by running an app that uses it"
    raise PlatformError(NOT_FOUND, message)
