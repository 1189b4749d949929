"""Statements of durable calls, their inputs and outputs; those of many callers at once where they are hot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.server.model.store import StoredCall, StoredInput, StoredOutput
from squall.server.store import sql_portions
from squall.server.store.batches import batches, within
from squall.server.store.many import Given, for_rows, insert_rows, present, present_together
from squall.server.store.schema import CALLS, OUTPUTS, PORTIONS

BY_ITSELF_MIN = 16
"""Outputs of one call that are worth a question of their own."""
EXPIRE_CALLS_MAX = 200
EXPIRE_ROWS_MAX = 2_000
"""Outputs, and portions, that go in one transaction: spawns wait for it."""
EXPIRE_BYTES_MAX = 16 * 2**20
"""Of their values, likewise; one that is larger goes alone."""
READ_ROWS = 16


Calls = tuple[tuple[StoredCall, tuple[StoredInput, ...]], ...]


def put_calls(connection: Connection, writes: Sequence[Calls]) -> list[tuple[bool, ...]]:
    """See `Store.put_calls`; several of them."""
    together = [one for calls in writes for one in calls]
    known = _known_calls(connection, {call.call_id for call, _ in together})
    new: dict[str, tuple[StoredCall, tuple[StoredInput, ...]]] = {}
    for call, inputs in together:
        if call.call_id not in known:
            new.setdefault(call.call_id, (call, inputs))
    if new:
        insert_rows(connection, CALLS, [_call_row(call, len(inputs)) for call, inputs in new.values()])
        rows = [sql_portions.row_of(call, 0, call.created_at, inputs) for call, inputs in new.values() if inputs]
        insert_rows(connection, PORTIONS, rows)
    return [tuple([new.pop(call.call_id, None) is not None for call, _ in calls]) for calls in writes]


def cancel_calls(connection: Connection, call_ids: Sequence[str]) -> list[None]:
    """The writing half of `Store.cancel_call`; several of them."""
    for some in batches(call_ids):
        is_it = CALLS.c.call_id.in_(some) & ((CALLS.c.unfinished_count > 0) | CALLS.c.is_growing)
        connection.execute(sa.update(CALLS).where(is_it).values(is_cancelled=True))
    return [None] * len(call_ids)


def put_outputs(connection: Connection, writes: Sequence[tuple[StoredOutput, ...]]) -> list[tuple[bool, ...]]:
    """See `Store.put_outputs`; several of them."""
    first: dict[tuple[str, int], StoredOutput] = {}
    for outputs in writes:
        for output in outputs:
            first.setdefault((output.call_id, output.index), output)
    known = _known_calls(connection, {call_id for call_id, _ in first})
    taken = _taken(connection, [key for key in first if key[0] in known])
    new = {key: output for key, output in first.items() if key[0] in known and key not in taken}
    if new:
        insert_rows(connection, OUTPUTS, [_output_row(output) for output in new.values()])
        _count_down(connection, new.values())
    # The first of its input is the one that was kept; equal ones after it in the same transaction were not.
    unsaid = set(new)
    return [tuple(_take(unsaid, (output.call_id, output.index)) for output in outputs) for outputs in writes]


def _take(keys: set[tuple[str, int]], key: tuple[str, int]) -> bool:
    is_there = key in keys
    keys.discard(key)
    return is_there


def _count_down(connection: Connection, outputs: Any) -> None:
    counts: dict[str, list[float]] = {}
    for output in outputs:
        count = counts.setdefault(output.call_id, [0, 0.0])
        count[0] += 1
        count[1] = max(count[1], output.finished_at)
    rows = [{"of_call": call_id, "done": int(done), "at": at} for call_id, (done, at) in counts.items()]
    for_rows(connection, _counted_down, {"of_call": sa.String(), "done": sa.Integer(), "at": sa.Float()}, rows)
    sql_portions.count_down(connection, outputs)


def _counted_down(given: Given) -> sa.Update:
    later = sa.case((CALLS.c.finished_at < given["at"], given["at"]), else_=CALLS.c.finished_at)
    return (
        sa.update(CALLS)
        .where(CALLS.c.call_id == given["of_call"])
        .values(unfinished_count=CALLS.c.unfinished_count - given["done"], finished_at=later)
    )


def _known_calls(connection: Connection, call_ids: set[str]) -> set[str]:
    return {row[0] for row in present(connection, sa.select(CALLS.c.call_id), CALLS.c.call_id, call_ids)}


def _taken(connection: Connection, keys: list[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those that have an output. Most calls have a first input only, and of these it is cheaper to ask; a call that has
    many outputs here is asked for by itself, for pairs are dear: of one call's 100,000 they took half the time."""
    first: list[str] = []
    later: dict[str, list[int]] = {}
    for call_id, index in keys:
        if index == 0:
            first.append(call_id)
        else:
            later.setdefault(call_id, []).append(index)
    is_first = sa.select(OUTPUTS.c.call_id).where(OUTPUTS.c.input_index == 0)
    taken = {(row[0], 0) for row in present(connection, is_first, OUTPUTS.c.call_id, first)}
    pairs: list[tuple[str, int]] = []
    for call_id, indexes in later.items():
        if len(indexes) < BY_ITSELF_MIN:
            pairs += [(call_id, index) for index in indexes]
            continue
        of_call = sa.select(OUTPUTS.c.input_index).where(OUTPUTS.c.call_id == call_id)
        taken.update((call_id, row[0]) for row in present(connection, of_call, OUTPUTS.c.input_index, indexes))
    key = (OUTPUTS.c.call_id, OUTPUTS.c.input_index)
    taken.update((row[0], row[1]) for row in present_together(connection, sa.select(*key), key, pairs))
    return taken


