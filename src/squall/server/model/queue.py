"""What is remembered of queues, and the contract of whatever remembers it. Invariants as in `model/store.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class PartitionKey(NamedTuple):
    """A partition: of which queue, and its key in UTF-8, empty of the one that has none."""

    queue_id: str
    partition: bytes


@dataclass(frozen=True, slots=True)
class QueueWrite:
    """Items to be appended, all of them or none."""

    place: PartitionKey
    request_id: str
    values: tuple[bytes, ...]
    now: float
    expires_at: float
    """When the partition is to be cleared, unless more is put."""
    done: tuple[str, ...] = ()
    """Requests whose answers need not be remembered any more."""


@dataclass(frozen=True, slots=True)
class QueueTaking:
    """Items to be taken out."""

    place: PartitionKey
    request_id: str
    count: int
    now: float
    bytes_max: int = 16 * 2**20
    """They end before the one that makes them larger; the first one counts, however large."""
    done: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How much there is."""

    item_count: int = 0
    size_bytes: int = 0
    partition_count: int = 0


class QueueStore(Protocol):
    """What is in queues. Raises as `Store`; whoever changes a queue that is not there (any more) hears `not_found`.

    What was put into a partition is gone when the time is past that its last put gave it. What a request has done is
    remembered under its id, and is not done again.
    """

    async def put(self, write: QueueWrite) -> bool:
        """Append items; whether they are there now, or were put before by the same request: False when it is full.

        Raises PlatformError `exhausted` when the queue has too many partitions.
        """

    async def take(self, taking: QueueTaking) -> tuple[bytes, ...]:
        """Take the first items out; those that the same request took before, if it did."""

    async def give_back(self, queue_id: str, request_id: str) -> bytes | None:
        """Put back what a request took, where it was; the partition that it is in, or None when there is nothing."""

    async def read(
        self, place: PartitionKey, after: int, limit: int, bytes_max: int, now: float
    ) -> tuple[tuple[int, bytes], ...]:
        """The first items after one, with their numbers. They end with the one that makes them `bytes_max` or more."""

    async def count(self, queue_id: str, partition: bytes | None, now: float) -> QueueCounts:
        """How much is in a partition, or in all of them."""

    async def totals(self, queue_ids: Sequence[str], now: float) -> dict[str, QueueCounts]:
        """How much is in all partitions of each of these queues; those with none are left out."""

    async def clear(self, queue_id: str, partition: bytes | None, request_id: str, now: float) -> None:
        """Remove the items of a partition, or of all."""

    async def expire(self, now: float, limit: int) -> int:
        """Forget partitions whose time is past, so many at most; how many."""
