"""Queues: what is put into them and taken out, and who waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from squall.protocol.asset import QUEUE
from squall.protocol.empty import Empty
from squall.protocol.errors import INVALID, NOT_FOUND, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.queue import (
    DONE_MAX,
    ITEM_BYTES_MAX,
    PARTITION_ITEMS_MAX,
    PARTITION_KEY_BYTES_MAX,
    PARTITION_TTL_S_MAX,
    PUT_BYTES,
    PUT_ITEMS_MAX,
    TOTALS_MAX,
    WAIT_MAX_S,
    QueueClear,
    QueueCount,
    QueueCountGet,
    QueueGet,
    QueueGiveBack,
    QueueItems,
    QueuePage,
    QueuePut,
    QueuePutDone,
    QueueRead,
    QueueTotals,
    QueueTotalsGet,
    pack,
    unpack,
)
from squall.protocol.task_set import going_on
from squall.server.dispatch.asset.lines import Line, News
from squall.server.dispatch.clock import AgeClock
from squall.server.model.queue import PartitionKey, QueueCounts, QueueTaking, QueueWrite

if TYPE_CHECKING:
    from squall.protocol.task_set import TaskSet
    from squall.server.dispatch.asset.assets import Assets
    from squall.server.dispatch.client.callers import Caller
    from squall.server.model.clock import Clock, Timer
    from squall.server.model.store import Store

R = TypeVar("R")

EXPIRED_AT_ONCE = 100
"""Partitions with all their items, in one transaction."""
UNHEARD_S = 120.0
"""How long what was taken for a client that is gone waits for it to ask again; then it is put back."""
GETS_AT_ONCE = 64
READ_BYTES = 4 * 2**20

Items = tuple[bytes, ...]


class _Spot:
    """Those who wait at one partition."""

    def __init__(self, clock: Clock, tasks: TaskSet) -> None:
        self.user_count = 0
        self.gets: Line[Items] = Line((), clock, tasks, at_once=GETS_AT_ONCE)
        self.puts: Line[bool] = Line(False, clock, tasks, at_once=1)
        self.news = News(clock)


class Queues:
    """All of them; what is in them is in the store only."""

    def __init__(self, *, assets: Assets, store: Store, clock: Clock, tasks: TaskSet) -> None:
        self._assets = assets
        self._store = store.queues
        self._clock = clock
        self._age = AgeClock(clock)
        self._tasks = tasks
        self._spots: dict[str, dict[bytes, _Spot]] = {}
        """By queue and partition: where somebody waits or is about to."""
        self._unheard: dict[tuple[str, str], Timer] = {}
        """Of what was taken for somebody who was gone then."""
        self._is_tidying = False
        assets.on_deleted.append(self._deleted)

    # Methods

    async def put(self, caller: Caller, record: QueuePut, body: bytes) -> tuple[QueuePutDone, bytes]:
        """See `QueuePut`."""
        place = await self._place("QueuePut", caller, record.queue_id, record.partition)
        _check_request("QueuePut", record.request_id, record.done)
        values = _values_of(record, body)
        if not 1 <= record.partition_ttl_s <= PARTITION_TTL_S_MAX:
            message = f"partition_ttl={record.partition_ttl_s} must be from 1 to {PARTITION_TTL_S_MAX} s"
            raise PlatformError(INVALID, f"QueuePut: {message}")

        async def attempt() -> bool:
            now = self._age.now()
            expires_at = now + record.partition_ttl_s
            write = QueueWrite(place, record.request_id, values, now, expires_at, record.done)
            return await self._put(write)

        timeout_s = _timeout("QueuePut", record.timeout_s)
        with self._spot(place) as spot:
            return QueuePutDone(await spot.puts.get(attempt, timeout_s, _nothing_to_undo)), b""

    async def get(self, caller: Caller, record: QueueGet, body: bytes) -> tuple[QueueItems, bytes]:
        """See `QueueGet`."""
        place = await self._place("QueueGet", caller, record.queue_id, record.partition)
        _check_request("QueueGet", record.request_id, record.done)
        if record.count < 1:
            raise PlatformError(INVALID, f"QueueGet: count={record.count} must be from 1 up")
        timeout_s = _timeout("QueueGet", record.timeout_s)
        self._heard(record.queue_id, record.request_id)

        def unheard() -> None:
            self._not_heard(record.queue_id, record.request_id)

        async def attempt() -> Items:
            count = min(record.count, PARTITION_ITEMS_MAX)
            taking = QueueTaking(place, record.request_id, count, self._age.now(), done=record.done)
            return await self._take(taking)

        with self._spot(place) as spot:
            sizes, found = pack(await spot.gets.get(attempt, timeout_s, unheard))
        return QueueItems(sizes), found

    async def give_back(self, caller: Caller, record: QueueGiveBack, body: bytes) -> tuple[Empty, bytes]:
        """See `QueueGiveBack`."""
        await self._assets.used(caller, "QueueGiveBack", QUEUE, record.queue_id)
        _check_request("QueueGiveBack", record.request_id)
        self._heard(record.queue_id, record.request_id)
        await self._whole(self._give_back(record.queue_id, record.request_id))
        return Empty(), b""

    async def read(self, caller: Caller, record: QueueRead, body: bytes) -> tuple[QueuePage, bytes]:
        """See `QueueRead`."""
        place = await self._place("QueueRead", caller, record.queue_id, record.partition)
        if record.limit < 1:
            raise PlatformError(INVALID, f"QueueRead: limit={record.limit} must be from 1 up")
        limit = min(record.limit, PARTITION_ITEMS_MAX)
        # The store numbers from 0 up; larger numbers than it knows are none.
        after = max(-1, min(record.after, 2**63 - 1))

        async def look() -> tuple[tuple[int, bytes], ...]:
            return await self._store.read(place, after, limit, READ_BYTES, self._age.now())

        with self._spot(place) as spot:
            found = await spot.news.get(look, _timeout("QueueRead", record.timeout_s))
        sizes, values = pack([value for _, value in found])
        return QueuePage(sizes, found[-1][0] if found else after), values

    async def count(self, caller: Caller, record: QueueCountGet, body: bytes) -> tuple[QueueCount, bytes]:
        """See `QueueCountGet`."""
        place = await self._place("QueueCountGet", caller, record.queue_id, record.partition)
        partition = None if record.is_total else place.partition
        counts = await self._store.count(record.queue_id, partition, self._age.now())
        return QueueCount(counts.item_count, counts.size_bytes, counts.partition_count), b""

    async def totals(self, caller: Caller, record: QueueTotalsGet) -> QueueTotals:
        """See `QueueTotalsGet`."""
        if len(record.queue_ids) > TOTALS_MAX:
            message = f"of {len(record.queue_ids)} queues; ask for {TOTALS_MAX} at most"
            raise PlatformError(INVALID, f"QueueTotalsGet: {message}")
        found = await self._store.totals(record.queue_ids, self._age.now())
        counts = (found.get(one, QueueCounts()) for one in record.queue_ids)
        return QueueTotals(tuple(QueueCount(one.item_count, one.size_bytes, one.partition_count) for one in counts))

    async def clear(self, caller: Caller, record: QueueClear, body: bytes) -> tuple[Empty, bytes]:
        """See `QueueClear`."""
        place = await self._place("QueueClear", caller, record.queue_id, record.partition)
        _check_request("QueueClear", record.request_id)
        partition = None if record.is_all else place.partition
        await self._store.clear(record.queue_id, partition, record.request_id, self._age.now())
        if partition is None:
            self._assets.purge_soon()
        for key, spot in self._spots.get(record.queue_id, {}).items():
            if partition in (None, key):
                spot.puts.serve()
        return Empty(), b""

    async def _place(self, method: str, caller: Caller, queue_id: str, partition: str) -> PartitionKey:
        await self._assets.used(caller, method, QUEUE, queue_id)
        key = partition.encode("utf-8", "replace")
        if len(key) > PARTITION_KEY_BYTES_MAX:
            message = f"the key of a partition has {len(key)} bytes, at most {PARTITION_KEY_BYTES_MAX} it may have"
            raise PlatformError(INVALID, f"{method}: {message}")
        return PartitionKey(queue_id, key)

    # What is done for them

    @contextmanager
    def _spot(self, place: PartitionKey) -> Iterator[_Spot]:
        """Where those meet who are at one partition, for as long as one of them is there."""
        spots = self._spots.setdefault(place.queue_id, {})
        spot = spots.setdefault(place.partition, _Spot(self._clock, self._tasks))
        spot.user_count += 1
        try:
            yield spot
        finally:
            spot.user_count -= 1
            if not spot.user_count and spots.get(place.partition) is spot:
                del spots[place.partition]
                if not spots and self._spots.get(place.queue_id) is spots:
                    del self._spots[place.queue_id]

    async def _whole(self, change: Coroutine[object, object, R]) -> R:
        """A change that goes on when whoever asked is gone: the store carries it out, and others must hear of it."""
        result: R = await asyncio.shield(self._tasks.start(change))
        return result

    async def _put(self, write: QueueWrite) -> bool:
        with self._spot(write.place) as spot:
            is_put = await spot.gets.serve_with(self._store.put(write), len(write.values))
            if is_put:
                spot.news.ring()
            return is_put

    async def _take(self, taking: QueueTaking) -> Items:
        with self._spot(taking.place) as spot:
            taken = await self._store.take(taking)
            if taken:
                spot.puts.serve()
            return taken

    async def _give_back(self, queue_id: str, request_id: str) -> None:
        partition = await self._store.give_back(queue_id, request_id)
        if partition is not None:
            with self._spot(PartitionKey(queue_id, partition)) as spot:
                spot.gets.serve()
                spot.news.ring()

    def _not_heard(self, queue_id: str, request_id: str) -> None:
        """It was taken for a client that is gone: most come back, and ask again."""

        def overdue() -> None:
            self._heard(queue_id, request_id)
            self._tasks.start(self._give_back(queue_id, request_id))

        self._heard(queue_id, request_id)
        self._unheard[queue_id, request_id] = self._clock.call_later(UNHEARD_S, overdue)

    def _heard(self, queue_id: str, request_id: str) -> None:
        timer = self._unheard.pop((queue_id, request_id), None)
        if timer is not None:
            timer.cancel()

    def _deleted(self, asset_id: str) -> None:
        error = PlatformError(NOT_FOUND, f"there is no {asset_id} any more; it was deleted")
        for spot in self._spots.pop(asset_id, {}).values():
            spot.gets.fail(error)
            spot.puts.fail(error)
            spot.news.fail(error)

    # What is old

    def tidy_soon(self) -> None:
        """Forget partitions whose time is past."""
        if not self._is_tidying:
            self._is_tidying = True
            self._tasks.start(self._tidy())

    async def _tidy(self) -> None:
        try:
            with going_on("old partitions of queues are kept for now"):
                while await self._store.expire(self._age.now(), EXPIRED_AT_ONCE) == EXPIRED_AT_ONCE:
                    pass
        finally:
            self._is_tidying = False


def _nothing_to_undo() -> None:
    """What was put stays: whoever put it hears so when it asks again."""


def _values_of(record: QueuePut, body: bytes) -> Items:
    if not 1 <= len(record.sizes) <= PUT_ITEMS_MAX:
        raise PlatformError(INVALID, f"QueuePut: {len(record.sizes)} items, 1 to {PUT_ITEMS_MAX} may be")
    try:
        values = tuple(unpack(record.sizes, body))
    except ValueError as error:
        raise PlatformError(INVALID, f"QueuePut: {error}") from error
    if max(record.sizes) > ITEM_BYTES_MAX or (len(values) > 1 and len(body) > PUT_BYTES):
        message = (
            f"an item has {max(record.sizes)} bytes, all {len(body)}; {ITEM_BYTES_MAX} and {PUT_BYTES} are the most"
        )
        raise PlatformError(INVALID, f"QueuePut: {message}")
    return values


def _check_request(method: str, request_id: str, done: tuple[str, ...] = ()) -> None:
    if not is_id(request_id, "rq"):
        raise PlatformError(INVALID, f"{method}: {request_id[:80]!r} is no id of a request")
    if len(done) > DONE_MAX:
        raise PlatformError(INVALID, f"{method}: {len(done)} requests are done, at most {DONE_MAX} may be")


def _timeout(method: str, timeout_s: float) -> float:
    if not timeout_s >= 0:
        raise PlatformError(INVALID, f"{method}: timeout_s={timeout_s} must be from 0 up")
    return min(timeout_s, WAIT_MAX_S)