def get_calls(connection: Connection, call_ids: Sequence[str]) -> tuple[StoredCall, ...]:
    """See `Store`."""
    found: list[StoredCall] = []
    for some in batches(list(call_ids)):
        query = sa.select(*sql_portions.CALL_COLUMNS).where(CALLS.c.call_id.in_(some))
        found += [StoredCall(**row) for row in connection.execute(query).mappings()]
    return tuple(found)


def get_call(connection: Connection, call_id: str) -> StoredCall:
    """See `Store`."""
    row = connection.execute(sa.select(*sql_portions.CALL_COLUMNS).where(CALLS.c.call_id == call_id)).mappings().first()
    if row is None:
        raise PlatformError(NOT_FOUND, f"no call {call_id}: it never was, or its outputs have expired")
    return StoredCall(**row)


def unfinished_counts(connection: Connection) -> dict[str, int]:
    """See `Store`."""
    count = sa.func.sum(CALLS.c.unfinished_count)
    query = sa.select(CALLS.c.function_id, count).where(CALLS.c.unfinished_count > 0).group_by(CALLS.c.function_id)
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def get_output(connection: Connection, call_id: str, index: int) -> StoredOutput | None:
    """See `Store`."""
    is_it = (OUTPUTS.c.call_id == call_id) & (OUTPUTS.c.input_index == index)
    row = connection.execute(sa.select(OUTPUTS).where(is_it)).first()
    if row is None:
        get_call(connection, call_id)
        return None
    return StoredOutput(*row)


def first_outputs(connection: Connection, call_ids: Sequence[str], bytes_max: int) -> tuple[StoredOutput, ...]:
    """See `Store`."""
    found: list[StoredOutput] = []
    size_bytes = 0
    for some in batches(list(call_ids)):
        query = sa.select(OUTPUTS).where(OUTPUTS.c.call_id.in_(some) & (OUTPUTS.c.input_index == 0))
        with connection.execute(query, execution_options={"yield_per": READ_ROWS}) as rows:
            for row in rows:
                if size_bytes >= bytes_max:
                    return tuple(found)
                found.append(StoredOutput(*row))
                size_bytes += len(row.value)
    return tuple(found)


def read_outputs(
    connection: Connection, call_id: str, first: int, count: int, bytes_max: int
) -> tuple[StoredOutput, ...]:
    """See `Store`."""
    is_it = (OUTPUTS.c.call_id == call_id) & (OUTPUTS.c.input_index >= first) & (OUTPUTS.c.input_index < first + count)
    # As few rows in memory as are wanted: any of them may have a megabyte.
    query = sa.select(OUTPUTS).where(is_it).order_by(OUTPUTS.c.input_index)
    found: list[StoredOutput] = []
    size_bytes = 0
    with connection.execute(query, execution_options={"yield_per": READ_ROWS}) as rows:
        for row in rows:
            if row.input_index != first + len(found) or size_bytes >= bytes_max:
                break
            found.append(StoredOutput(*row))
            size_bytes += len(row.value)
    if not found:
        get_call(connection, call_id)
    return tuple(found)


