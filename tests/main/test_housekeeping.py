"""Old blobs go when they are too many and nothing names them."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from squall.main.housekeeping import MOUNTS_UNUSED_S, SECRETS_UNUSED_S, housekeeping, tidy_up
from squall.protocol.errors import PlatformError
from squall.protocol.mount import MountFile, MountManifest
from squall.server.dispatch import SystemClock
from squall.server.dispatch.asset.seal import Seal, Whose
from squall.server.store.aes_gcm import AesGcm
from squall.server.store.blob import ObjectBlobStore
from squall.server.store.memory import MemoryStore

TWO_DAYS_S = 2 * 24 * 3600.0


async def test_blobs_over_the_budget_go_unless_they_are_named(tmp_path: Path) -> None:
    store = MemoryStore()
    named, old = b"n" * 500, b"o" * 500
    async with ObjectBlobStore(str(tmp_path), lambda: SystemClock().now() + TWO_DAYS_S) as blobs:
        names = [hashlib.sha256(data).hexdigest() for data in (named, old)]
        for sha256, data in zip(names, (named, old), strict=True):
            await blobs.put_chunk(sha256, len(data), 0, data)
        await blobs.put_chunk("ab" * 32, 10, 0, b"half")
        await store.put_mount(MountManifest((MountFile("a.py", names[0], 500),)), 0.0)

        await tidy_up(store, blobs, 600, 0.0)

        assert await blobs.missing(tuple(names)) == (names[1],)
        assert list((tmp_path / "uploads").iterdir()) == []


async def test_mounts_that_nothing_has_used_for_long_go_and_leave_their_blobs(tmp_path: Path) -> None:
    store = MemoryStore()
    data = b"n" * 500
    sha256 = hashlib.sha256(data).hexdigest()
    async with ObjectBlobStore(str(tmp_path), lambda: SystemClock().now() + TWO_DAYS_S) as blobs:
        await blobs.put_chunk(sha256, len(data), 0, data)
        mount_id = await store.put_mount(MountManifest((MountFile("a.py", sha256, 500),)), 100.0)

        await tidy_up(store, blobs, 0, 100.0 + MOUNTS_UNUSED_S)
        assert await store.get_mount(mount_id)
        assert blobs.path(sha256) is not None  # not by `missing`: what somebody was told of stays
        await tidy_up(store, blobs, 0, 101.0 + MOUNTS_UNUSED_S)

        with pytest.raises(PlatformError, match=mount_id):
            await store.get_mount(mount_id)
        assert await blobs.missing((sha256,)) == (sha256,)


async def test_secrets_that_nothing_has_named_for_long_go(tmp_path: Path) -> None:
    store = MemoryStore()
    sealed = Seal((b"k" * 32,), AesGcm).close(Whose("st-1", "ap-1"), {"A": "1"}, revision=1, now=100.0)
    async with ObjectBlobStore(str(tmp_path), SystemClock().now) as blobs:
        await store.secrets.put(sealed)

        await tidy_up(store, blobs, 0, 100.0 + SECRETS_UNUSED_S)
        assert await store.secrets.get(frozenset(["st-1"])) == (sealed,)
        await tidy_up(store, blobs, 0, 101.0 + SECRETS_UNUSED_S)

        assert await store.secrets.get(frozenset(["st-1"])) == ()


async def test_housekeeping_ends_with_its_context(tmp_path: Path) -> None:
    async with ObjectBlobStore(str(tmp_path), SystemClock().now) as blobs:
        before = asyncio.all_tasks()

        async with housekeeping(MemoryStore(), blobs, 1):
            during = asyncio.all_tasks()

        assert len(during) == len(before) + 1
        assert asyncio.all_tasks() == before
