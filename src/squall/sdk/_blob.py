"""Large values and files on their way to and from the blob store, in chunks and with few copies."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from squall.exception import DataLossError
from squall.protocol.blob import CHUNK_BYTES, BlobChunk, BlobGet, BlobMissing, BlobPut, BlobStat
from squall.protocol.hashing import new_sha256
from squall.sdk import _pieces
from squall.sdk._client import Client
from squall.sdk._pending import Pending

IN_FLIGHT_MAX = 3
"""Chunks under way at once: enough to keep the connection busy, few enough to bound what is held."""


async def put(client: Client, data: bytes | list[bytes]) -> str:
    """Store bytes, whole or in pieces, unless they are stored already; returns their hash."""
    pieces = data if isinstance(data, list) else [data]
    digest = new_sha256(_pieces.size_of(pieces))
    for piece in pieces:
        digest.update(piece)
    sha256 = digest.hexdigest()
    if sha256 in await missing(client, [sha256]):
        await upload(client, sha256, pieces)
    return sha256


async def missing(client: Client, sha256s: Sequence[str]) -> set[str]:
    """Which of these the store lacks."""
    reply = await client.request("BlobStat", BlobStat(tuple(sha256s)), BlobMissing)
    return set(reply.sha256s)


async def upload(client: Client, sha256: str, pieces: Sequence[bytes | memoryview]) -> None:
    """Send all chunks of a blob, in order."""
    uploads = Uploads(client)
    await uploads.add(sha256, pieces)
    await uploads.finish()


class Uploads:
    """Blobs on their way to the store, one after the other without a pause between them."""

    def __init__(self, client: Client, in_flight_max: int = IN_FLIGHT_MAX) -> None:
        self._client = client
        self._in_flight_max = in_flight_max
        self._under_way: deque[Pending[tuple[object, bytes]]] = deque()

    async def add(self, sha256: str, pieces: Sequence[bytes | memoryview]) -> None:
        """Send all chunks of a blob, in order; the last ones may still be under way when this returns."""
        size_bytes = _pieces.size_of(pieces)
        for number, chunk in enumerate(_pieces.cut(pieces, CHUNK_BYTES)):
            record = BlobPut(sha256, size_bytes, number * CHUNK_BYTES)
            self._under_way.append(self._client.ask("BlobPut", record, chunk))
            if len(self._under_way) >= self._in_flight_max:
                await self._under_way.popleft()

    async def finish(self) -> None:
        """Wait until the store has all of them."""
        while self._under_way:
            await self._under_way.popleft()


async def get(client: Client, sha256: str) -> list[bytes]:
    """The bytes of a blob, in pieces.

    Raises:
        NotFoundError: the store does not have it (any more).
        DataLossError: what came does not have that hash.
    """
    first, body = await client.request_with_body("BlobGet", BlobGet(sha256), BlobChunk)
    pieces = [body]
    offsets = deque(range(len(body), first.size_bytes, max(1, len(body))))
    under_way: deque[Pending[tuple[object, bytes]]] = deque()
    digest = new_sha256(first.size_bytes)
    while True:
        while offsets and len(under_way) < IN_FLIGHT_MAX:
            under_way.append(client.ask("BlobGet", BlobGet(sha256, offsets.popleft(), len(body))))
        # While the next ones are on their way.
        digest.update(pieces[-1])
        if not under_way:
            break
        pieces.append((await under_way.popleft())[1])
    if digest.hexdigest() != sha256:
        raise DataLossError(f"blob {sha256[:16]}… came damaged from the server's store")
    return pieces
