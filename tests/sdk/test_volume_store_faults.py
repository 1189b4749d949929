"""Volumes on a store of blobs that is slow, full or broken in the middle of a put."""

from __future__ import annotations

import asyncio
import io
import os

import pytest

import squall
from squall.exception import NotFoundError
from squall.protocol.errors import PlatformError
from squall.protocol.volume import BLOCK_BYTES
from squall.server.store.blob import ObjectBlobStore
from tests.sdk.real_server import RealServer


def put(volume: squall.Volume, data: bytes) -> None:
    with volume.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(data), "a")


def read(version: int | None = None) -> bytes:
    return b"".join(squall.Volume.from_name("weights", version=version).read_file("a"))


@pytest.mark.long
@pytest.mark.parametrize("code", ["", "exhausted", "internal"])
def test_the_version_before_stays_whole_and_the_put_can_be_repeated(
    real_server: RealServer, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    volume = squall.Volume.from_name("weights", create_if_missing=True)
    put(volume, b"old")
    begun, put_chunk, data = set[str](), ObjectBlobStore.put_chunk, os.urandom(3 * BLOCK_BYTES)

    async def late_or_never(self: ObjectBlobStore, sha256: str, size_bytes: int, offset: int, chunk: bytes) -> bool:
        begun.add(sha256)
        if not code:
            await asyncio.sleep(0.05)
        elif len(begun) == 3:
            raise PlatformError(code, "the store takes no more")
        return await put_chunk(self, sha256, size_bytes, offset, chunk)

    monkeypatch.setattr(ObjectBlobStore, "put_chunk", late_or_never)
    if code:
        with pytest.raises(squall.Error, match="the store takes no more"):
            put(volume, data)
        assert read() == b"old"
        with pytest.raises(NotFoundError, match="no version 2"):
            read(2)
        monkeypatch.undo()
    put(volume, data)

    assert (read(1), read(2)) == (b"old", data)
