"""What is in queues, in memory, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from squall.protocol.errors import CONFLICT, EXHAUSTED, NOT_FOUND, PlatformError
from squall.protocol.queue import PARTITION_BYTES_MAX, PARTITION_ITEMS_MAX, PARTITIONS_MAX
from squall.server.model.queue import PartitionKey, QueueCounts, QueueTaking, QueueWrite
from squall.server.store.memory_assets import MemoryAssets


@dataclass(slots=True)
class _Partition:
    next_number: int
    expires_at: float
    items: dict[int, bytes] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.items.values()))


_Taken = tuple[PartitionKey, dict[int, bytes]]


class MemoryQueues:
    """See `QueueStore`."""

    def __init__(self, assets: MemoryAssets) -> None:
        self._assets = assets
        assets.on_purge.append(self._purge)
        self._partitions: dict[PartitionKey, _Partition] = {}
        self._answers: dict[tuple[str, str], _Taken | None] = {}

    async def _check(self, queue_id: str) -> None:
        if await self._assets.get(queue_id) is None:
            raise PlatformError(NOT_FOUND, f"there is no {queue_id}; it was deleted")

    def _forget(self, queue_id: str, done: tuple[str, ...]) -> None:
        for request_id in done:
            self._answers.pop((queue_id, request_id), None)

    def _living(self, place: PartitionKey, now: float) -> _Partition | None:
        partition = self._partitions.get(place)
        return partition if partition is not None and partition.expires_at > now else None

    async def put(self, write: QueueWrite) -> bool:
        """See `QueueStore`."""
        queue_id, asked = write.place.queue_id, (write.place.queue_id, write.request_id)
        await self._check(queue_id)
        if asked in self._answers:
            return True
        self._forget(queue_id, write.done)
        if write.place not in self._partitions and self._count(queue_id) >= PARTITIONS_MAX:
            raise PlatformError(EXHAUSTED, f"QueuePut: {queue_id} has {PARTITIONS_MAX:,} partitions")
        first = int(write.now * 1_000_000)
        partition = self._partitions.get(write.place) or _Partition(first, write.expires_at)
        items = partition.items if partition.expires_at > write.now else {}
        items = {**items, **{partition.next_number + place: value for place, value in enumerate(write.values)}}
        if len(items) > PARTITION_ITEMS_MAX or sum(map(len, items.values())) > PARTITION_BYTES_MAX:
            return False
        self._partitions[write.place] = _Partition(partition.next_number + len(write.values), write.expires_at, items)
        self._answers[asked] = None
        return True

    def _count(self, queue_id: str) -> int:
        return sum(place.queue_id == queue_id for place in self._partitions)

    async def take(self, taking: QueueTaking) -> tuple[bytes, ...]:
        """See `QueueStore`."""
        asked = taking.place.queue_id, taking.request_id
        await self._check(taking.place.queue_id)
        before = self._answers.get(asked)
        if before is None and asked in self._answers:
            raise PlatformError(
                CONFLICT, f"QueueGet: request {taking.request_id} was for something else; use a new one"
            )
        if before is not None:
            return tuple(before[1].values())
        self._forget(taking.place.queue_id, taking.done)
        items = await self.read(taking.place, -1, taking.count, taking.bytes_max, taking.now)
        if items:
            partition = self._partitions[taking.place]
            for number, _ in items:
                del partition.items[number]
            self._answers[asked] = taking.place, dict(items)
        return tuple(value for _, value in items)

    async def give_back(self, queue_id: str, request_id: str) -> bytes | None:
        """See `QueueStore`."""
        taken = self._answers.get((queue_id, request_id))
        if taken is None:
            return None
        del self._answers[queue_id, request_id]
        place, items = taken
        if place not in self._partitions:
            return None
        partition = self._partitions[place]
        partition.items = dict(sorted({**items, **partition.items}.items()))
        return place.partition

    async def read(
        self, place: PartitionKey, after: int, limit: int, bytes_max: int, now: float
    ) -> tuple[tuple[int, bytes], ...]:
        """See `QueueStore`."""
        partition = self._living(place, now)
        found: list[tuple[int, bytes]] = []
        for number, value in partition.items.items() if partition is not None else ():
            bytes_max -= len(value) if number > after else 0
            if len(found) == limit or (found and bytes_max < 0):
                break
            if number > after:
                found.append((number, value))
        return tuple(found)

    async def count(self, queue_id: str, partition: bytes | None, now: float) -> QueueCounts:
        """See `QueueStore`."""
        found = [
            one
            for place, one in self._partitions.items()
            if place.queue_id == queue_id and partition in (None, place.partition) and one.expires_at > now
        ]
        return QueueCounts(sum(len(one.items) for one in found), sum(one.size_bytes for one in found), len(found))

    async def totals(self, queue_ids: Sequence[str], now: float) -> dict[str, QueueCounts]:
        """See `QueueStore`."""
        counts = {one: await self.count(one, None, now) for one in queue_ids}
        return {one: found for one, found in counts.items() if found.partition_count}

    async def clear(self, queue_id: str, partition: bytes | None, request_id: str, now: float) -> None:
        """See `QueueStore`."""
        await self._check(queue_id)
        if (queue_id, request_id) in self._answers:
            return
        if partition is None:
            self._partitions = {place: one for place, one in self._partitions.items() if place.queue_id != queue_id}
        elif PartitionKey(queue_id, partition) in self._partitions:
            self._partitions[PartitionKey(queue_id, partition)].items = {}
        self._answers[queue_id, request_id] = None

    async def expire(self, now: float, limit: int) -> int:
        """See `QueueStore`."""
        gone = [place for place, one in self._partitions.items() if one.expires_at <= now][:limit]
        for place in gone:
            del self._partitions[place]
        return len(gone)

    def _purge(self, asset_id: str) -> None:
        self._partitions = {place: one for place, one in self._partitions.items() if place.queue_id != asset_id}
        self._answers = {asked: one for asked, one in self._answers.items() if asked[0] != asset_id}
