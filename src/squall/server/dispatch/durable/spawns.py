"""Inputs of durable calls come: checked, put on disk, then queued or left there.

What is answered is on disk, and what is refused is nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from squall.protocol.call import SPAWN, CallExtend, CallSpawn, InputBatch, SpawnBatch, cut
from squall.protocol.call_id import is_marked
from squall.protocol.errors import EXHAUSTED, INVALID, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.durable.backlog import Backlog
from squall.server.dispatch.function.call_table import CallTable
from squall.server.dispatch.function.dispatcher import Dispatcher, check_blobs
from squall.server.model.clock import Clock
from squall.server.model.config import ServerConfig
from squall.server.model.store import Portion, Store, StoredCall, StoredInput

INPUTS_MAX = 10_000
"""Of one request."""
CALL_INPUTS_MAX = 2**31 - 1
"""Of one call, however it grows: databases number inputs with 32 bits."""
NAMES_CHARS_MAX = 200
Calls = tuple[tuple[StoredCall, tuple[StoredInput, ...]], ...]

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
        if batch.call_id != opened.call_id:
            raise PlatformError(INVALID, "CallSpawn: its inputs are of another call")
        if batch.indexes and batch.indexes[0] != 0:
            raise PlatformError(INVALID, "CallSpawn: the indexes of its inputs are not 0, 1 and so on")
        _check_names("CallSpawn", (opened.call_id,), opened.kind, opened.parent_input_id)
        inputs = self._admit("CallSpawn", batch, body, dispatcher)
        stored = StoredCall(
            opened.call_id, opened.function_id, dispatcher.spec.app_id, opened.kind,
            self._backlog.next_time(self._clock.now()), len(inputs), opened.parent_input_id,
            method=opened.method, is_growing=record.is_growing,
        )  # fmt: skip
        # To its end, whoever gives up waiting for it: what is on disk must not be forgotten there.
        counts: list[int] = await asyncio.shield(self._tasks.start(self._begin(((stored, inputs),), dispatcher)))
        return counts[0]

    async def spawn_many(self, record: SpawnBatch, body: bytes, dispatcher: Dispatcher) -> None:
        """Put calls of one input each on disk, all or none, and queue them.

        Raises:
            PlatformError: as `spawn`.
        """
        count = len(record.call_ids)
        if not count or len(set(record.call_ids)) != count:
            raise PlatformError(INVALID, "CallSpawnMany: takes one call or more, each with an id of its own")
        _check_names("CallSpawnMany", record.call_ids, SPAWN, record.parent_input_id)
        batch = InputBatch("", tuple(range(count)), record.sizes, (), record.blobs)
        inputs = self._admit("CallSpawnMany", batch, body, dispatcher)
        now = self._clock.now()
        app_id = dispatcher.spec.app_id
        calls = tuple([
            (
                StoredCall(
                    call_id, record.function_id, app_id, SPAWN, self._backlog.next_time(now), 1,
                    record.parent_input_id, method=record.method,
                ),
                (StoredInput(call_id, 0, one.value, one.blob_sha256),),
            )
            for call_id, one in zip(record.call_ids, inputs, strict=True)
        ])  # fmt: skip
        await asyncio.shield(self._tasks.start(self._begin(calls, dispatcher)))

    async def _begin(self, calls: Calls, dispatcher: Dispatcher) -> list[int]:
        """How many inputs each of them has then."""
        with self._backlog.coming([(stored.call_id, 0) for stored, _ in calls]) as is_read:
            are_new = await self._store.put_calls(calls)
            counts = []
            for (stored, inputs), is_new in zip(calls, are_new, strict=True):
                if is_new and inputs and not is_read((stored.call_id, 0)):
                    self._queue(Portion(stored, 0, stored.created_at, inputs), dispatcher)
                elif not is_new:
                    # Its request was repeated. The one before may have come to nothing after it was on disk.
                    stored = await self._store.get_call(stored.call_id)
                    self._backlog.look_again(stored.function_id, (stored.created_at, stored.call_id, 0))
                counts.append(stored.input_count)
        return counts

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
        with self._backlog.coming([(call_id, first)]) as is_read:
            portion = await self._store.extend_call(call_id, first, inputs, made_at, is_last=record.is_last)
            if portion.made_at != made_at:
                self._backlog.look_again(portion.call.function_id, portion.place)
            elif inputs and not is_read((call_id, first)):
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


def _check_names(method: str, call_ids: tuple[str, ...], kind: str, parent_input_id: str) -> None:
    for call_id in call_ids:
        if not is_id(call_id, "fc"):
            raise PlatformError(INVALID, f"{method}: a call needs an id, fc- and what makes it unlike any other")
        if is_marked(call_id):
            message = f"{method}: {call_id} is the id of a client's call; a spawned one needs an id of its own"
            raise PlatformError(INVALID, message)
    if len(kind) + len(parent_input_id) > NAMES_CHARS_MAX:
        raise PlatformError(INVALID, f"{method}: its kind is no word, or its parent no id of an input")
