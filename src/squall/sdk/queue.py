"""Queues: items that some programs and containers of an environment put, and others take, in the same order."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from queue import Empty as QueueIsEmpty
from queue import Full as QueueIsFull
from typing import TYPE_CHECKING, Any, ClassVar

from squall.exception import DeserializationError, InvalidError, RequestSizeError, SerializationError
from squall.protocol.asset import QUEUE
from squall.protocol.empty import Empty
from squall.protocol.ids import new_id
from squall.protocol.queue import (
    ITEM_BYTES_MAX,
    PARTITION_ITEMS_MAX,
    PARTITION_KEY_BYTES_MAX,
    PARTITION_TTL_S_MAX,
    PUT_BYTES,
    PUT_ITEMS_MAX,
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
    pack,
    unpack,
)
from squall.sdk._asset import Asset, client_of, held, time_of
from squall.sdk._asset_objects import EmptyObjects
from squall.sdk._facade import blocking, blocking_iterator, blocking_static_context
from squall.sdk._serialization import deserialize, serialize
from squall.sdk._value_text import value_text

if TYPE_CHECKING:
    from squall.sdk._client import Client
    from squall.sdk.types import QueueInfo

POLL_S = 50.0
"""How long one question waits on the server."""
READ_ITEMS = 100


class _Deadline:
    """Until when somebody waits."""

    def __init__(self, block: bool, timeout: float | None, what: str) -> None:
        is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if timeout is not None and (not is_number or not timeout >= 0):
            raise InvalidError(f"{what}: timeout={value_text(timeout)} must be a number of seconds from 0 up, or None")
        self._until = None if block and timeout is None else time.monotonic() + (timeout or 0.0 if block else 0.0)

    @property
    def left_s(self) -> float:
        """How long the next question may wait."""
        return POLL_S if self._until is None else max(0.0, min(POLL_S, self._until - time.monotonic()))

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self._until is not None and time.monotonic() >= self._until


class Queue(Asset):
    """Items on the server, first in, first out. Items are pickled: what comes out is a copy of what was put.

    A queue has a partition without a key, and others by theirs; each has an order of its own, and holds 5,000 items,
    64 MiB together. What is put is on disk when the call returns. A partition is cleared `partition_ttl` seconds after
    the last item was put into it.
    """

    _kind = QUEUE

    objects: ClassVar[EmptyObjects[Queue]] = EmptyObjects()
    """Makes, lists and deletes queues."""

    @staticmethod
    def from_name(
        name: str,
        *,
        environment_name: str | None = None,
        create_if_missing: bool = False,
        client: Client | None = None,
    ) -> Queue:
        """The queue of that name; with `create_if_missing` its first use makes it, if there is none."""
        return Queue._named(name, environment_name, client, is_created=create_if_missing)

    @staticmethod
    def from_id(queue_id: str, client: Client | None = None) -> Queue:
        """The queue of that id."""
        return Queue._of_id(queue_id, client)

    @blocking_static_context
    async def ephemeral(
        client: Client | None = None,  # noqa: N805 - static
        environment_name: str | None = None,
    ) -> AsyncGenerator[Queue, None]:
        """A queue without a name, for as long as the block runs; other processes use it by its handle."""
        async with held(Queue, environment_name, client) as made:
            yield made

    @blocking
    async def info(self) -> QueueInfo:
        """Its name, when it was made, and by whom."""
        from squall.sdk.types import QueueInfo  # cold start: seldom asked for

        known = await self._known()
        return QueueInfo(known.name or None, time_of(known.created_at), known.created_by or None)

    # Putting

    @blocking
    async def put(
        self,
        v: Any,
        block: bool = True,
        timeout: float | None = None,
        *,
        partition: str | None = None,
        partition_ttl: int = PARTITION_TTL_S_MAX,
    ) -> None:
        """Append an item.

        Args:
            v: the item.
            block: wait for room when the partition is full.
            timeout: how long, in seconds; None is for as long as it takes.
            partition: the key of the partition, of 1 to 64 bytes.
            partition_ttl: seconds after which the partition is cleared, unless more is put into it; 86,400 at most.

        Raises:
            queue.Full: there was no room, or none in time.
            RequestSizeError: the item has more than 1 MiB.
            SerializationError: it cannot be pickled.
        """
        await self._put([v], block, timeout, partition, partition_ttl)

    @blocking
    async def put_many(
        self,
        vs: list[Any],
        block: bool = True,
        timeout: float | None = None,
        *,
        partition: str | None = None,
        partition_ttl: int = PARTITION_TTL_S_MAX,
    ) -> None:
        """Append several items in their order: each thousand of them, or 8 MiB, all at once or not at all.

        Args and errors as of `put`.
        """
        await self._put(vs, block, timeout, partition, partition_ttl)

    async def _put(
        self, values: Sequence[Any], block: bool, timeout: float | None, partition: str | None, partition_ttl: int
    ) -> None:
        deadline = _Deadline(block, timeout, "Queue.put")
        if type(partition_ttl) is not int or not 1 <= partition_ttl <= PARTITION_TTL_S_MAX:
            rule = f"must be a whole number of seconds from 1 to {PARTITION_TTL_S_MAX}"
            raise InvalidError(f"Queue.put: partition_ttl={value_text(partition_ttl)} {rule}")
        key = _key_of(partition, "Queue.put")
        # All of them first: nothing is put when one of them cannot be.
        encoded = [self._encode(value) for value in values]
        put_count = 0
        for some in _pieces(encoded):
            if not await self._append(some, key, partition_ttl, deadline):
                there = f"; {put_count:,} of {len(encoded):,} items were put" if len(encoded) > 1 else ""
                raise QueueIsFull(f"{self._words(partition)} is full{there}")
            put_count += len(some)

    async def _append(self, values: list[bytes], key: str, ttl_s: int, deadline: _Deadline) -> bool:
        """Whether there was room in time."""
        sizes, body = pack(values)
        request_id = new_id("rq")
        while True:
            queue_id, done = await self._resolved(), self._take_done()
            record = QueuePut(queue_id, request_id, sizes, key, deadline.left_s, ttl_s, done)
            if (await client_of(self._client).request("QueuePut", record, QueuePutDone, body)).is_put:
                self._done.append(request_id)
                return True
            if deadline.is_over:
                return False

    def _encode(self, value: Any) -> bytes:
        try:
            data = serialize(value)
        except SerializationError as error:
            raise SerializationError(f"cannot put it into {self._words(None)}: {error}") from error
        if len(data) > ITEM_BYTES_MAX:
            size = f"the item has {len(data) / 2**20:.2f} MiB, and {ITEM_BYTES_MAX >> 20} is the most"
            advice = "put it into a squall.Dict or a volume, and its key into the queue"
            raise RequestSizeError(f"cannot put it into {self._words(None)}: {size}; {advice}")
        return data

    # Taking

    @blocking
    async def get(
        self, block: bool = True, timeout: float | None = None, *, partition: str | None = None
    ) -> Any | None:
        """Take the first item out and return it.

        With `block=False` None is returned where there is none. Of those who wait, who came first gets the next one.

        Raises:
            queue.Empty: no item came within `timeout` seconds.
            DeserializationError: it cannot be read here; it stays where it is.
        """
        found = await self._get(1, block, timeout, partition, "Queue.get")
        return found[0] if found else None

    @blocking
    async def get_many(
        self, n_values: int, block: bool = True, timeout: float | None = None, *, partition: str | None = None
    ) -> list[Any]:
        """Take the first items out, `n_values` at most, and at least one; with `block=False` those that are there.

        Errors as of `get`.
        """
        if type(n_values) is not int or n_values < 1:
            raise InvalidError(f"Queue.get_many: n_values={value_text(n_values)} must be a number from 1 up")
        return await self._get(min(n_values, PARTITION_ITEMS_MAX), block, timeout, partition, "Queue.get_many")

    async def _get(self, count: int, block: bool, timeout: float | None, partition: str | None, what: str) -> list[Any]:
        deadline, key = _Deadline(block, timeout, what), _key_of(partition, what)
        request_id = new_id("rq")
        while True:
            found = await self._take(request_id, count, key, deadline, partition)
            if found or not block:
                return found
            if deadline.is_over:
                raise QueueIsEmpty(f"no item came into {self._words(partition)} within {timeout:g} s")

    async def _take(
        self, request_id: str, count: int, key: str, deadline: _Deadline, partition: str | None
    ) -> list[Any]:
        queue_id, client = await self._resolved(), client_of(self._client)
        record = QueueGet(queue_id, request_id, key, count, deadline.left_s, self._take_done())
        number, pending = client.ask_numbered("QueueGet", record)
        is_given = False
        try:
            params, body = await pending
            items = unpack(client.codec.record(QueueItems, params).sizes, body)
            found = [self._decode(item, partition) for item in items]
            is_given = True
        finally:
            # Interrupted, or unreadable: it is the next one's.
            if not is_given and (not pending.is_done or pending.error is None):
                client.withdraw(number)
                client.ask("QueueGiveBack", QueueGiveBack(queue_id, request_id))
        if items:
            self._done.append(request_id)
        return found

    def _decode(self, item: bytes, partition: str | None) -> Any:
        try:
            return deserialize(item)
        except DeserializationError as error:
            raise DeserializationError(f"{self._words(partition)}, an item: {error}") from error.__cause__

    # Looking

    @blocking_iterator
    async def iterate(
        self, *, partition: str | None = None, item_poll_timeout: float = 0.0
    ) -> AsyncGenerator[Any, None]:
        """Items in their order, which stay in the queue; ends when none came for `item_poll_timeout` seconds."""
        after, key = -1, _key_of(partition, "Queue.iterate")
        deadline = _Deadline(True, item_poll_timeout, "Queue.iterate")
        while True:
            page, body = await self._read(key, after, READ_ITEMS, deadline.left_s)
            after = page.after
            for item in unpack(page.sizes, body):
                yield self._decode(item, partition)
            if not page.sizes and deadline.is_over:
                return
            if page.sizes:
                deadline = _Deadline(True, item_poll_timeout, "Queue.iterate")

    async def _read(self, key: str, after: int, limit: int, timeout_s: float) -> tuple[QueuePage, bytes]:
        record = QueueRead(await self._resolved(), key, after, limit, timeout_s)
        return await client_of(self._client).request_with_body("QueueRead", record, QueuePage)

    @blocking
    async def len(self, *, partition: str | None = None, total: bool = False) -> int:
        """How many items a partition has, or with `total` all of them together."""
        if total and partition is not None:
            raise InvalidError("Queue.len: total=True counts all partitions; leave partition= out")
        record = QueueCountGet(await self._resolved(), _key_of(partition, "Queue.len"), total)
        return (await client_of(self._client).request("QueueCountGet", record, QueueCount)).item_count

    @blocking
    async def clear(self, *, partition: str | None = None, all: bool = False) -> None:  # noqa: A002 - decided
        """Remove the items of a partition, or of all."""
        if all and partition is not None:
            raise InvalidError("Queue.clear: all=True clears all partitions; leave partition= out")
        record = QueueClear(await self._resolved(), new_id("rq"), _key_of(partition, "Queue.clear"), all)
        await client_of(self._client).request("QueueClear", record, Empty)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a squall.Queue cannot be iterated itself; write .iterate()")

    def _words(self, partition: str | None) -> str:
        words = f"queue {self._name or self._asset_id}"
        return words if partition is None else f"partition {value_text(partition)} of {words}"


def _key_of(partition: str | None, what: str) -> str:
    if partition is None:
        return ""
    try:
        is_right = isinstance(partition, str) and 1 <= len(partition.encode()) <= PARTITION_KEY_BYTES_MAX
    except UnicodeEncodeError:
        is_right = False
    if not is_right:
        rule = f"must be a string of 1 to {PARTITION_KEY_BYTES_MAX} bytes of UTF-8, or None"
        raise InvalidError(f"{what}: partition={value_text(partition)} {rule}")
    return partition


def _pieces(values: Sequence[bytes]) -> Iterator[list[bytes]]:
    """As many at a time as one request may have."""
    some: list[bytes] = []
    left = PUT_BYTES
    for value in values:
        if some and (len(value) > left or len(some) == PUT_ITEMS_MAX):
            yield some
            some, left = [], PUT_BYTES
        some.append(value)
        left -= len(value)
    if some:
        yield some
