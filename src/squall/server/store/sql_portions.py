"""Statements of portions: inputs of durable calls, kept as they came."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.call import IN_BLOB, cut
from squall.protocol.errors import CONFLICT, NOT_FOUND, PlatformError
from squall.server.model.store import Place, Portion, StoredCall, StoredInput, StoredOutput
from squall.server.store.batches import batches, within
from squall.server.store.many import Given, for_rows
from squall.server.store.schema import CALLS, OUTPUTS, PORTIONS

ROWS_AT_ONCE = 50

CALL_COLUMNS = tuple(CALLS.c[name] for name in StoredCall.__slots__)


class More(NamedTuple):
    """One `Store.extend_call`."""

    call_id: str
    first: int
    inputs: tuple[StoredInput, ...]
    made_at: float
    is_last: bool


def row_of(call: StoredCall, first: int, made_at: float, inputs: tuple[StoredInput, ...]) -> dict[str, Any]:
    """A portion none of whose inputs has an output."""
    return {
        "call_id": call.call_id,
        "first_index": first,
        "function_id": call.function_id,
        "made_at": made_at,
        "unfinished_count": len(inputs),
        "sizes": json.dumps([IN_BLOB if one.blob_sha256 else len(one.value) for one in inputs]),
        "blobs": json.dumps({str(one.index): one.blob_sha256 for one in inputs if one.blob_sha256}),
        "value": inputs[0].value if len(inputs) == 1 else b"".join([one.value for one in inputs]),
    }


def extend_calls(connection: Connection, writes: Sequence[More]) -> list[Portion | PlatformError]:
    """See `Store.extend_call`; several of them. One that is refused changes nothing."""
    calls = _calls(connection, sorted({more.call_id for more in writes}))
    results: list[Portion | PlatformError] = []
    for more in writes:
        try:
            results.append(_extend(connection, calls, more))
        except PlatformError as error:
            results.append(error)
    return results


def _extend(connection: Connection, calls: dict[str, StoredCall], more: More) -> Portion:
    call = calls.get(more.call_id)
    if call is None:
        raise PlatformError(NOT_FOUND, f"no call {more.call_id}: it never was, or its outputs have expired")
    if call.is_cancelled:
        raise PlatformError(CONFLICT, f"call {more.call_id} was cancelled: it takes no more inputs")
    end = more.first + len(more.inputs)
    if more.inputs and end <= call.input_count:
        is_portion = (PORTIONS.c.call_id == more.call_id) & (PORTIONS.c.first_index == more.first)
        made_at = connection.execute(sa.select(PORTIONS.c.made_at).where(is_portion)).scalar()
        if made_at is not None:
            return Portion(call, more.first, made_at, more.inputs)
    is_sealed_already = not call.is_growing and more.is_last and not more.inputs
    if more.first != call.input_count or not (call.is_growing or is_sealed_already):
        has = f"call {more.call_id} has {call.input_count} inputs" + ("" if call.is_growing else " and takes no more")
        raise PlatformError(CONFLICT, f"{has}: those from {more.first} to {end} do not follow")
    call = calls[more.call_id] = replace(call, input_count=end, is_growing=not more.is_last)
    if more.inputs:
        connection.execute(sa.insert(PORTIONS), row_of(call, more.first, more.made_at, more.inputs))
    connection.execute(
        sa.update(CALLS)
        .where(CALLS.c.call_id == more.call_id)
        .values(
            input_count=end,
            is_growing=call.is_growing,
            unfinished_count=CALLS.c.unfinished_count + len(more.inputs),
            finished_at=sa.case((CALLS.c.finished_at < more.made_at, more.made_at), else_=CALLS.c.finished_at),
        )
    )
    return Portion(call, more.first, more.made_at, more.inputs)


def _calls(connection: Connection, call_ids: Sequence[str]) -> dict[str, StoredCall]:
    found: dict[str, StoredCall] = {}
    for some in batches(call_ids):
        for row in connection.execute(sa.select(*CALL_COLUMNS).where(CALLS.c.call_id.in_(some))).mappings():
            found[row["call_id"]] = StoredCall(**row)
    return found


def count_down(connection: Connection, outputs: Collection[StoredOutput]) -> None:
    """These outputs are new: less of their portions is unfinished."""
    counts: dict[tuple[str, int], int] = {}
    by_call: dict[str, list[int]] = {}
    for output in outputs:
        if output.index == 0:
            # Whose portion it is needs no look: of calls of one input, nearly all, none does.
            counts[output.call_id, 0] = counts.get((output.call_id, 0), 0) + 1
        else:
            by_call.setdefault(output.call_id, []).append(output.index)
    for call_id, indexes in by_call.items():
        firsts = _firsts(connection, call_id, min(indexes), max(indexes))
        for index in indexes:
            key = call_id, firsts[bisect_right(firsts, index) - 1]
            counts[key] = counts.get(key, 0) + 1
    rows = [{"of_call": call_id, "from_index": first, "done": done} for (call_id, first), done in counts.items()]
    for_rows(
        connection, _counted_down, {"of_call": sa.String(), "from_index": sa.Integer(), "done": sa.Integer()}, rows
    )


def _counted_down(given: Given) -> sa.Update:
    return (
        sa.update(PORTIONS)
        .where((PORTIONS.c.call_id == given["of_call"]) & (PORTIONS.c.first_index == given["from_index"]))
        .values(unfinished_count=PORTIONS.c.unfinished_count - given["done"])
    )


def _firsts(connection: Connection, call_id: str, lowest: int, highest: int) -> list[int]:
    """Where the portions begin that these indexes, and all between them, are in."""
    is_of_call = PORTIONS.c.call_id == call_id
    start = sa.select(sa.func.max(PORTIONS.c.first_index)).where(is_of_call & (PORTIONS.c.first_index <= lowest))
    is_it = is_of_call & (PORTIONS.c.first_index >= start.scalar_subquery()) & (PORTIONS.c.first_index <= highest)
    query = sa.select(PORTIONS.c.first_index).where(is_it).order_by(PORTIONS.c.first_index)
    return list(connection.execute(query).scalars())


def unfinished_inputs(
    connection: Connection, function_id: str, after: Place, limit: int, bytes_max: int
) -> tuple[Portion, ...]:
    """See `Store`."""
    found: list[Portion] = []
    rows = _waiting(connection, function_id, after, limit)
    calls = _calls(connection, sorted({row["call_id"] for row in rows}))
    # What is done of a portion is read with it, so that some of what its row has may be for nothing.
    for some in within(rows, [row["size_bytes"] for row in rows], ROWS_AT_ONCE, bytes_max):
        keys = [(row["call_id"], row["first_index"]) for row in some]
        is_it = sa.tuple_(PORTIONS.c.call_id, PORTIONS.c.first_index).in_(keys)
        columns = (PORTIONS.c.call_id, PORTIONS.c.first_index, PORTIONS.c.sizes, PORTIONS.c.blobs, PORTIONS.c.value)
        values = {(row[0], row[1]): row for row in connection.execute(sa.select(*columns).where(is_it))}
        for row, key in zip(some, keys, strict=True):
            _, first, sizes, blobs, value = values[key]
            inputs = tuple(inputs_of(key[0], first, sizes, blobs, value))
            if row["unfinished_count"] < len(inputs):
                done = _done(connection, key[0], first, first + len(inputs))
                inputs = tuple(one for one in inputs if one.index not in done)
            found.append(Portion(calls[key[0]], first, row["made_at"], inputs))
            bytes_max -= found[-1].size_bytes
            if bytes_max <= 0:
                return tuple(found)
    return tuple(found)


def _waiting(connection: Connection, function_id: str, after: Place, limit: int) -> list[dict[str, Any]]:
    """Which portions come next, without their inputs."""
    made_at, call_id, first = after
    place = sa.tuple_(PORTIONS.c.made_at, PORTIONS.c.call_id, PORTIONS.c.first_index)
    names = (PORTIONS.c.call_id, PORTIONS.c.first_index, PORTIONS.c.made_at, PORTIONS.c.unfinished_count)
    query = (
        sa.select(*names, sa.func.length(PORTIONS.c.value).label("size_bytes"))
        # Said twice, for the sake of the index: not every database sees from the tuple where to begin.
        .where((PORTIONS.c.function_id == function_id) & (PORTIONS.c.unfinished_count > 0))
        .where((PORTIONS.c.made_at >= made_at) & (place > sa.tuple_(made_at, call_id, first)))
        .order_by(PORTIONS.c.made_at, PORTIONS.c.call_id, PORTIONS.c.first_index)
        .limit(limit)
    )
    found: list[dict[str, Any]] = []
    for row in connection.execute(query).mappings():
        if limit <= 0:
            break
        limit -= row["unfinished_count"]
        found.append(dict(row))
    return found


def inputs_of(call_id: str, first: int, sizes: str, blobs: str, value: bytes) -> Iterator[StoredInput]:
    """The inputs of a portion's row."""
    named: dict[str, str] = json.loads(blobs)
    for index, one in enumerate(cut(bytes(value), tuple(json.loads(sizes))), first):
        yield StoredInput(call_id, index, one, named.get(str(index), "") if named else "")


