"""Where a node gets volumes from, and sends what is written on them: the server it is connected to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from squall.protocol.blob import CHUNK_BYTES, BlobChunk, BlobGet, BlobMissing, BlobPut, BlobStat
from squall.protocol.codec import Codec
from squall.protocol.empty import Empty
from squall.protocol.errors import UNAVAILABLE, PlatformError
from squall.protocol.pages import pages
from squall.protocol.peer import Peer
from squall.protocol.volume import (
    VolumeBlocks,
    VolumeBlocksGet,
    VolumeChange,
    VolumeCommit,
    VolumeCommitted,
    VolumeTree,
    VolumeTreeGet,
    VolumeVersion,
    VolumeVersionGet,
)


class Connection(Protocol):
    """Who has the peer that is there now."""

    peer: Peer | None


class PeerVolumes:
    """Asks whatever peer is there. All that ask raise PlatformError `unavailable` while there is none.

    Args:
        blob_dir: of a server on this machine: where its blobs are files, by their names and the first two digits.
    """

    def __init__(self, connection: Connection, codec: Codec, blob_dir: Path | None = None) -> None:
        self._connection = connection
        self._codec = codec
        self._blob_dir = blob_dir

    @property
    def is_connected(self) -> bool:
        """Whether there is one."""
        peer = self._connection.peer
        return peer is not None and not peer.is_closed

    async def newest(self, volume_id: str) -> VolumeVersion:
        """The newest version of a volume."""
        return await self.version(volume_id, None)

    async def version(self, volume_id: str, number: int | None) -> VolumeVersion:
        """This version of a volume; None for the newest."""
        return await self._peer().request("VolumeVersionGet", VolumeVersionGet(volume_id, number), VolumeVersion)

    async def tree(self, volume_id: str, version: int) -> list[VolumeChange]:
        """All entries of a version, directories before what is in them."""
        entries: list[VolumeChange] = []
        asked: VolumeTreeGet | None = VolumeTreeGet(volume_id, version)
        while asked is not None:
            page = await self._peer().request("VolumeTreeGet", asked, VolumeTree)
            entries += page.entries
            asked = asked.following(page)
        return entries

    async def blocks(self, volume_id: str, version: int, path: str) -> tuple[str, ...]:
        """All blocks of a file."""
        found: list[str] = []
        asked: VolumeBlocksGet | None = VolumeBlocksGet(volume_id, path, version)
        while asked is not None:
            page = await self._peer().request("VolumeBlocksGet", asked, VolumeBlocks)
            found += page.blocks
            asked = asked.following(page)
        return tuple(found)

    async def block(self, sha256: str) -> bytes:
        """See `BlockSource`."""
        pieces: list[bytes] = []
        size, have = 1, 0
        while have < size:
            request = BlobGet(sha256, have, CHUNK_BYTES)
            chunk, body = await self._peer().request_with_body("BlobGet", request, BlobChunk)
            if not body:
                break
            pieces.append(body)
            size, have = chunk.size_bytes, have + len(body)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def doubt(self, sha256: str) -> None:
        """See `BlockSource`."""
        await self._peer().request("BlobStat", BlobStat((sha256,), is_doubted=True), BlobMissing)

    def file(self, sha256: str) -> Path | None:
        """See `BlockSource`."""
        return self._blob_dir / sha256[:2] / sha256 if self._blob_dir is not None else None

    async def missing(self, sha256s: Sequence[str]) -> set[str]:
        """See `BlockStore`."""
        return set((await self._peer().request("BlobStat", BlobStat(tuple(sha256s)), BlobMissing)).sha256s)

    async def put(self, sha256: str, data: bytes) -> None:
        """See `BlockStore`."""
        for at in range(0, max(1, len(data)), CHUNK_BYTES):
            record = BlobPut(sha256, len(data), at)
            await self._peer().request_with_body("BlobPut", record, Empty, data[at : at + CHUNK_BYTES])

    async def commit(self, record: VolumeCommit) -> VolumeCommitted:
        """See `BlockStore`."""
        return await self._peer().request("VolumeCommit", record, VolumeCommitted)

    def pages(self, changes: Sequence[VolumeChange]) -> list[tuple[VolumeChange, ...]]:
        """See `BlockStore`."""
        return list(pages(self._codec, changes))

    def _peer(self) -> Peer:
        peer = self._connection.peer
        if peer is None or peer.is_closed:
            raise PlatformError(UNAVAILABLE, "the node has no connection to its server; try again")
        return peer
