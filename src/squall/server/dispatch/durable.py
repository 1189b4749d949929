"""Durable calls (`.spawn`): on disk before they are acknowledged, outputs on disk before anybody sees them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Set
from typing import TypeVar

from squall.protocol import call as wire
from squall.protocol.call import CallInfo, CallSpawn, Failure, InputBatch, ItemBatch, OutputBatch, cut
from squall.protocol.call_id import is_marked
from squall.protocol.errors import EXHAUSTED, INVALID, NOT_FOUND, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.backlog import CANCELLED, Backlog
from squall.server.dispatch.call_table import CallTable
from squall.server.dispatch.dispatcher import Dispatcher, check_blobs
from squall.server.dispatch.expired import why_unknown
from squall.server.dispatch.input import Call
from squall.server.dispatch.shelf import Kept
from squall.server.model.clock import Clock
from squall.server.model.config import ServerConfig
from squall.server.model.store import Store, StoredCall, StoredInput, StoredOutput

_log = logging.getLogger("squall.server.dispatch.durable")

EXPIRE_EVERY_S = 600.0
WAIT_MAX_S = 60.0
"""Of one `CallGet`; the client asks again."""
INPUTS_MAX = 10_000
"""Of one `CallSpawn`."""
NAMES_CHARS_MAX = 200
RETRY_S = 1.0
STATUSES_MAX = 1_000
UNKEPT_MAX = 5_000
"""Outputs that wait to be written before failing more inputs waits too."""

_Key = tuple[str, int]
T = TypeVar("T")


class Durable:
    """The sink of durable calls, and those who wait for their outputs."""

    def __init__(
        self, *, store: Store, calls: CallTable, clock: Clock, config: ServerConfig, tasks: TaskSet,
        find: Callable[[str], Dispatcher | None],
    ) -> None:  # fmt: skip
        self._store = store
        self._calls = calls
        self._clock = clock
        self._config = config
        self._tasks = tasks
        self._find = find
        self._unkept: list[StoredOutput] = []
        self._keeping: asyncio.Future[None] | None = None
        self._has_written = asyncio.Event()
        self._waiters: dict[_Key, set[asyncio.Future[StoredOutput | None]]] = {}
        self._expired_at = clock.monotonic()
        self.backlog = Backlog(
            store=store,
            calls=calls,
            config=config,
            tasks=tasks,
            find=find,
            enqueue=self._enqueue,
            fail=self._fail,
            unkept=lambda: {output.call_id for output in self._unkept},
        )

    async def settle(self, timeout_s: float) -> None:
        """Wait until every accepted output is on disk, at most so long."""
        if self._keeping is not None:
            await asyncio.wait([self._keeping], timeout=timeout_s)

    async def load(self) -> None:
        """Queue again what had no output when the last server ended; what nobody can run any more fails."""
        await self.backlog.load()

    async def spawn(self, record: CallSpawn, body: bytes, dispatcher: Dispatcher) -> str:
        """Put a call on disk and queue it.

        Raises:
            PlatformError: `invalid`, `exhausted` when too much is queued, and what the store raises.
        """
        opened, batch = record.call, record.inputs
        if not is_id(opened.call_id, "fc") or batch.call_id != opened.call_id:
            raise PlatformError(INVALID, "CallSpawn: the call needs an id, the same for its inputs")
        if is_marked(opened.call_id):
            message = f"CallSpawn: {opened.call_id} is the id of a client's call; a spawned one needs an id of its own"
            raise PlatformError(INVALID, message)
        if not batch.indexes or len(batch.indexes) > INPUTS_MAX or len(batch.indexes) != len(batch.sizes):
            raise PlatformError(INVALID, f"CallSpawn: takes 1 to {INPUTS_MAX} inputs, each with a size")
        if set(batch.indexes) != set(range(len(batch.indexes))):
            raise PlatformError(INVALID, "CallSpawn: the indexes of its inputs are not 0, 1 and so on")
        if len(opened.kind) + len(opened.parent_input_id) > NAMES_CHARS_MAX:
            raise PlatformError(INVALID, "CallSpawn: its kind is no word, or its parent no id of an input")
        if self._calls.get(opened.call_id) is not None:
            return opened.call_id
        waiting = dispatcher.queued + self.backlog.count(opened.function_id)
        if waiting + len(batch.indexes) > self._config.spawned_inputs_max:
            limit = self._config.spawned_inputs_max
            raise PlatformError(EXHAUSTED, f"CallSpawn: more than {limit} inputs of this function would wait")
        if self._calls.waiting_bytes + len(body) > self._config.queued_bytes_max:
            raise PlatformError(EXHAUSTED, "CallSpawn: the inputs that wait use all memory this server gives them")
        try:
            values = list(cut(body, batch.sizes))
            check_blobs(batch.indexes, batch.sizes, batch.blobs)
        except ValueError as error:
            raise PlatformError(INVALID, f"CallSpawn: {error}") from error
        inputs = tuple(
            StoredInput(opened.call_id, index, value, batch.blobs.get(str(index), ""))
            for index, value in zip(batch.indexes, values, strict=True)
        )
        stored = StoredCall(
            opened.call_id, opened.function_id, dispatcher.spec.app_id, opened.kind,
            self.backlog.next_time(self._clock.now()), len(inputs), opened.parent_input_id,
            method=opened.method,
        )  # fmt: skip
        with self.backlog.coming(opened.call_id) as is_read:
            is_new = await self._store.put_call(stored, inputs)
            if not is_new and await self._is_over(opened.call_id):
                return opened.call_id
            if is_read() or self._calls.get(opened.call_id) is not None:
                return opened.call_id
            if not self.backlog.leave(stored, inputs, dispatcher):
                self._enqueue(stored, inputs, dispatcher)
        return opened.call_id

    async def _is_over(self, call_id: str) -> bool:
        """A repeated request for a call that was run before, or cancelled."""
        if any(output.call_id == call_id for output in self._unkept):
            return True  # what has outputs that are not on disk yet was in memory, or has failed
        stored = await self._store.get_call(call_id)
        count = stored.input_count
        return stored.is_cancelled or len(await self._store.output_statuses(call_id, count)) >= count

    def _enqueue(self, stored: StoredCall, inputs: tuple[StoredInput, ...], dispatcher: Dispatcher) -> None:
        # A spawned call is waited for by nobody in particular: its parent does not give back its claim on cpu.
        call = Call(stored.call_id, stored.kind, dispatcher, self, stored.created_at, None, stored.method)
        call.is_durable = True
        self._calls.add(call)
        sizes = tuple(wire.IN_BLOB if one.blob_sha256 else len(one.value) for one in inputs)
        blobs = {str(one.index): one.blob_sha256 for one in inputs if one.blob_sha256}
        batch = InputBatch(stored.call_id, tuple(one.index for one in inputs), sizes, (), blobs)
        dispatcher.put(call, batch, b"".join(one.value for one in inputs))
        for output, body in self._calls.take_orphans(call.call_id, dispatcher.spec.function_id):
            dispatcher.put_orphan(call, output, body)

    # Sink

    def put_outputs(self, call: Call, record: OutputBatch, body: bytes) -> None:
        """See `Sink`."""
        attempts = record.attempts or (0,) * len(record.indexes)
        run_us = record.run_us or (0,) * len(record.indexes)
        values = cut(body, record.sizes)
        columns = zip(record.indexes, record.statuses, values, attempts, run_us, strict=True)
        now = self._clock.now()
        self._keep([
            StoredOutput(call.call_id, index, status, value, record.blobs.get(str(index), ""), attempt, ran_us, now)
            for index, status, value, attempt, ran_us in columns
        ])  # fmt: skip
        if not call.inputs:
            self.backlog.ended(call.call_id, call.dispatcher)
            call.is_closed = True
            self._calls.end_if_over(call)

    def put_items(self, call: Call, record: ItemBatch, body: bytes) -> None:
        """See `Sink`; generators cannot be spawned."""

    def call_ended(self, call: Call) -> None:
        """See `Sink`."""

    def let_go(self, kept: Kept) -> None:
        """See `Sink`; outputs of durable calls are in the store."""

    async def _fail(self, stored: StoredCall, inputs: tuple[StoredInput, ...], failure: Failure) -> None:
        """End inputs that are in the store only; waits while more of them come than can be written."""
        await self._wait_for_room()
        self._fail_now(stored, inputs, failure)

    async def _wait_for_room(self) -> None:
        while len(self._unkept) > UNKEPT_MAX and self._keeping is not None:
            self._has_written.clear()
            await self._has_written.wait()

    def _fail_now(self, stored: StoredCall, inputs: tuple[StoredInput, ...], failure: Failure) -> None:
        dispatcher = self._find(stored.function_id)
        if dispatcher is not None:
            dispatcher.holdings.give_up(stored.call_id)
        value = wire.encode_failure(failure)
        now = self._clock.now()
        self._keep([
            StoredOutput(stored.call_id, one.index, wire.CANCELLED, value, "", 0, 0, now) for one in inputs
        ])  # fmt: skip

    def _keep(self, outputs: list[StoredOutput]) -> None:
        self._unkept += outputs
        if self._keeping is None:
            self._keeping = self._tasks.start(self._keep_all())

    async def _keep_all(self) -> None:
        """Write until nothing is left; a store that cannot write now is asked again."""
        try:
            while self._unkept:
                batch = tuple(self._unkept)
                try:
                    await self._store.put_outputs(batch)
                except PlatformError as error:
                    _log.error("%d outputs could not be kept, trying again: %s", len(batch), error.message)
                    await asyncio.sleep(RETRY_S)
                    continue
                except Exception:  # noqa: BLE001 - top of a loop: one that no database takes must not hold up all others
                    batch = await self._keep_each(batch)
                del self._unkept[: len(batch)]
                self._has_written.set()
                for output in batch:
                    self._tell(output)
        finally:
            self._keeping = None
            self._has_written.set()

    async def _keep_each(self, outputs: tuple[StoredOutput, ...]) -> tuple[StoredOutput, ...]:
        """Write them one by one; a failure takes the place of one that cannot be written. Returns what was written."""
        kept: list[StoredOutput] = []
        for output in outputs:
            try:
                await self._keep_one(output)
            except Exception as error:  # noqa: BLE001 - as above
                _log.warning("an output of %s cannot be kept", output.call_id, exc_info=True)
                value = wire.encode_failure(Failure("invalid", f"its result cannot be kept: {type(error).__name__}"))
                output = StoredOutput(output.call_id, output.index, wire.FAILED, value, finished_at=output.finished_at)
                await self._keep_one(output)
            kept.append(output)
        return tuple(kept)

    async def _keep_one(self, output: StoredOutput) -> None:
        while True:
            try:
                await self._store.put_outputs((output,))
                return
            except PlatformError as error:
                _log.error("an output of %s could not be kept, trying again: %s", output.call_id, error.message)
                await asyncio.sleep(RETRY_S)

    def _tell(self, output: StoredOutput) -> None:
        for waiter in self._waiters.pop((output.call_id, output.index), ()):
            if not waiter.done():
                waiter.set_result(output)

    # Asking

    async def get(self, call_id: str, index: int, timeout_s: float) -> tuple[OutputBatch, bytes]:
        """The output, or an answer without an index when it is not there in time.

        Raises:
            PlatformError: `not_found` when there never was such a call, `expired` when it is kept no more, `invalid`
                when it has no such input.
        """
        key = (call_id, index)
        waiter: asyncio.Future[StoredOutput | None] = asyncio.get_running_loop().create_future()
        # Registered before the store is asked: an output that comes in between is not missed.
        self._waiters.setdefault(key, set()).add(waiter)
        timer = None
        try:
            output = await self._known(call_id, self._store.get_output(call_id, index))
            if output is None and index != 0:
                await self._check_index(call_id, index)
            if output is None and timeout_s > 0:
                timer = self._clock.call_later(
                    min(timeout_s, WAIT_MAX_S), lambda: None if waiter.done() else waiter.set_result(None)
                )
                output = await waiter
        finally:
            if timer is not None:
                timer.cancel()
            waiters = self._waiters.get(key)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[key]
        if output is None:
            return OutputBatch(call_id, (), (), ()), b""
        size = wire.IN_BLOB if output.blob_sha256 else len(output.value)
        blobs = {str(index): output.blob_sha256} if output.blob_sha256 else {}
        columns = ((index,), (output.status,), (size,), (output.attempt,), (output.run_us,))
        return OutputBatch(call_id, *columns, blobs), output.value

    async def _known(self, call_id: str, answer: Awaitable[T]) -> T:
        """What the store answers of a call that it knows."""
        try:
            return await answer
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
            raise why_unknown(call_id, self._clock.now(), self._config.results_kept_s) from error

    async def _check_index(self, call_id: str, index: int) -> None:
        count = (await self._known(call_id, self._store.get_call(call_id))).input_count
        if not 0 <= index < count:
            has = "1 input, of index 0" if count == 1 else f"{count} inputs, of indexes 0 to {count - 1}"
            raise PlatformError(INVALID, f"CallGet: no input of call {call_id} has index {index}: it has {has}")

    async def info(self, call_id: str) -> CallInfo:
        """About a call, living or done.

        Raises:
            PlatformError: `not_found` or `expired`.
        """
        call = self._calls.get(call_id)
        if call is not None and not call.is_durable:
            statuses = tuple(_state_of(call, index) for index in range(min(call.input_count, STATUSES_MAX)))
            function_id = call.dispatcher.spec.function_id
            return CallInfo(call_id, function_id, call.kind, call.input_count, call.created_at, statuses)
        stored = await self._known(call_id, self._store.get_call(call_id))
        kept = await self._store.output_statuses(call_id, STATUSES_MAX)
        is_stored = call is None and self.backlog.count(stored.function_id) > 0
        statuses = tuple(
            wire.STATUS_NAMES[kept[index]] if index in kept else "queued" if is_stored else _state_of(call, index)
            for index in range(min(stored.input_count, STATUSES_MAX))
        )
        return CallInfo(call_id, stored.function_id, stored.kind, stored.input_count, stored.created_at, statuses)

    async def app_of(self, call_id: str) -> str:
        """The app a call belongs to.

        Raises:
            PlatformError: `not_found` or `expired`.
        """
        call = self._calls.get(call_id)
        if call is not None:
            return call.dispatcher.spec.app_id
        return (await self._known(call_id, self._store.get_call(call_id))).app_id

    async def cancel(self, call_id: str, *, is_killing: bool) -> None:
        """Cancel what of a call has no output.

        Raises:
            PlatformError: `not_found` or `expired`. A call that is over is left as it is.
        """
        call = self._calls.get(call_id)
        if call is None or call.is_durable:
            # On disk first: whatever becomes of this server, nobody runs it after we have answered.
            try:
                stored = await self._known(call_id, self._store.cancel_call(call_id))
            except PlatformError:
                if call is not None:  # it is not promised, and what runs is stopped all the same
                    call.dispatcher.attempts.cancel(list(call.inputs.values()), is_killing=is_killing)
                raise
            await self._wait_for_room()
            kept = await self._store.output_statuses(call_id, stored.input_count)
            call = self._calls.get(call_id)
            if call is None:
                self._cancel_stored(stored, kept.keys())
                return
        call.dispatcher.attempts.cancel(list(call.inputs.values()), is_killing=is_killing)

    def _cancel_stored(self, stored: StoredCall, kept: Set[int]) -> None:
        """Cancel what is in the store only, in one go: a page that is read meanwhile passes it over."""
        call_id = stored.call_id
        unkept = {output.index for output in self._unkept if output.call_id == call_id}
        inputs = [index for index in range(stored.input_count) if index not in kept and index not in unkept]
        self.backlog.cancelled(stored.function_id, call_id, len(inputs))
        self._fail_now(stored, tuple(StoredInput(call_id, index) for index in inputs), CANCELLED)

    async def tick(self, now: float) -> None:
        """Forget results that are over their time, and see to what waits in the store."""
        self.backlog.tick()
        if now - self._expired_at >= EXPIRE_EVERY_S:
            self._expired_at = now
            await self._store.expire(self._clock.now() - self._config.results_kept_s)


def _state_of(call: Call | None, index: int) -> str:
    one = call.inputs.get(index) if call is not None else None
    if one is not None:
        return "queued" if one.container is None else "running"
    if call is not None:
        for kept in call.sent:
            record = kept.record
            if isinstance(record, OutputBatch) and index in record.indexes:
                return wire.STATUS_NAMES[record.statuses[record.indexes.index(index)]]
    return "succeeded" if call is not None and not call.is_durable else "running"
