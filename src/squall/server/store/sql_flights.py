"""Statements of what is kept of calls that ran, and of functions' minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol import call as wire
from squall.server.model.flight import FlightLimits, StoredFlight, StoredMinute
from squall.server.model.store import OutputCounts, StoredCall, StoredInput, StoredOutput
from squall.server.store.batches import within
from squall.server.store.schema import CALLS, FAILED_INPUTS, FLIGHTS, FUNCTION_MINUTES, OUTPUTS, PORTIONS
from squall.server.store.sql_portions import inputs_of
from squall.server.store.upsert import upsert

NAMES_MAX = 500
PRUNED_MAX = 500
PRUNED_BYTES_MAX = 16 * 2**20
"""Of what goes in one transaction."""
"""At once, so that other writes need not wait long."""

BLOB_INPUT_BYTES = 64
"""What an input counts for whose value is in a blob: the blob has a budget of its own."""


def list_calls(
    connection: Connection,
    function_ids: tuple[str, ...],
    limit: int,
    since: float,
    until: float | None,
    app_ids: tuple[str, ...] = (),
) -> tuple[StoredCall, ...]:
    """See `Store`."""
    query = sa.select(*[CALLS.c[name] for name in StoredCall.__slots__])
    query = _between(query, CALLS, function_ids, since, until, app_ids)
    rows = connection.execute(query.order_by(CALLS.c.created_at.desc(), CALLS.c.call_id.desc()).limit(limit))
    return tuple(StoredCall(**row) for row in rows.mappings())


def _between(
    query: sa.Select[Any],
    table: sa.Table,
    function_ids: tuple[str, ...],
    since: float,
    until: float | None,
    app_ids: tuple[str, ...],
) -> sa.Select[Any]:
    if function_ids:
        query = query.where(table.c.function_id.in_(function_ids[:NAMES_MAX]))
    if app_ids:
        query = query.where(table.c.app_id.in_(app_ids[:NAMES_MAX]))
    if since:
        query = query.where(table.c.created_at >= since)
    return query if until is None else query.where(table.c.created_at <= until)


def get_input(connection: Connection, call_id: str, index: int) -> StoredInput | None:
    """See `Store`."""
    is_it = (PORTIONS.c.call_id == call_id) & (PORTIONS.c.first_index <= index)
    columns = (PORTIONS.c.first_index, PORTIONS.c.sizes, PORTIONS.c.blobs, PORTIONS.c.value)
    query = sa.select(*columns).where(is_it).order_by(PORTIONS.c.first_index.desc()).limit(1)
    for first, sizes, blobs, value in connection.execute(query):
        for one in inputs_of(call_id, first, sizes, blobs, value):
            if one.index == index:
                return one
    table = FAILED_INPUTS
    is_kept = (table.c.call_id == call_id) & (table.c.input_index == index)
    row = connection.execute(sa.select(table.c.value, table.c.blob_sha256).where(is_kept)).first()
    return None if row is None else StoredInput(call_id, index, row[0], row[1])


def list_outputs(
    connection: Connection, call_id: str, first: int, limit: int, failed: bool
) -> tuple[StoredOutput, ...]:
    """See `Store`."""
    is_failed = OUTPUTS.c.status != wire.SUCCEEDED
    is_it = (OUTPUTS.c.call_id == call_id) & (OUTPUTS.c.input_index >= first)
    if failed:
        is_it &= is_failed
    value = sa.case((is_failed, OUTPUTS.c.value), else_=sa.null()).label("value")
    columns = [value if name == "value" else OUTPUTS.c[_COLUMN_OF.get(name, name)] for name in StoredOutput.__slots__]
    query = sa.select(*columns).where(is_it).order_by(OUTPUTS.c.input_index).limit(limit)
    rows: list[list[Any]] = [[b"" if cell is None else cell for cell in row] for row in connection.execute(query)]
    return tuple(StoredOutput(*row) for row in rows)


_COLUMN_OF = {"index": "input_index"}


def count_outputs(connection: Connection, call_ids: tuple[str, ...]) -> dict[str, OutputCounts]:
    """See `Store`."""
    counts: dict[str, OutputCounts] = {}
    for start in range(0, len(call_ids), NAMES_MAX):
        some = call_ids[start : start + NAMES_MAX]
        columns = (OUTPUTS.c.call_id, OUTPUTS.c.status)
        query = sa.select(*columns, sa.func.count(), sa.func.max(OUTPUTS.c.finished_at)).group_by(*columns)
        for call_id, status, count, last_at in connection.execute(query.where(OUTPUTS.c.call_id.in_(some))):
            known = counts.get(call_id, OutputCounts())
            counts[call_id] = OutputCounts({**known.by_status, status: count}, max(known.last_at, last_at))
    return counts


def put_flights(
    connection: Connection,
    writes: Sequence[tuple[tuple[StoredFlight, ...], tuple[StoredInput, ...], float]],
) -> list[None]:
    """See `Store.put_flights`; several of them."""
    flights = {flight.call_id: flight for some, _, _ in writes for flight in some}
    if flights:
        upsert(connection, FLIGHTS, [_flight_row(flight) for flight in flights.values()])
    rows = {(one.call_id, one.index): _input_row(one, now) for _, inputs, now in writes for one in inputs}
    if rows:
        upsert(connection, FAILED_INPUTS, list(rows.values()))
    return [None] * len(writes)


def _flight_row(flight: StoredFlight) -> dict[str, Any]:
    return {
        **{name: getattr(flight, name) for name in StoredFlight.__slots__},
        "size_bytes": len(flight.detail) + len(flight.summary),
    }


def _input_row(one: StoredInput, now: float) -> dict[str, Any]:
    return {
        "call_id": one.call_id,
        "input_index": one.index,
        "value": one.value,
        "blob_sha256": one.blob_sha256,
        "size_bytes": len(one.value) or BLOB_INPUT_BYTES,
        "kept_at": now,
    }


_FLIGHT_COLUMNS = tuple(FLIGHTS.c[name] for name in StoredFlight.__slots__)


def get_flight(connection: Connection, call_id: str) -> StoredFlight | None:
    """See `Store`."""
    row = connection.execute(sa.select(*_FLIGHT_COLUMNS).where(FLIGHTS.c.call_id == call_id)).first()
    return None if row is None else StoredFlight(*row)


def list_flights(
    connection: Connection,
    function_ids: tuple[str, ...],
    limit: int,
    since: float,
    until: float | None,
    failed: bool,
    app_ids: tuple[str, ...],
) -> tuple[StoredFlight, ...]:
    """See `Store`."""
    query = _between(sa.select(*_FLIGHT_COLUMNS[:-1]), FLIGHTS, function_ids, since, until, app_ids)
    if failed:
        query = query.where(FLIGHTS.c.is_failed)
    query = query.order_by(FLIGHTS.c.created_at.desc(), FLIGHTS.c.call_id.desc()).limit(limit)
    return tuple(StoredFlight(**row, detail="") for row in connection.execute(query).mappings())


def kept_inputs(connection: Connection, call_id: str) -> frozenset[int]:
    """See `Store`."""
    query = sa.select(FAILED_INPUTS.c.input_index).where(FAILED_INPUTS.c.call_id == call_id)
    return frozenset(connection.execute(query).scalars())


def prune(connection: Connection, requests: Sequence[FlightLimits]) -> list[int]:
    """Part of `Store.prune_flights`: forget a bounded number of flights and inputs; how many."""
    return [
        _prune(connection, FLIGHTS, FLIGHTS.c.finished_at, limits.before, limits.flights_max, limits.detail_bytes_max)
        + _prune(
            connection, FAILED_INPUTS, FAILED_INPUTS.c.kept_at, limits.before, limits.inputs_max, limits.input_bytes_max
        )
        for limits in requests
    ]


def _prune(
    connection: Connection, table: sa.Table, age: sa.Column[float], before: float, count_max: int, bytes_max: int
) -> int:
    keys = list(table.primary_key)
    columns = (*keys, table.c.size_bytes)
    rows = [tuple(row) for row in connection.execute(sa.select(*columns).where(age < before).limit(PRUNED_MAX))]
    count, size = connection.execute(sa.select(sa.func.count(), sa.func.sum(table.c.size_bytes))).one()
    size = int(size or 0)
    if not rows and (count > count_max or size > bytes_max):
        for row in connection.execute(sa.select(*columns).order_by(age, *keys).limit(PRUNED_MAX)):
            if count <= count_max and size <= bytes_max:
                break
            rows.append(tuple(row))
            count, size = count - 1, size - row[-1]
    if not rows:
        return 0
    gone = [row[:-1] for row in next(within(rows, [row[-1] for row in rows], PRUNED_MAX, PRUNED_BYTES_MAX))]
    named = sa.tuple_(*keys).in_(gone) if len(keys) > 1 else keys[0].in_([row[0] for row in gone])
    connection.execute(sa.delete(table).where(named))
    return len(gone)


def put_minutes(connection: Connection, writes: Sequence[tuple[StoredMinute, ...]]) -> list[None]:
    """See `Store.put_minutes`; several of them."""
    rows = {
        (one.function_id, one.began_at): {name: getattr(one, name) for name in StoredMinute.__slots__}
        for minutes in writes
        for one in minutes
    }
    if rows:
        upsert(connection, FUNCTION_MINUTES, list(rows.values()))
    return [None] * len(writes)


def list_minutes(
    connection: Connection,
    function_ids: tuple[str, ...],
    base_ids: tuple[str, ...],
    since: float,
    until: float,
    limit: int,
) -> tuple[StoredMinute, ...]:
    """See `Store`."""
    table = FUNCTION_MINUTES
    found: dict[tuple[str, float], StoredMinute] = {}
    for column, ids in ((table.c.function_id, function_ids), (table.c.base_id, base_ids)):
        for start in range(0, len(ids), NAMES_MAX):
            is_theirs = column.in_(ids[start : start + NAMES_MAX])
            is_it = is_theirs & (table.c.began_at >= since) & (table.c.began_at <= until)
            last_first = (table.c.began_at.desc(), table.c.function_id.desc())
            for row in connection.execute(sa.select(table).where(is_it).order_by(*last_first).limit(limit)):
                found[row.function_id, row.began_at] = StoredMinute(*row)
    return tuple(sorted(found.values(), key=lambda one: (one.began_at, one.function_id))[-limit:])


def prune_minutes(connection: Connection, requests: Sequence[tuple[float, int]]) -> list[int]:
    """See `Store.prune_minutes`; several of them."""
    table, gone = FUNCTION_MINUTES, []
    for before, count_max in requests:
        count = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        if count > count_max:
            query = sa.select(table.c.began_at).order_by(table.c.began_at.desc()).offset(count_max - 1).limit(1)
            before = max(before, connection.execute(query).scalar_one())
        gone.append(connection.execute(sa.delete(table).where(table.c.began_at < before)).rowcount)
    return gone


def live_blobs(connection: Connection) -> set[str]:
    """Blobs that kept arguments name."""
    query = sa.select(FAILED_INPUTS.c.blob_sha256).where(FAILED_INPUTS.c.blob_sha256 != "").distinct()
    return set(connection.execute(query).scalars())