def output_statuses(connection: Connection, call_id: str, limit: int) -> dict[int, int]:
    """See `Store`."""
    query = (
        sa.select(OUTPUTS.c.input_index, OUTPUTS.c.status)
        .where((OUTPUTS.c.call_id == call_id) & (OUTPUTS.c.input_index < limit))
        .order_by(OUTPUTS.c.input_index)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def expire_some(connection: Connection, befores: Sequence[float]) -> list[tuple[int, bool]]:
    """Part of `Store.expire`: forget a bounded number of calls, or part of a large one; how many are gone, and whether
    there may be more."""
    return [_expire_some(connection, before) for before in befores]


def _expire_some(connection: Connection, before: float) -> tuple[int, bool]:
    is_old = (CALLS.c.unfinished_count <= 0) & (CALLS.c.finished_at < before)
    query = sa.select(CALLS.c.call_id, CALLS.c.input_count).where(is_old).limit(EXPIRE_CALLS_MAX)
    counts = [(row[0], row[1]) for row in connection.execute(query)]
    if not counts:
        return 0, False
    some = next(within(counts, [input_count for _, input_count in counts], EXPIRE_CALLS_MAX, EXPIRE_ROWS_MAX))
    call_id, input_count = some[0]
    is_large = input_count > EXPIRE_ROWS_MAX
    call_ids = [call_id]
    if not is_large:
        sizes = _sizes(connection, [one for one, _ in some])
        is_large = sizes[call_id] > EXPIRE_BYTES_MAX
        call_ids = next(within(list(sizes), list(sizes.values()), EXPIRE_CALLS_MAX, EXPIRE_BYTES_MAX))
    if is_large:
        # One that would still grow takes no more: its first outputs go now.
        connection.execute(sa.update(CALLS).where(CALLS.c.call_id == call_id).values(is_growing=False))
    if is_large and _forget_inputs(connection, call_id):
        return 0, True
    for table in (OUTPUTS, PORTIONS, CALLS):
        connection.execute(sa.delete(table).where(table.c.call_id.in_(call_ids)))
    return len(call_ids), True


def _sizes(connection: Connection, call_ids: list[str]) -> dict[str, int]:
    """How many bytes the values of these calls have."""
    sizes = dict.fromkeys(call_ids, 0)
    for table in (OUTPUTS, PORTIONS):
        query = sa.select(table.c.call_id, sa.func.sum(sa.func.length(table.c.value)))
        for call_id, size in connection.execute(query.where(table.c.call_id.in_(call_ids)).group_by(table.c.call_id)):
            sizes[call_id] += int(size)
    return sizes


def _forget_inputs(connection: Connection, call_id: str) -> bool:
    """Forget the first outputs, or else portions, of a call that is done; whether there were any."""
    for table, index in ((OUTPUTS, OUTPUTS.c.input_index), (PORTIONS, PORTIONS.c.first_index)):
        is_of_call = table.c.call_id == call_id
        query = sa.select(index, sa.func.length(table.c.value)).where(is_of_call).order_by(index).limit(EXPIRE_ROWS_MAX)
        rows = [(row[0], row[1]) for row in connection.execute(query)]
        for some in within(rows, [size for _, size in rows], EXPIRE_ROWS_MAX, EXPIRE_BYTES_MAX):
            connection.execute(sa.delete(table).where(is_of_call & (index <= some[-1][0])))
            return True
    return False


def live_blobs(connection: Connection) -> set[str]:
    """Blobs that inputs and outputs name."""
    query = sa.select(OUTPUTS.c.blob_sha256).where(OUTPUTS.c.blob_sha256 != "").distinct()
    return {*connection.execute(query).scalars(), *sql_portions.live_blobs(connection)}


def _call_row(call: StoredCall, input_count: int) -> dict[str, Any]:
    row = {name: getattr(call, name) for name in StoredCall.__slots__}
    return {**row, "unfinished_count": input_count, "finished_at": call.created_at}


def _output_row(output: StoredOutput) -> dict[str, Any]:
    return {
        "call_id": output.call_id,
        "input_index": output.index,
        "status": output.status,
        "value": output.value,
        "blob_sha256": output.blob_sha256,
        "attempt": output.attempt,
        "run_us": output.run_us,
        "finished_at": output.finished_at,
        "queued_at": output.queued_at,
        "container_id": output.container_id,
    }
