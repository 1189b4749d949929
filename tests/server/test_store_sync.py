"""Writes that return before they are on the disk, and get there a moment later."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from squall.server.store import writes as module
from squall.server.store.database import Database
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