def _done(connection: Connection, call_id: str, first: int, end: int) -> set[int]:
    is_it = (OUTPUTS.c.call_id == call_id) & (OUTPUTS.c.input_index >= first) & (OUTPUTS.c.input_index < end)
    return set(connection.execute(sa.select(OUTPUTS.c.input_index).where(is_it)).scalars())


def unfinished_indexes(connection: Connection, call_id: str, first: int, limit: int) -> tuple[int, ...]:
    """See `Store`."""
    columns = (PORTIONS.c.first_index, PORTIONS.c.sizes)
    of_call = (PORTIONS.c.call_id == call_id) & (PORTIONS.c.unfinished_count > 0)
    query = sa.select(*columns).where(of_call).order_by(PORTIONS.c.first_index)
    found: list[int] = []
    with connection.execute(query, execution_options={"yield_per": 50}) as rows:
        for begins, sizes in rows:
            end = begins + len(json.loads(sizes))
            if end > first:
                done = _done(connection, call_id, begins, end)
                found += [index for index in range(max(begins, first), end) if index not in done]
            if len(found) >= limit:
                break
    return tuple(found[:limit])


def live_blobs(connection: Connection) -> set[str]:
    """Blobs that inputs name."""
    query = sa.select(PORTIONS.c.blobs).where(PORTIONS.c.blobs != "{}")
    return {sha256 for blobs in connection.execute(query).scalars() for sha256 in json.loads(blobs).values()}
