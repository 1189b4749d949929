"""Large values and files on their way to and from the blob store, in chunks and with few copies."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence

from squall.exception import DataLossError
from squall.protocol.blob import CHUNK_BYTES, BlobChunk, BlobGet, BlobMissing, BlobPut, BlobStat
from squall.sdk._client import Client
from squall.sdk._pending import Pending

IN_FLIGHT_MAX = 3
"""Chunks under way at once: enough to keep the connection busy, few enough to bound what is held."""


async def put(client: Client, data: bytes | bytearray | memoryview) -> str:
    """Store bytes unless they are stored already; returns their hash."""
    view = memoryview(data)
    sha256 = hashlib.sha256(view).hexdigest()
    if sha256 in await missing(client, [sha256]):
        await upload(client, sha256, view)
    return sha256


async def missing(client: Client, sha256s: Sequence[str]) -> set[str]:
    """Which of these the store lacks."""
    reply = await client.request("BlobStat", BlobStat(tuple(sha256s)), BlobMissing)
    return set(reply.sha256s)


async def upload(client: Client, sha256: str, view: memoryview) -> None:
    """Send all chunks of a blob, in order."""
    under_way: deque[Pending[tuple[object, bytes]]] = deque()
    for offset in range(0, max(1, len(view)), CHUNK_BYTES):
        record = BlobPut(sha256, len(view), offset)
        under_way.append(client.ask("BlobPut", record, view[offset : offset + CHUNK_BYTES]))
        if len(under_way) >= IN_FLIGHT_MAX:
            await under_way.popleft()
    while under_way:
        await under_way.popleft()


async def get(client: Client, sha256: str) -> bytes | bytearray:
    """The bytes of a blob.

    Raises:
        NotFoundError: the store does not have it (any more).
        DataLossError: what came does not have that hash.
    """
    first, body = await client.request_with_body("BlobGet", BlobGet(sha256), BlobChunk)
    if len(body) >= first.size_bytes:
        _check(sha256, body)
        return body
    whole = bytearray(first.size_bytes)
    whole[: len(body)] = body
    step = len(body)
    offsets = deque(range(step, first.size_bytes, step))
    under_way: deque[tuple[int, Pending[tuple[object, bytes]]]] = deque()
    while offsets or under_way:
        while offsets and len(under_way) < IN_FLIGHT_MAX:
            offset = offsets.popleft()
            under_way.append((offset, client.ask("BlobGet", BlobGet(sha256, offset, step))))
        offset, pending = under_way.popleft()
        chunk = (await pending)[1]
        whole[offset : offset + len(chunk)] = chunk
    _check(sha256, whole)
    return whole


def _check(sha256: str, data: bytes | bytearray) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataLossError(f"blob {sha256[:16]}… came damaged from the server's store")
