"""Users' files come from the server a chunk at a time, in blocks where they are large, and are what their hash says."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent.blobs import PeerBlobs
from squall.protocol.blob import CHUNK_BYTES
from squall.protocol.errors import PlatformError
from squall.protocol.mount import BLOCK_BYTES, MountFile
from squall.protocol.peer import Peer
from tests.agent.parts import CODEC, ServerEnd


@pytest.fixture
def server() -> ServerEnd:
    return ServerEnd()


@pytest.fixture
async def blobs(server: ServerEnd) -> AsyncIterator[PeerBlobs]:
    with ThreadPoolExecutor(1) as threads:
        made = PeerBlobs(threads)
        made.peer = Peer(await server.connect(), CODEC, server)
        made.peer.start()
        yield made
        made.peer.channel.close()


async def fetch(server: ServerEnd, blobs: PeerBlobs, content: bytes, path: Path) -> MountFile:
    (file,) = (await blobs.manifest(server.files.add({"data": content}))).files
    await blobs.fetch(file, path)
    return file


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES + 1, BLOCK_BYTES])
async def test_file_arrives_as_it_is(server: ServerEnd, blobs: PeerBlobs, tmp_path: Path, size_bytes: int) -> None:
    content = os.urandom(size_bytes)

    file = await fetch(server, blobs, content, tmp_path / "file")

    assert not file.blocks
    assert (tmp_path / "file").read_bytes() == content


async def test_large_file_is_put_together_from_its_blocks(server: ServerEnd, blobs: PeerBlobs, tmp_path: Path) -> None:
    content = os.urandom(BLOCK_BYTES) + bytes(BLOCK_BYTES) * 2 + b"end"

    file = await fetch(server, blobs, content, tmp_path / "file")

    assert len(file.blocks) == 4
    assert len(set(file.blocks)) == 3
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("wrong", ["swapped", "missing", "other"])
async def test_blocks_that_are_not_the_file_are_refused(
    server: ServerEnd, blobs: PeerBlobs, tmp_path: Path, wrong: str
) -> None:
    (file,) = (await blobs.manifest(server.files.add({"data": os.urandom(BLOCK_BYTES + 5)}))).files
    first, last = file.blocks
    blocks = {"swapped": (last, first), "missing": (first,), "other": (first, first)}[wrong]

    with pytest.raises(PlatformError, match="came with other bytes"):
        await blobs.fetch(replace(file, blocks=blocks), tmp_path / "file")

    assert not (tmp_path / "file").exists()
