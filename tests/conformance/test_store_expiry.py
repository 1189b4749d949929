"""Calls are forgotten some time after their end, in every store, a bounded part of them at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from squall.protocol.call import SUCCEEDED
from squall.protocol.errors import PlatformError
from squall.server.model.store import Store, StoredInput, StoredOutput
from squall.server.store import sql_calls
from squall.server.store.schema import OUTPUTS, PORTIONS
from squall.server.store.sql import SqlStore
from tests.conformance.test_store import make_call, make_inputs


@pytest.mark.long
async def test_expiry_forgets_finished_calls_only(store: Store) -> None:
    for number in range(450):
        await store.put_call(make_call(f"fc-old-{number}", 10.0), make_inputs(f"fc-old-{number}"))
    await store.put_outputs(
        tuple(StoredOutput(f"fc-old-{number}", 0, SUCCEEDED, finished_at=20.0) for number in range(450))
    )
    await store.put_call(make_call("fc-open", 10.0), make_inputs("fc-open"))
    await store.put_call(make_call("fc-late", 10.0), make_inputs("fc-late"))
    await store.put_outputs((StoredOutput("fc-late", 0, SUCCEEDED, finished_at=30.0),))

    count = await store.expire(25.0)

    assert count == 450
    assert await store.get_call("fc-open") == make_call("fc-open", 10.0)
    assert await store.get_output("fc-late", 0) is not None
    with pytest.raises(PlatformError):
        await store.get_output("fc-old-3", 0)
    assert await store.expire(25.0) == 0


class Gone:
    """How much at most was deleted from a table in one transaction, as long as the store is one that has any."""

    def __init__(self, store: Store, table: sa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = self.bytes = 0
        if isinstance(store, SqlStore):
            self._watch(store, table, monkeypatch)

    def _watch(self, store: SqlStore, table: sa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
        write, totals = store._write, sa.select(sa.func.count(), sa.func.sum(sa.func.length(table.c.value)))

        async def watched(apply: Any, value: Any) -> Any:
            def apply_and_count(connection: sa.Connection, values: Any) -> Any:
                rows, size = connection.execute(totals).one()
                result = apply(connection, values)
                rows_left, size_left = connection.execute(totals).one()
                self.rows = max(self.rows, rows - rows_left)
                self.bytes = max(self.bytes, int(size or 0) - int(size_left or 0))
                return result

            return await write(apply_and_count, value)

        monkeypatch.setattr(store, "_write", watched)


async def put_done(store: Store, call_id: str, count: int, value: bytes = b"") -> None:
    """A call that is over, with values of its inputs and outputs."""
    inputs = tuple(StoredInput(call_id, index, value) for index in range(count))
    await store.put_call(make_call(call_id, 10.0, count), inputs)
    await store.put_outputs(
        tuple(StoredOutput(call_id, index, SUCCEEDED, value, finished_at=20.0) for index in range(count))
    )


async def test_expiry_takes_a_bounded_number_of_outputs_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_calls, "EXPIRE_ROWS_MAX", 10)
    counts = {"fc-large": 35, "fc-small": 3, "fc-other": 8, "fc-whole": 10, "fc-none": 0}
    for call_id, count in counts.items():
        await put_done(store, call_id, count)
    gone = Gone(store, OUTPUTS, monkeypatch)

    assert await store.expire(25.0) == len(counts)

    assert gone.rows <= 10
    for call_id in counts:
        with pytest.raises(PlatformError):
            await store.get_call(call_id)
    assert await store.expire(25.0) == 0


async def test_expiry_takes_a_bounded_number_of_bytes_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_calls, "EXPIRE_BYTES_MAX", 10_000)
    value = b"x" * 1_000
    call = replace(make_call("fc-growing", 10.0, 0), is_growing=True)
    await store.put_call(call, ())
    for index in range(35):
        inputs = (StoredInput("fc-growing", index, value),)
        await store.extend_call("fc-growing", index, inputs, 11.0 + index, is_last=index == 34)
    await store.put_outputs(
        tuple(StoredOutput("fc-growing", index, SUCCEEDED, value, finished_at=60.0) for index in range(35))
    )
    for number in range(25):
        await put_done(store, f"fc-{number}", number % 3, value)
    outputs, portions = Gone(store, OUTPUTS, monkeypatch), Gone(store, PORTIONS, monkeypatch)

    assert await store.expire(100.0) == 26

    assert outputs.bytes <= 10_000
    assert portions.bytes <= 10_000
    assert await store.expire(100.0) == 0
    await put_done(store, "fc-huge", 1, b"x" * 30_000)
    assert await store.expire(100.0) == 1
