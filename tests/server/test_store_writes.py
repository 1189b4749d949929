"""Group commit when the database refuses: which writes fail, and after how many tries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from squall.server.store.writes import FAILURES_MAX, GroupCommit

pytestmark = pytest.mark.long


class Database:
    """One table, and a count of the transactions that were begun."""

    def __init__(self, path: Path) -> None:
        self.engine = sa.create_engine(f"sqlite:///{path}/x.db", connect_args={"timeout": 1.0})
        self.transactions = 0
        self.execute("CREATE TABLE kept (value INTEGER PRIMARY KEY, text TEXT)")

    def execute(self, text: str) -> list[Any]:
        with self.engine.begin() as connection:
            done = connection.execute(sa.text(text))
            return list(done.scalars()) if done.returns_rows else []

    def put(self, connection: sa.Connection, values: Sequence[Any]) -> list[int]:
        """Keep numbers; -1 makes the database fail, and only the one that has it."""
        self.transactions += 1
        for value in values:
            broken = "json('broken')" if value == -1 else "''"
            connection.execute(sa.text(f"INSERT INTO kept VALUES ({value}, {broken})"))
        return list(values)

    @property
    def kept(self) -> list[int]:
        return self.execute("SELECT value FROM kept ORDER BY value")


@asynccontextmanager
async def open_commits(database: Database) -> AsyncIterator[GroupCommit]:
    commits = GroupCommit(database.engine)
    try:
        yield commits
    finally:
        await commits.close()
        database.engine.dispose()


async def write_all(commits: GroupCommit, database: Database, values: Sequence[int]) -> list[Any]:
    """Write all at once: one group."""
    return await asyncio.gather(*(commits.write(database.put, value) for value in values), return_exceptions=True)


async def test_write_that_the_database_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    database = Database(tmp_path)
    async with open_commits(database) as commits:
        results = await write_all(commits, database, [*range(700), -1, *range(700, 999)])

        failed = [result for result in results if isinstance(result, Exception)]
        assert [type(error) for error in failed] == [OperationalError]
        assert isinstance(results[700], OperationalError)
        assert database.kept == list(range(999))
        assert database.transactions <= 25


async def test_writes_that_are_refused_for_their_content_fail_alone_however_many(tmp_path: Path) -> None:
    database = Database(tmp_path)
    async with open_commits(database) as commits:
        results = await write_all(commits, database, [number // 2 for number in range(400)])

        refused = [result for result in results if isinstance(result, IntegrityError)]
        assert len(refused) == 200
        assert database.kept == list(range(200))


async def test_database_that_fails_everything_is_not_asked_for_each_write(tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.execute("DROP TABLE kept")
    async with open_commits(database) as commits:
        results = await write_all(commits, database, range(1_000))

        assert {type(result) for result in results} == {OperationalError}
        assert database.transactions <= FAILURES_MAX + 1


async def test_locked_database_costs_one_wait(tmp_path: Path) -> None:
    database = Database(tmp_path)
    with database.engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        async with open_commits(database) as commits:
            started_s = time.monotonic()
            results = await write_all(commits, database, range(100))

            assert {type(result) for result in results} == {OperationalError}
            assert time.monotonic() - started_s < 3
        other.rollback()


async def test_full_disk_fails_the_whole_group(tmp_path: Path) -> None:
    database = Database(tmp_path)

    def fill(connection: sa.Connection, values: Sequence[Any]) -> list[Any]:
        database.transactions += 1
        connection.exec_driver_sql("PRAGMA max_page_count=1")
        connection.exec_driver_sql("CREATE TABLE more (text)")
        return list(values)

    async with open_commits(database) as commits:
        results = await asyncio.gather(*(commits.write(fill, number) for number in range(100)), return_exceptions=True)

        assert all("full" in str(result) for result in results)
        assert database.transactions == 1


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_results_are_in_the_order_of_the_writes(tmp_path: Path, count: int) -> None:
    database = Database(tmp_path)
    async with open_commits(database) as commits:
        results = await write_all(commits, database, [*range(count), -1])

        assert results[:count] == list(range(count))
        assert isinstance(results[count], OperationalError)
