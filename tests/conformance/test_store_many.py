"""Statements about many rows at once: what they change, and that they do not read whole tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from squall.server.model.store import Store, StoredCall, StoredInput, StoredOutput
from squall.server.store.many import ROWS_MAX, STATEMENT_BYTES
from squall.server.store.migration import upgrade
from squall.server.store.sql import SqlStore
from tests.conformance.conftest import new_postgres_database

Made = tuple[StoredCall, tuple[StoredInput, ...]]


def made(number: int, value: bytes = b"in") -> Made:
    """A call of one input."""
    call = StoredCall(f"fc-{number:06}", "fu-1", "ap-1", "spawn", 100.0 + number)
    return call, (StoredInput(call.call_id, 0, value),)


def output_of(one: Made, value: bytes = b"out", finished_at: float = 0.0) -> StoredOutput:
    call = one[0]
    return StoredOutput(call.call_id, 0, 0, value, "", 0, 5, finished_at or call.created_at + 1, 7.0, "ct-1")


async def test_more_rows_than_fit_into_a_statement_are_kept(store: Store) -> None:
    calls = [made(number) for number in range(ROWS_MAX + 3)]

    assert await store.put_calls(tuple(calls)) == (True,) * len(calls)
    assert await store.put_outputs(tuple([output_of(one) for one in calls])) == (True,) * len(calls)

    assert await store.get_output(calls[-1][0].call_id, 0) == output_of(calls[-1])
    assert await store.unfinished_counts() == {}


async def test_values_larger_than_a_statement_are_kept(store: Store) -> None:
    large = bytes(range(256)) * (STATEMENT_BYTES // 256 + 1)
    calls = [made(0, large), made(1, large), made(2)]

    await store.put_calls(tuple(calls))
    await store.put_outputs(tuple([output_of(one, large) for one in calls]))

    for one in calls:
        assert await store.get_output(one[0].call_id, 0) == output_of(one, large)


async def test_each_call_of_many_keeps_its_own_end(store: Store) -> None:
    calls = [made(number) for number in range(20)]
    await store.put_calls(tuple(calls))

    await store.put_outputs(tuple([output_of(one, finished_at=1_000.0 + n) for n, one in enumerate(calls)]))

    assert await store.expire(1_010.0) == 10
    assert await store.get_output(calls[10][0].call_id, 0) is not None


@pytest.mark.long
async def test_postgres_reads_no_table_whole_though_it_was_empty_at_first(postgres_socket_dir: Path) -> None:
    url = new_postgres_database(postgres_socket_dir)
    count, together = 6_000, 20
    async with SqlStore(url, upgrade) as store:
        for first in range(0, count, together):
            calls = [made(number) for number in range(first, first + together)]
            await store.put_calls(tuple(calls))
            await store.put_outputs(tuple([output_of(one) for one in calls]))

    # A connection tells what it read when it ends.
    engine = sa.create_engine(url)
    query = "SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE relname IN ('calls', 'portions', 'outputs')"
    with engine.connect() as connection:
        read = {row[0]: row[1] for row in connection.execute(sa.text(query))}
    engine.dispose()

    # A small table is read whole, and that is right; one that grows must not be for ever. A plan that is kept from
    # when they were small reads 2.7 million rows of `calls` here, one that is made anew 1.5 million.
    assert len(read) == 3
    assert max(read.values()) < 2_200_000, read


@pytest.mark.long
async def test_later_inputs_that_have_an_output_are_told_from_others(store: Store) -> None:
    calls = [made(number)[0] for number in range(700)]
    inputs = [tuple(StoredInput(call.call_id, index, b"in") for index in range(3)) for call in calls]
    await store.put_calls(tuple(zip(calls, inputs, strict=True)))
    # Of each call another one: the first, the second or the last.
    some = [StoredOutput(c.call_id, n % 3, 0, b"1", "", 0, 5, 200.0, 7.0, "ct-1") for n, c in enumerate(calls)]
    assert await store.put_outputs(tuple(some)) == (True,) * len(calls)

    again = [StoredOutput(c.call_id, index, 0, b"2", "", 0, 5, 200.0, 7.0, "ct-1") for c in calls for index in range(3)]
    accepted = await store.put_outputs(tuple(again))

    assert accepted == tuple(index != n % 3 for n in range(len(calls)) for index in range(3))
    assert await store.unfinished_counts() == {}


async def test_outputs_of_a_call_of_many_that_are_there_are_told_from_new_ones(store: Store) -> None:
    many, few = made(1)[0], made(2)[0]
    inputs = [tuple(StoredInput(call.call_id, index, b"in") for index in range(2_000)) for call in (many, few)]
    await store.put_calls(tuple(zip((many, few), inputs, strict=True)))

    def outputs(call: StoredCall, indexes: range) -> list[StoredOutput]:
        return [StoredOutput(call.call_id, index, 0, b"1", "", 0, 5, 200.0, 7.0, "ct-1") for index in indexes]

    first = [*outputs(many, range(0, 1_500, 3)), *outputs(few, range(3))]
    assert await store.put_outputs(tuple(first)) == (True,) * len(first)

    accepted = await store.put_outputs((*outputs(many, range(1_500)), *outputs(few, range(6))))

    assert accepted == (*(index % 3 != 0 for index in range(1_500)), *(index >= 3 for index in range(6)))


async def test_a_call_of_many_is_asked_about_by_itself(tmp_path: Path) -> None:
    asked: list[str] = []

    def note(*given: Any) -> None:
        if "SELECT outputs." in given[2]:
            asked.append(given[2])

    async with SqlStore(f"sqlite:///{tmp_path / 'store.db'}", upgrade) as store:
        call = made(1)[0]
        await store.put_calls(((call, tuple(StoredInput(call.call_id, index, b"in") for index in range(400))),))
        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        try:
            later = [StoredOutput(call.call_id, n, 0, b"1", "", 0, 5, 200.0, 7.0, "ct-1") for n in range(1, 400)]
            await store.put_outputs(tuple(later))
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", note)

    assert len(asked) == 1
    assert "VALUES" not in asked[0], "pairs are dear: most of it is to write them down"


async def test_which_inputs_have_an_output_is_asked_of_many_calls_at_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def note(*given: Any) -> None:
        if "SELECT outputs." in given[2]:
            asked.append(given[2])

    async with SqlStore(f"sqlite:///{tmp_path / 'store.db'}", upgrade) as store:
        calls = [made(number)[0] for number in range(400)]
        inputs = [tuple(StoredInput(call.call_id, index, b"in") for index in range(2)) for call in calls]
        await store.put_calls(tuple(zip(calls, inputs, strict=True)))
        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        try:
            later = [StoredOutput(call.call_id, 1, 0, b"1", "", 0, 5, 200.0, 7.0, "ct-1") for call in calls]
            await store.put_outputs(tuple(later))
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", note)
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'store.db'}")
    with engine.connect() as connection:
        values = ("fc-000001", 1) * (asked[0].count("?") // 2)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked[0]}", values).all()
    engine.dispose()

    assert len(asked) == 1
    assert "SEARCH outputs USING" in str(plan), plan
    assert "(call_id=? AND input_index=?)" in str(plan), plan
