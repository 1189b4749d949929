"""Old blobs go when they are too many and nothing names them."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from squall.main.housekeeping import housekeeping, tidy_up
from squall.protocol.mount import MountFile, MountManifest
from squall.server.dispatch import SystemClock
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
        await store.put_mount(MountManifest((MountFile("a.py", names[0], 500),)))

        await tidy_up(store, blobs, 600)

        assert await blobs.missing(tuple(names)) == (names[1],)
        assert list((tmp_path / "uploads").iterdir()) == []


async def test_housekeeping_ends_with_its_context(tmp_path: Path) -> None:
    async with ObjectBlobStore(str(tmp_path), SystemClock().now) as blobs:
        before = asyncio.all_tasks()

        async with housekeeping(MemoryStore(), blobs, 1):
            during = asyncio.all_tasks()

        assert len(during) == len(before) + 1
        assert asyncio.all_tasks() == before
