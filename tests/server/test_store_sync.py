"""Writes that return before they are on the disk, and get there a moment later."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from squall.server.model.asset import StoredAsset
from squall.server.model.dict import DictWrite, StoredEntry
from squall.server.model.queue import PartitionKey, QueueTaking, QueueWrite
from squall.server.model.volume import StoredVolumeVersion
from squall.server.store import writes as module
from squall.server.store.database import Database
from squall.server.store.migration import upgrade
from squall.server.store.sql import SqlStore
from squall.server.store.writes import GroupCommit

FULL, NORMAL = 2, 1


def synchronous(connection: sa.Connection, values: Sequence[Any]) -> list[int]:
    """How the transaction that this is in will be committed."""
    return [connection.exec_driver_sql("PRAGMA synchronous").scalar_one() for _ in values]


class Commits:
    """A group commit, and how often what it wrote was put on the disk."""

    def __init__(self, path: Path) -> None:
        self.engine = sa.create_engine(f"sqlite:///{path}/x.db", pool_size=1, max_overflow=0)

        @sa.event.listens_for(self.engine, "connect")
        def set_up(connection: Any, _: object) -> None:
            connection.isolation_level = None
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")

        @sa.event.listens_for(self.engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN")

        self.syncs = 0
        self.synced = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.group = GroupCommit(self.engine, self.sync)

    def sync(self) -> None:
        self.syncs += 1
        self.loop.call_soon_threadsafe(self.synced.set)

    async def how(self, *, is_waiting: bool) -> int:
        found: int = await self.group.write(synchronous, None, is_waiting=is_waiting)
        return found


@asynccontextmanager
async def open_commits(path: Path) -> AsyncIterator[Commits]:
    commits = Commits(path)
    try:
        yield commits
    finally:
        await commits.group.close()
        commits.engine.dispose()


async def test_a_write_waits_for_the_disk_unless_it_need_not(tmp_path: Path) -> None:
    async with open_commits(tmp_path) as commits:
        assert await commits.how(is_waiting=False) == NORMAL
        assert await commits.how(is_waiting=True) == FULL


async def test_writes_of_both_kinds_together_wait(tmp_path: Path) -> None:
    async with open_commits(tmp_path) as commits:
        both = (commits.how(is_waiting=one) for one in (False, True, False))
        assert await asyncio.gather(*both) == [FULL, FULL, FULL]


async def test_what_did_not_wait_is_on_the_disk_a_moment_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SYNC_S", 0.01)
    async with open_commits(tmp_path) as commits:
        await commits.how(is_waiting=False)
        async with asyncio.timeout(10):
            await commits.synced.wait()
        assert commits.syncs == 1


async def test_what_did_not_wait_is_on_the_disk_when_the_store_is_closed(tmp_path: Path) -> None:
    async with open_commits(tmp_path) as commits:
        await commits.how(is_waiting=False)
        await commits.how(is_waiting=False)
    assert commits.syncs == 1


async def test_a_write_that_waits_takes_along_those_before_it(tmp_path: Path) -> None:
    async with open_commits(tmp_path) as commits:
        await commits.how(is_waiting=False)
        await commits.how(is_waiting=True)
    assert commits.syncs == 0


async def test_the_log_of_the_database_is_what_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fdatasync = os.fdatasync

    def noted(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", noted)
    async with Database(f"sqlite:///{tmp_path}/x.db", lambda connection: None) as database:
        await database.write(synchronous, None, is_waiting=False)
    assert synced == [f"{tmp_path}/x.db-wal"]


async def test_what_is_put_into_queues_and_volumes_waits_for_the_disk_and_dicts_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[bool] = []
    write = GroupCommit.write

    async def noted(self: GroupCommit, apply: Any, value: Any, *, is_waiting: bool = True) -> Any:
        waits.append(is_waiting)
        return await write(self, apply, value, is_waiting=is_waiting)

    async def waited(change: Awaitable[Any]) -> bool:
        waits.clear()
        await change
        return all(waits) and bool(waits)

    async with SqlStore(f"sqlite:///{tmp_path}/s.db", upgrade) as store:
        monkeypatch.setattr(GroupCommit, "write", noted)
        for number, kind in enumerate(("queue", "volume", "dict")):
            await store.assets.put(StoredAsset(f"as-{number}", kind, kind, created_at=1.0))
        place = PartitionKey("as-0", b"")

        assert await waited(store.queues.put(QueueWrite(place, "rq-1", (b"a",), 1.0, 9.0)))
        assert await waited(store.queues.take(QueueTaking(place, "rq-2", 1, 1.0)))
        assert await waited(store.queues.give_back("as-0", "rq-2"))
        assert await waited(store.volumes.add(StoredVolumeVersion("as-1", 1), {}))
        assert not await waited(store.dicts.put(DictWrite("as-2", "rq-3", (StoredEntry(b"k", b"v", "", 1.0),))))
