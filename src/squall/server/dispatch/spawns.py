"""Inputs of durable calls come: checked, put on disk, then queued or left there.

What is answered is on disk, and what is refused is nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from squall.protocol.call import CallExtend, CallOpen, CallSpawn, InputBatch, cut
from squall.protocol.call_id import is_marked
from squall.protocol.errors import EXHAUSTED, INVALID, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.backlog import Backlog
from squall.server.dispatch.call_table import CallTable
from squall.server.dispatch.dispatcher import Dispatcher, check_blobs
from squall.server.model.clock import Clock
from squall.server.model.config import ServerConfig
from squall.server.model.store import Portion, Store, StoredCall, StoredInput

INPUTS_MAX = 10_000
"""Of one request."""
CALL_INPUTS_MAX = 2**31 - 1
"""Of one call, however it grows: databases number inputs with 32 bits."""
NAMES_CHARS_MAX = 200
RETRY_S = 0.5
"""After so long, callers of calls that grow may ask again whether there is room."""


class NoRoom(PlatformError):
    """Too many inputs wait; nothing was kept."""

    def __init__(self, message: str) -> None:
        super().__init__(EXHAUSTED, message)


class Spawns:
    """Takes in what is spawned.

    Args:
        backlog: gives what comes its place among what waits.
        enqueue: takes inputs of a call into memory.
    """

    def __init__(
        self, *, store: Store, calls: CallTable, clock: Clock, config: ServerConfig, tasks: TaskSet, backlog: Backlog,
        enqueue: Callable[[StoredCall, tuple[StoredInput, ...], Dispatcher], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._calls = calls
        self._clock = clock
        self._config = config
        self._tasks = tasks
        self._backlog = backlog
        self._enqueue = enqueue

    async def spawn(self, record: CallSpawn, body: bytes, dispatcher: Dispatcher) -> int:
        """Put a call on disk and queue it; how many inputs it has.

        Raises:
            NoRoom: too much is queued.
            PlatformError: `invalid`, and what the store raises: `exhausted` when the disk is full.
        """
        opened, batch = record.call, record.inputs
        _check_opened(opened, batch)
        if batch.indexes and batch.indexes[0] != 0:
            raise PlatformError(INVALID, "CallSpawn: the indexes of its inputs are not 0, 1 and so on")
        inputs = self._admit("CallSpawn", batch, body, dispatcher)
        stored = StoredCall(
            opened.call_id, opened.function_id, dispatcher.spec.app_id, opened.kind,
            self._backlog.next_time(self._clock.now()), len(inputs), opened.parent_input_id,
            method=opened.method, is_growing=record.is_growing,
        )  # fmt: skip
        # To its end, whoever gives up waiting for it: what is on disk must not be forgotten there.
        return await asyncio.shield(self._tasks.start(self._begin(stored, inputs, dispatcher)))

    async def _begin(self, stored: StoredCall, inputs: tuple[StoredInput, ...], dispatcher: Dispatcher) -> int:
        with self._backlog.coming(stored.call_id, 0) as is_read:
            if not await self._store.put_call(stored, inputs):
                # Its request was repeated. The one before may have come to nothing after it was on disk.
                stored = await self._store.get_call(stored.call_id)
                self._backlog.look_again(stored.function_id, (stored.created_at, stored.call_id, 0))
            elif inputs and not is_read():
                self._queue(Portion(stored, 0, stored.created_at, inputs), dispatcher)
        return stored.input_count

    async def extend(self, record: CallExtend, body: bytes, dispatcher: Dispatcher) -> int:
        """Put more inputs of a call on disk and queue them; how many it has then.

        Raises:
            PlatformError: as `spawn`; `conflict` when they do not follow those the call has, and when it takes no more.
        """
        batch = record.inputs
        if not batch.indexes and not record.is_last:
            raise PlatformError(INVALID, "CallExtend: without inputs only to say that there are no more")
        inputs = self._admit("CallExtend", batch, body, dispatcher)
        return await asyncio.shield(self._tasks.start(self._extend(record, inputs, dispatcher)))

    async def _extend(self, record: CallExtend, inputs: tuple[StoredInput, ...], dispatcher: Dispatcher) -> int:
        call_id, made_at = record.inputs.call_id, self._backlog.next_time(self._clock.now())
        if not inputs:
            stored = await self._store.get_call(call_id)
            first = stored.input_count
        else:
            first = inputs[0].index
        with self._backlog.coming(call_id, first) as is_read:
            portion = await self._store.extend_call(call_id, first, inputs, made_at, is_last=record.is_last)
            if portion.made_at != made_at:
                self._backlog.look_again(portion.call.function_id, portion.place)
            elif inputs and not is_read():
                self._queue(portion, dispatcher)
        return portion.call.input_count

    def _queue(self, portion: Portion, dispatcher: Dispatcher) -> None:
        if not self._backlog.leave(portion, dispatcher):
            self._enqueue(portion.call, portion.inputs, dispatcher)

    def _admit(self, method: str, batch: InputBatch, body: bytes, dispatcher: Dispatcher) -> tuple[StoredInput, ...]:
        """The inputs of a request, if they are well formed and there is room for them."""
        count = len(batch.indexes)
        if count > INPUTS_MAX or count != len(batch.sizes):
            raise PlatformError(INVALID, f"{method}: takes at most {INPUTS_MAX} inputs, each with a size")
        first = batch.indexes[0] if batch.indexes else 0
        is_in_range = 0 <= first <= CALL_INPUTS_MAX - count
        if not is_in_range or batch.indexes != tuple(range(first, first + count)):
            raise PlatformError(INVALID, f"{method}: the indexes of its inputs do not follow each other")
        waiting = dispatcher.queued + self._backlog.count(dispatcher.spec.function_id)
        limit = self._config.spawned_inputs_max
        if waiting + count > limit:
            what = f"function {dispatcher.spec.name} has {waiting} inputs that wait, and at most {limit} may"
            raise NoRoom(f"{method}: {what}; spawn more when some of them are done")
        if self._calls.waiting_bytes + len(body) > self._config.queued_bytes_max:
            raise NoRoom(f"{method}: the inputs that wait use all memory this server gives them")
        try:
            values = cut(body, batch.sizes)
            check_blobs(batch.indexes, batch.sizes, batch.blobs)
            return tuple(
                StoredInput(batch.call_id, index, value, batch.blobs.get(str(index), "") if batch.blobs else "")
                for index, value in zip(batch.indexes, values, strict=True)
            )
        except ValueError as error:
            raise PlatformError(INVALID, f"{method}: {error}") from error


def _check_opened(opened: CallOpen, batch: InputBatch) -> None:
    if not is_id(opened.call_id, "fc") or batch.call_id != opened.call_id:
        raise PlatformError(INVALID, "CallSpawn: the call needs an id, the same for its inputs")
    if is_marked(opened.call_id):
        message = f"CallSpawn: {opened.call_id} is the id of a client's call; a spawned one needs an id of its own"
        raise PlatformError(INVALID, message)
    if len(opened.kind) + len(opened.parent_input_id) > NAMES_CHARS_MAX:
        raise PlatformError(INVALID, "CallSpawn: its kind is no word, or its parent no id of an input")
