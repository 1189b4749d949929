"""What is in queues, in the database.

Items are rows in the order of their numbers. Those that are taken out leave the table and become the answer of the
request that took them, in one row, with what is needed to put them back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.asset import QUEUE
from squall.protocol.errors import CONFLICT, EXHAUSTED, PlatformError
from squall.protocol.queue import PARTITION_BYTES_MAX, PARTITION_ITEMS_MAX, PARTITIONS_MAX, unpack
from squall.server.model.queue import PartitionKey, QueueCounts, QueueTaking, QueueWrite
from squall.server.store import sql_answers, sql_assets
from squall.server.store.database import Database
from squall.server.store.many import insert_rows
from squall.server.store.schema import ASSETS, QUEUE_ITEMS, QUEUE_PARTITIONS, QUEUES
from squall.server.store.sql_answers import Answer, Asked
from squall.server.store.upsert import upsert

_ITEMS, _PARTITIONS = QUEUE_ITEMS.c, QUEUE_PARTITIONS.c


class _Clearing(NamedTuple):
    queue_id: str
    partition: bytes | None
    request_id: str
    now: float


class SqlQueues:
    """See `QueueStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, write: QueueWrite) -> bool:
        """See `QueueStore`."""
        size_bytes = sum(map(len, write.values))
        self._database.check_room(f"cannot put items into {write.place.queue_id}", size_bytes)
        is_put: bool = await self._database.write(_put, write)
        return is_put

    async def take(self, taking: QueueTaking) -> tuple[bytes, ...]:
        """See `QueueStore`."""
        taken: tuple[bytes, ...] = await self._database.write(_take, taking)
        return taken

    async def give_back(self, queue_id: str, request_id: str) -> bytes | None:
        """See `QueueStore`."""
        partition: bytes | None = await self._database.write(_give_back, Asked(queue_id, request_id))
        return partition

    async def read(
        self, place: PartitionKey, after: int, limit: int, bytes_max: int, now: float
    ) -> tuple[tuple[int, bytes], ...]:
        """See `QueueStore`."""
        return await self._database.read(lambda connection: _read(connection, place, after, limit, bytes_max, now))

    async def count(self, queue_id: str, partition: bytes | None, now: float) -> QueueCounts:
        """See `QueueStore`."""
        counted = (sa.func.sum(_PARTITIONS.item_count), sa.func.sum(_PARTITIONS.size_bytes), sa.func.count())
        is_it = _PARTITIONS.queue_id == sql_assets.content_of(queue_id)
        query = sa.select(*counted).where(is_it, _PARTITIONS.expires_at > now)
        if partition is not None:
            query = query.where(_PARTITIONS.partition == partition)
        found = await self._database.read(lambda connection: connection.execute(query).one())
        return QueueCounts(*(int(one or 0) for one in found))

    async def totals(self, queue_ids: Sequence[str], now: float) -> dict[str, QueueCounts]:
        """See `QueueStore`."""
        counted = (sa.func.sum(_PARTITIONS.item_count), sa.func.sum(_PARTITIONS.size_bytes), sa.func.count())
        query = sa.select(ASSETS.c.asset_id, *counted).join_from(
            ASSETS, QUEUE_PARTITIONS, _PARTITIONS.queue_id == ASSETS.c.content_id
        )
        query = query.where(ASSETS.c.asset_id.in_(queue_ids), _PARTITIONS.expires_at > now)
        query = query.group_by(ASSETS.c.asset_id)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return {row[0]: QueueCounts(*map(int, row[1:])) for row in rows}

    async def clear(self, queue_id: str, partition: bytes | None, request_id: str, now: float) -> None:
        """See `QueueStore`."""
        await self._database.write(_clear, _Clearing(queue_id, partition, request_id, now))

    async def expire(self, now: float, limit: int) -> int:
        """See `QueueStore`."""
        count: int = await self._database.write(_expire, (now, limit))
        return count


def _is_partition(table: Any, place: PartitionKey) -> sa.ColumnElement[bool]:
    found: sa.ColumnElement[bool] = (table.queue_id == place.queue_id) & (table.partition == place.partition)
    return found


# Putting


def _put(connection: Connection, writes: Sequence[QueueWrite]) -> list[bool | PlatformError]:
    contents = sql_assets.contents(connection, {write.place.queue_id for write in writes})
    return [
        _put_one(connection, write.place._replace(queue_id=contents[write.place.queue_id]), write)
        if write.place.queue_id in contents
        else sql_assets.missing(write.place.queue_id)
        for write in writes
    ]


def _put_one(connection: Connection, place: PartitionKey, write: QueueWrite) -> bool | PlatformError:
    queue_id = write.place.queue_id
    asked = Asked(queue_id, write.request_id)
    if sql_answers.answered(connection, [asked]):
        return True
    sql_answers.forget(connection, [Asked(queue_id, request_id) for request_id in write.done])
    there = connection.execute(sa.select(QUEUE_PARTITIONS).where(_is_partition(_PARTITIONS, place))).first()
    if there is None and not _count_partition(connection, place.queue_id):
        many = f"{queue_id} has {PARTITIONS_MAX:,} partitions, and no more can be; use fewer keys"
        return PlatformError(EXHAUSTED, f"QueuePut: {many}")
    # Numbers go on where those of a partition of the same key ended that is forgotten: who reads goes on after one.
    number, item_count, size_bytes = int(write.now * 1_000_000), 0, 0
    if there is not None:
        number = there.next_number
        if there.expires_at <= write.now:
            connection.execute(sa.delete(QUEUE_ITEMS).where(_is_partition(_ITEMS, place)))
        else:
            item_count, size_bytes = there.item_count, there.size_bytes
    item_count += len(write.values)
    size_bytes += sum(map(len, write.values))
    if item_count > PARTITION_ITEMS_MAX or size_bytes > PARTITION_BYTES_MAX:
        return False
    keys = {"queue_id": place.queue_id, "partition": place.partition}
    rows = [{**keys, "number": number + after, "value": value} for after, value in enumerate(write.values)]
    insert_rows(connection, QUEUE_ITEMS, rows)
    counts = {"item_count": item_count, "size_bytes": size_bytes, "expires_at": write.expires_at}
    upsert(connection, QUEUE_PARTITIONS, [{**keys, "next_number": number + len(rows), **counts}])
    sql_answers.remember(connection, {asked: Answer()}, write.now)
    return True


def _count_partition(connection: Connection, queue_id: str) -> bool:
    """Count one more; whether there may be one."""
    is_it = QUEUES.c.queue_id == queue_id
    count = connection.execute(sa.select(QUEUES.c.partition_count).where(is_it)).scalar() or 0
    if count >= PARTITIONS_MAX:
        return False
    upsert(connection, QUEUES, [{"queue_id": queue_id, "partition_count": count + 1}])
    return True


# Taking


def _take(connection: Connection, takings: Sequence[QueueTaking]) -> list[tuple[bytes, ...] | PlatformError]:
    contents = sql_assets.contents(connection, {taking.place.queue_id for taking in takings})
    return [
        _take_one(connection, taking.place._replace(queue_id=contents[taking.place.queue_id]), taking)
        if taking.place.queue_id in contents
        else sql_assets.missing(taking.place.queue_id)
        for taking in takings
    ]


def _take_one(connection: Connection, place: PartitionKey, taking: QueueTaking) -> tuple[bytes, ...] | PlatformError:
    queue_id = taking.place.queue_id
    asked = Asked(queue_id, taking.request_id)
    before = sql_answers.answered(connection, [asked]).get(asked)
    if before is not None and not before.key:
        return PlatformError(CONFLICT, f"QueueGet: request {taking.request_id} was for something else; use a new one")
    if before is not None:
        return tuple(unpack(tuple(json.loads(before.key)["sizes"]), before.value))
    sql_answers.forget(connection, [Asked(queue_id, request_id) for request_id in taking.done])
    items = _first(connection, place, -1, taking.count, taking.bytes_max, taking.now)
    if not items:
        return ()
    is_it = _is_partition(_ITEMS, place) & (_ITEMS.number <= items[-1][0])
    connection.execute(sa.delete(QUEUE_ITEMS).where(is_it))
    _add_counts(connection, place, -len(items), -sum(len(value) for _, value in items))
    taken = {
        "partition": place.partition.hex(),
        "numbers": [number for number, _ in items],
        "sizes": [len(value) for _, value in items],
    }
    answer = Answer(json.dumps(taken).encode(), b"".join(value for _, value in items))
    sql_answers.remember(connection, {asked: answer}, taking.now)
    return tuple(value for _, value in items)


def _first(
    connection: Connection, place: PartitionKey, after: int, limit: int, bytes_max: int, now: float
) -> list[tuple[int, bytes]]:
    """The first items after one, of `bytes_max` together, or one."""
    there = connection.execute(sa.select(QUEUE_PARTITIONS).where(_is_partition(_PARTITIONS, place))).first()
    if there is None or there.expires_at <= now or not there.item_count:
        return []
    those = _is_partition(_ITEMS, place) & (_ITEMS.number > after)
    if there.size_bytes > bytes_max:
        # Sizes first: both drivers may fetch all rows of an answer at once.
        sizes = sa.select(_ITEMS.number, sa.func.length(_ITEMS.value).label("size_bytes")).where(those)
        total_bytes, count = 0, 0
        for row in connection.execute(sizes.order_by(_ITEMS.number).limit(limit)).all():
            total_bytes += row.size_bytes
            if count and total_bytes > bytes_max:
                break
            count += 1
        limit = count
    query = sa.select(_ITEMS.number, _ITEMS.value).where(those).order_by(_ITEMS.number).limit(limit)
    return [(row.number, bytes(row.value)) for row in connection.execute(query)]


def _add_counts(connection: Connection, place: PartitionKey, item_count: int, size_bytes: int) -> int:
    changed = {
        "item_count": _PARTITIONS.item_count + item_count,
        "size_bytes": _PARTITIONS.size_bytes + size_bytes,
    }
    is_it = _is_partition(_PARTITIONS, place)
    return connection.execute(sa.update(QUEUE_PARTITIONS).where(is_it).values(changed)).rowcount


def _give_back(connection: Connection, requests: Sequence[Asked]) -> list[bytes | None]:
    return [_give_back_one(connection, asked) for asked in requests]


def _give_back_one(connection: Connection, asked: Asked) -> bytes | None:
    answer = sql_answers.answered(connection, [asked]).get(asked)
    if answer is None or not answer.key:
        return None
    sql_answers.forget(connection, [asked])
    taken = json.loads(answer.key)
    content_id = sql_assets.contents(connection, {asked.asset_id}).get(asked.asset_id, "")
    place = PartitionKey(content_id, bytes.fromhex(taken["partition"]))
    if not _add_counts(connection, place, len(taken["sizes"]), len(answer.value)):
        return None  # the partition is forgotten, or all were cleared
    keys = {"queue_id": place.queue_id, "partition": place.partition}
    values = unpack(tuple(taken["sizes"]), answer.value)
    numbered = zip(taken["numbers"], values, strict=True)
    insert_rows(connection, QUEUE_ITEMS, [{**keys, "number": number, "value": value} for number, value in numbered])
    return place.partition


# The rest


def _read(
    connection: Connection, place: PartitionKey, after: int, limit: int, bytes_max: int, now: float
) -> tuple[tuple[int, bytes], ...]:
    content_id = sql_assets.contents(connection, {place.queue_id}).get(place.queue_id)
    if content_id is None:
        return ()
    return tuple(_first(connection, place._replace(queue_id=content_id), after, limit, bytes_max, now))


def _clear(connection: Connection, requests: Sequence[_Clearing]) -> list[PlatformError | None]:
    return [_clear_one(connection, one) for one in requests]


def _clear_one(connection: Connection, one: _Clearing) -> PlatformError | None:
    asked = Asked(one.queue_id, one.request_id)
    content_id = sql_assets.contents(connection, {one.queue_id}).get(one.queue_id)
    if content_id is None:
        return sql_assets.missing(one.queue_id)
    if not sql_answers.answered(connection, [asked]):
        if one.partition is None:
            sql_assets.clear(connection, QUEUE, one.queue_id, content_id)
        else:
            _empty(connection, PartitionKey(content_id, one.partition))
        sql_answers.remember(connection, {asked: Answer()}, one.now)
    return None


def _empty(connection: Connection, place: PartitionKey) -> None:
    connection.execute(sa.delete(QUEUE_ITEMS).where(_is_partition(_ITEMS, place)))
    # The row stays, for its numbers.
    emptied = {"item_count": 0, "size_bytes": 0}
    connection.execute(sa.update(QUEUE_PARTITIONS).where(_is_partition(_PARTITIONS, place)).values(emptied))


def _expire(connection: Connection, requests: Sequence[tuple[float, int]]) -> list[int]:
    return [_expire_some(connection, now, limit) for now, limit in requests]


def _expire_some(connection: Connection, now: float, limit: int) -> int:
    query = sa.select(_PARTITIONS.queue_id, _PARTITIONS.partition).where(_PARTITIONS.expires_at <= now).limit(limit)
    gone = [PartitionKey(row.queue_id, bytes(row.partition)) for row in connection.execute(query)]
    for place in gone:
        connection.execute(sa.delete(QUEUE_ITEMS).where(_is_partition(_ITEMS, place)))
        connection.execute(sa.delete(QUEUE_PARTITIONS).where(_is_partition(_PARTITIONS, place)))
        one_less = {"partition_count": QUEUES.c.partition_count - 1}
        connection.execute(sa.update(QUEUES).where(QUEUES.c.queue_id == place.queue_id).values(one_less))
    return len(gone)
