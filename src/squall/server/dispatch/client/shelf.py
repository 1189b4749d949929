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
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from squall.protocol.blob import CHUNK_BYTES
from squall.protocol.call import IN_BLOB, ItemBatch, OutputBatch, cut
from squall.protocol.channel.contract import Channel
from squall.protocol.errors import PlatformError
from squall.protocol.task_set import TaskSet
from squall.server.model.blobs import BlobStore

if TYPE_CHECKING:
    from squall.server.dispatch.function.input import Call

KEPT_BYTES_MAX = 512 * 2**20
FULL_FACTOR = 2
"""So many times that much is never kept. Containers are not listened to while values are moved, so this is for a blob
store that is full."""
STEPS = 64
"""Where nothing can be moved, outputs are let go of each time that another such part of it has come."""
MOVED_BYTES_MIN = 16 * 2**10
"""Smaller values stay in memory: a blob each would cost more than it frees."""
VALUE_BYTES = 100
"""What a value costs besides its bytes."""

Batch = OutputBatch | ItemBatch

_log = logging.getLogger("squall.server.dispatch.client.shelf")


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
        self._kept: set[Kept] = set()
        # What can be done about them, in the order in which it is: nothing is looked through for it.
        self._outputs: OrderedDict[Kept, None] = OrderedDict()
        """What can be let go of. Items cannot: their generator cannot begin again."""
        self._sent: OrderedDict[Kept, None] = OrderedDict()
        """Those of the outputs that their client has, most likely."""
        self._movable: OrderedDict[Kept, None] = OrderedDict()
        """What has large values that are not in the blob store."""
        self._step_bytes = bytes_max
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
        self._kept.add(kept)
        if isinstance(kept.record, OutputBatch):
            self._outputs[kept] = None
        self.size_bytes += kept.size_bytes
        if len(kept.body) >= MOVED_BYTES_MIN and max(kept.record.sizes) >= MOVED_BYTES_MIN:
            self._movable[kept] = None
        if self.size_bytes > self._bytes_max:
            self._relieve()
        else:
            self._step_bytes = self._bytes_max

    def queued(self, kept: Kept) -> None:
        """It waits to be sent."""
        kept.is_unsent = True
        self._sent.pop(kept, None)

    def sent(self, kept: Kept) -> None:
        """It was sent."""
        kept.is_unsent = False
        if kept in self._outputs:
            self._sent[kept] = None

    def remove(self, kept: Kept) -> None:
        """It is not needed any more; repeating it is harmless."""
        if kept in self._kept:
            self._kept.remove(kept)
            for some in (self._outputs, self._sent, self._movable):
                some.pop(kept, None)
            self.size_bytes -= kept.size_bytes

    def _relieve(self) -> None:
        self._forget_sent()
        is_step = self.size_bytes > self._step_bytes
        if is_step:
            self._step_bytes = self.size_bytes + self._bytes_max // STEPS
        if self.size_bytes <= self._bytes_max:
            self._step_bytes = self._bytes_max
        elif self._blobs is None or self._tasks is None or self.is_full:
            self._let_go()
        elif self._moving is None and self._movable:
            self._moving = self._tasks.start(self._move(self._blobs))
        elif self._moving is None and is_step:
            self._let_go()

    def _forget(self, some: OrderedDict[Kept, None]) -> Iterator[Kept]:
        """Forget the first of some outputs, down to three quarters of what may be kept."""
        while some and self.size_bytes > self._bytes_max * 3 // 4:
            kept = next(iter(some))
            kept.call.forget(kept)
            self.remove(kept)
            yield kept

    def _forget_sent(self) -> None:
        for _ in self._forget(self._sent):
            pass

    def _let_go(self) -> None:
        """What was sent, then the oldest outputs."""
        self._forget_sent()
        for kept in self._forget(self._outputs):
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
