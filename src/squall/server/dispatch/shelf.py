"""What is kept in memory until clients have it: outputs they may have to hear again, items they have not taken.

Clients are away, read slowly, or do not read at all, so all of it together is bounded. What makes it small again, in
this order: outputs that were sent long ago are forgotten; large values go to the blob store, from where the client
fetches them like any large value; and when that is full too, the oldest is let go of. Its client is disconnected then,
if it is there: when it comes back it sends the inputs again, and they run again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from squall.protocol.blob import CHUNK_BYTES
from squall.protocol.call import IN_BLOB, ItemBatch, OutputBatch, cut
from squall.protocol.channel.contract import Channel
from squall.protocol.errors import PlatformError
from squall.protocol.task_set import TaskSet
from squall.server.model.blobs import BlobStore

if TYPE_CHECKING:
    from squall.server.dispatch.input import Call

KEPT_BYTES_MAX = 512 * 2**20
FULL_FACTOR = 2
"""So many times that much is never kept. Containers are not listened to while values are moved, so this is for a blob
store that is full."""
LOOKS_MAX = 64
"""How often all is looked through for what can be forgotten, while as much again comes."""
MOVED_BYTES_MIN = 16 * 2**10
"""Smaller values stay in memory: a blob each would cost more than it frees."""
VALUE_BYTES = 100
"""What a value costs besides its bytes."""

Batch = OutputBatch | ItemBatch

_log = logging.getLogger("squall.server.dispatch.shelf")


class Kept:
    """A batch of outputs or items of a call."""

    __slots__ = ("body", "call", "is_queued", "is_unsent", "record", "size_bytes")

    def __init__(self, call: Call, record: Batch, body: bytes) -> None:
        self.call = call
        self.record = record
        self.body = body
        self.is_unsent = True
        """Not sent since its client connected, if it is there."""
        self.is_queued = False
        """Waits to be sent."""
        self.size_bytes = _size(record, body)


class Shelf:
    """All that is kept, the oldest first.

    Args:
        blobs, tasks: where large values go, and who moves them; without them they are let go of.
    """

    def __init__(
        self, blobs: BlobStore | None = None, tasks: TaskSet | None = None, bytes_max: int = KEPT_BYTES_MAX
    ) -> None:
        self._blobs = blobs
        self._tasks = tasks
        self._bytes_max = bytes_max
        self._kept: dict[Kept, None] = {}
        self._movable: OrderedDict[Kept, None] = OrderedDict()
        """Those of them with large values that are not in the blob store."""
        self._look_above_bytes = bytes_max
        """All there is is looked through beyond that: not for each of a million small ones."""
        self._moving: asyncio.Future[None] | None = None
        self._held_up: set[Channel] = set()
        self.size_bytes = 0

    @property
    def is_full(self) -> bool:
        """Nothing that cannot be let go of may come."""
        return self.size_bytes > FULL_FACTOR * self._bytes_max

    def hold_up(self, channel: Channel) -> None:
        """Values came by this channel: while there is no room for more, do not listen to it."""
        if self._moving is not None and self.size_bytes > self._bytes_max and not channel.is_closed:
            channel.pause()
            self._held_up.add(channel)

    def put(self, kept: Kept) -> None:
        """Keep it."""
        self._kept[kept] = None
        self.size_bytes += kept.size_bytes
        if len(kept.body) >= MOVED_BYTES_MIN and max(kept.record.sizes) >= MOVED_BYTES_MIN:
            self._movable[kept] = None
        if self.size_bytes > self._bytes_max:
            self._relieve()
        else:
            self._look_above_bytes = self._bytes_max

    def remove(self, kept: Kept) -> None:
        """It is not needed any more; repeating it is harmless."""
        if kept in self._kept:
            del self._kept[kept]
            self._movable.pop(kept, None)
            self.size_bytes -= kept.size_bytes

    def _relieve(self) -> None:
        is_time_to_look = self.size_bytes > self._look_above_bytes
        if is_time_to_look:
            self._forget_sent()
            self._look_above_bytes = self.size_bytes + self._bytes_max // LOOKS_MAX
        if self.size_bytes <= self._bytes_max:
            self._look_above_bytes = self._bytes_max
        elif self._blobs is None or self._tasks is None or self.is_full:
            self._let_go()
        elif self._moving is None and self._movable:
            self._moving = self._tasks.start(self._move(self._blobs))
        elif self._moving is None and is_time_to_look:
            self._let_go()

    def _forget_sent(self) -> None:
        """Down to three quarters, so that it is not looked through for each batch."""
        for kept in list(self._kept):
            if self.size_bytes <= self._bytes_max * 3 // 4:
                return
            if not kept.is_unsent and isinstance(kept.record, OutputBatch):
                kept.call.forget(kept)
                self.remove(kept)

    def _let_go(self) -> None:
        """What was sent, then the oldest outputs. Items are not: their generator cannot begin again."""
        self._forget_sent()
        for kept in list(self._kept):
            if self.size_bytes <= self._bytes_max * 3 // 4:
                return
            if isinstance(kept.record, OutputBatch):
                kept.call.forget(kept)
                self.remove(kept)
                kept.call.sink.let_go(kept)

    async def _move(self, blobs: BlobStore) -> None:
        """Move large values to the blob store, the oldest first, until enough is free."""
        try:
            while self._movable and self.size_bytes > self._bytes_max * 3 // 4:
                kept, _ = self._movable.popitem(last=False)
                record, body = await moved(blobs, kept.record, kept.body)
                if kept in self._kept:
                    self._shrink(kept, record, body)
        except PlatformError as error:
            _log.warning("results that wait for their clients cannot be moved to the blob store: %s", error.message)
        finally:
            self._moving = None
            if self.size_bytes > self._bytes_max:
                self._let_go()
            held_up, self._held_up = self._held_up, set()
            for channel in held_up:
                if not channel.is_closed:
                    channel.resume()

    def _shrink(self, kept: Kept, record: Batch, body: bytes) -> None:
        before = kept.size_bytes
        kept.call.sent_bytes -= len(kept.body) - len(body) if isinstance(record, OutputBatch) else 0
        kept.record, kept.body, kept.size_bytes = record, body, _size(record, body)
        self.size_bytes += kept.size_bytes - before


async def moved(blobs: BlobStore, record: Batch, body: bytes) -> tuple[Batch, bytes]:
    """The same batch with its large values in the blob store.

    Raises:
        PlatformError: they cannot be put there.
    """
    sizes: list[int] = []
    rest: list[bytes] = []
    named = dict(record.blobs)
    if isinstance(record, OutputBatch):
        numbers = record.indexes
    else:
        numbers = tuple(range(record.first, record.first + len(record.sizes)))
    for number, size, value in zip(numbers, record.sizes, cut(body, record.sizes), strict=True):
        if size < MOVED_BYTES_MIN:
            sizes.append(size)
            rest.append(value)
            continue
        sha256 = (await asyncio.to_thread(hashlib.sha256, value)).hexdigest()
        if await blobs.missing((sha256,)):
            for offset in range(0, size, CHUNK_BYTES):
                await blobs.put_chunk(sha256, size, offset, value[offset : offset + CHUNK_BYTES])
        sizes.append(IN_BLOB)
        named[str(number)] = sha256
    return replace(record, sizes=tuple(sizes), blobs=named), b"".join(rest)


def _size(record: Batch, body: bytes) -> int:
    return len(body) + VALUE_BYTES * len(record.sizes)
