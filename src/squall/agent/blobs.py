"""Where an agent gets users' files from: the server it is connected to, a chunk at a time."""

from __future__ import annotations

import asyncio
import hashlib
import os
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol

from squall.protocol.blob import CHUNK_BYTES, BlobChunk, BlobGet
from squall.protocol.errors import INTERNAL, PlatformError
from squall.protocol.mount import BLOCK_BYTES, MountFile, MountGet, MountManifest
from squall.protocol.peer import Peer


class BlobSource(Protocol):
    """Gives manifests and files."""

    async def manifest(self, mount_id: str) -> MountManifest:
        """The files of a mount.

        Raises:
            PlatformError: `not_found`, or `unavailable` while there is no server.
        """

    async def fetch(self, file: MountFile, path: Path) -> None:
        """Write the content of a file of a mount to a new one.

        Raises:
            PlatformError: as above; `internal` when its bytes are not those of its hash.
        """


class PeerBlobs:
    """Asks whatever peer is there now."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.peer: Peer | None = None

    async def manifest(self, mount_id: str) -> MountManifest:
        """See `BlobSource`."""
        return await self._connected().request("MountGet", MountGet(mount_id), MountManifest)

    async def fetch(self, file: MountFile, path: Path) -> None:
        """See `BlobSource`."""
        loop = asyncio.get_running_loop()
        digest = hashlib.sha256()
        count = 0
        # In a thread: a disk may be slow, and a hash of megabytes takes milliseconds.
        await loop.run_in_executor(self._executor, _append, path, b"", digest)
        for sha256 in file.blobs:
            size_bytes = min(BLOCK_BYTES, file.size_bytes - count) if file.blocks else file.size_bytes
            offset = 0
            while offset < size_bytes:
                request = BlobGet(sha256, offset, CHUNK_BYTES)
                _, body = await self._connected().request_with_body("BlobGet", request, BlobChunk)
                await loop.run_in_executor(self._executor, _append, path, body, digest)
                offset += len(body)
                if not body:
                    break
            count += offset
        if digest.hexdigest() != file.sha256:
            os.unlink(path)
            message = f"file {file.path} ({file.sha256}) came with other bytes ({count} of {file.size_bytes})"
            raise PlatformError(INTERNAL, message)

    def _connected(self) -> Peer:
        if self.peer is None or self.peer.is_closed:
            raise PlatformError("unavailable", "the node has no connection to its server; try again")
        return self.peer


def _append(path: Path, body: bytes, digest: hashlib._Hash) -> None:
    with open(path, "ab") as file:
        file.write(body)
    digest.update(body)
