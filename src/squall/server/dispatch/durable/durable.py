"""Durable calls (`.spawn`): on disk before they are acknowledged, outputs on disk before anybody sees them."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from squall.protocol import call as wire
from squall.protocol.call import CallInfo, Failure, InputBatch, ItemBatch, OutputBatch, cut
from squall.protocol.errors import INVALID, NOT_FOUND, PlatformError
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.client.shelf import Kept
from squall.server.dispatch.clock import AgeClock
from squall.server.dispatch.durable.backlog import CANCELLED, Backlog
from squall.server.dispatch.durable.expired import why_unknown
from squall.server.dispatch.durable.gathering import Gathering
from squall.server.dispatch.durable.outputs import WAIT_MAX_S, batch_of
from squall.server.dispatch.durable.spawns import Spawns
from squall.server.dispatch.function.call_table import CallTable
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.dispatch.function.input import Call
from squall.server.model.clock import Clock
from squall.server.model.config import ServerConfig
from squall.server.model.store import Store, StoredCall, StoredInput, StoredOutput

_log = logging.getLogger("squall.server.dispatch.durable.durable")

EXPIRE_EVERY_S = 600.0
READ_MAX = 1_000
"""Outputs in one answer."""
CANCELLED_AT_ONCE = 2_000
OUTPUTS_AT_ONCE = 2_000
"""In one transaction, so that spawns in between do not wait long."""
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
        self._told: dict[_Key, set[Callable[[StoredOutput], None]]] = {}
        """Who wants to hear of an output."""
        self._expired_at = clock.monotonic()
        self._age_clock = AgeClock(clock)
        self.on_kept: Callable[[StoredOutput], None] = lambda output: None
        """Told of every output when it is on disk."""
        self.backlog = Backlog(
            store=store,
            calls=calls,
            config=config,
            tasks=tasks,
            find=find,
            enqueue=self._enqueue,
            fail=self._fail,
            unkept=lambda: {(output.call_id, output.index) for output in self._unkept},
        )
        self.gathering = Gathering(self, store, calls, clock, config)
        self.spawns = Spawns(
            store=store,
            calls=calls,
            clock=clock,
            config=config,
            tasks=tasks,
            backlog=self.backlog,
            enqueue=self._enqueue,
        )

    async def settle(self, timeout_s: float) -> None:
        """Wait until every accepted output is on disk, at most so long."""
        if self._keeping is not None:
            await asyncio.wait([self._keeping], timeout=timeout_s)

    async def load(self) -> None:
        """Queue again what had no output when the last server ended; what nobody can run any more fails."""
        await self.backlog.load()

    def _enqueue(self, stored: StoredCall, inputs: tuple[StoredInput, ...], dispatcher: Dispatcher) -> None:
        """Take inputs into memory; others of their call may be there, or come later."""
        call = self._calls.get(stored.call_id)
        if call is None:
            # Waited for by nobody in particular: its parent does not give back its claim on cpu.
            call = Call(stored.call_id, stored.kind, dispatcher, self, stored.created_at, None, stored.method)
            call.is_durable = True
            call.parent_input_id = stored.parent_input_id
            self._calls.add(call)
        sizes = tuple([wire.IN_BLOB if one.blob_sha256 else len(one.value) for one in inputs])
        blobs = {str(one.index): one.blob_sha256 for one in inputs if one.blob_sha256}
        batch = InputBatch(stored.call_id, tuple([one.index for one in inputs]), sizes, (), blobs)
        dispatcher.put(call, batch, b"".join([one.value for one in inputs]))
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
        known = _waited_in(call)
        self._keep([
            StoredOutput(
                call.call_id, index, status, value, record.blobs.get(str(index), ""), attempt, ran_us, now, *known
            )
            for index, status, value, attempt, ran_us in columns
        ])  # fmt: skip
        if not call.inputs:
            call.is_closed = True
            self._calls.end_if_over(call)
        self.backlog.ended(call.call_id, record.indexes, call.dispatcher)

    def put_notice(self, call_id: str, text: str) -> None:
        """See `Sink`: nobody listens."""

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
                batch = tuple(self._unkept[:OUTPUTS_AT_ONCE])
                try:
                    accepted = await self._store.put_outputs(batch)
                except PlatformError as error:
                    _log.error("%d outputs could not be kept, trying again: %s", len(batch), error.message)
                    await asyncio.sleep(RETRY_S)
                    continue
                except Exception:  # noqa: BLE001 - top of a loop: one that no database takes must not hold up all others
                    batch = await self._keep_each(batch)
                    accepted = (True,) * len(batch)
                del self._unkept[: len(batch)]
                self._has_written.set()
                for output in itertools.compress(batch, accepted):
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
        self.on_kept(output)
        for tell in self._told.pop((output.call_id, output.index), ()):
            tell(output)

    # Asking

    async def get(self, call_id: str, index: int, timeout_s: float) -> tuple[OutputBatch, bytes]:
        """The output, or an answer without an index when it is not there in time.

        Raises:
            PlatformError: `not_found` when there never was such a call, `expired` when it is kept no more, `invalid`
                when it has no such input.
        """
        waiter: asyncio.Future[StoredOutput | None] = asyncio.get_running_loop().create_future()

        def tell(output: StoredOutput | None) -> None:
            if not waiter.done():
                waiter.set_result(output)

        output: StoredOutput | None = None
        # Registered before the store is asked: an output that comes in between is not missed.
        with self.telling([(call_id, index)], tell):
            if not self.is_unfinished(call_id, index):
                output = await self._known(call_id, self._store.get_output(call_id, index))
                if output is None:
                    await self._check_index(call_id, index)
            if output is None and timeout_s > 0:
                timer = self._clock.call_later(min(timeout_s, WAIT_MAX_S), lambda: tell(None))
                try:
                    output = await waiter
                finally:
                    timer.cancel()
        return batch_of(call_id, () if output is None else ((index, output),))

    @contextmanager
    def telling(self, keys: Sequence[_Key], tell: Callable[[StoredOutput], None]) -> Iterator[None]:
        """In the block, outputs of these inputs that come are told."""
        for key in keys:
            self._told.setdefault(key, set()).add(tell)
        try:
            yield
        finally:
            for key in keys:
                left = self._told.get(key)
                if left is not None:
                    left.discard(tell)
                    if not left:
                        del self._told[key]

    def is_unfinished(self, call_id: str, index: int) -> bool:
        """Whether that input is in memory: the store has no output of it then, and one would be told."""
        call = self._calls.get(call_id)
        return call is not None and call.is_durable and index in call.inputs

    async def read(self, call_id: str, first: int, count: int, timeout_s: float) -> tuple[OutputBatch, bytes]:
        """The outputs from one input on, in order and without a gap; none when the first is not there in time.

        Raises:
            PlatformError: as `get`.
        """
        outputs = await self._known(call_id, self._store.read_outputs(call_id, first, min(count, READ_MAX)))
        numbered = [(one.index, one) for one in outputs]
        return batch_of(call_id, numbered) if numbered else await self.get(call_id, first, timeout_s)

    async def _known(self, call_id: str, answer: Awaitable[T]) -> T:
        """What the store answers of a call that it knows."""
        try:
            return await answer
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
            raise why_unknown(call_id, self._clock.now(), self._config.results_kept_s) from error

    async def _check_index(self, call_id: str, index: int) -> None:
        stored = await self._known(call_id, self._store.get_call(call_id))
        count = stored.input_count
        if not 0 <= index < count and not (stored.is_growing and index >= 0):
            of_many = f"{count} inputs, of indexes 0 to {count - 1}" if count else "no inputs"
            has = "1 input, of index 0" if count == 1 else of_many
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
        # What is neither in memory nor has an output on disk waits there, or has just ended.
        elsewhere = "queued" if self.backlog.count(stored.function_id) > 0 else "running"
        statuses = tuple(
            wire.STATUS_NAMES[kept[index]]
            if index in kept
            else _state_of(call, index)
            if call is not None and index in call.inputs
            else elsewhere
            for index in range(min(stored.input_count, STATUSES_MAX))
        )
        columns = (stored.function_id, stored.kind, stored.input_count, stored.created_at, statuses)
        return CallInfo(call_id, *columns, is_growing=stored.is_growing)

    async def function_of(self, call_id: str) -> str:
        """The function a call is of.

        Raises:
            PlatformError: `not_found` or `expired`.
        """
        call = self._calls.get(call_id)
        if call is not None:
            return call.dispatcher.spec.function_id
        return (await self._known(call_id, self._store.get_call(call_id))).function_id

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
        if call is not None and not call.is_durable:
            call.dispatcher.attempts.cancel(list(call.inputs.values()), is_killing=is_killing)
            return
        # On disk first: whatever becomes of this server, nobody runs it after we have answered.
        try:
            stored = await self._known(call_id, self._store.cancel_call(call_id))
        except PlatformError:
            if call is not None:  # it is not promised, and what runs is stopped all the same
                call.dispatcher.attempts.cancel(list(call.inputs.values()), is_killing=is_killing)
            raise
        self.backlog.cancelled(stored.function_id, call_id)
        call = self._calls.get(call_id)
        if call is not None:
            call.dispatcher.attempts.cancel(list(call.inputs.values()), is_killing=is_killing)
        await self._cancel_stored(stored)

    async def _cancel_stored(self, stored: StoredCall) -> None:
        """Cancel what is in the store only, some thousands at a time."""
        call_id, first = stored.call_id, 0
        while indexes := await self._store.unfinished_indexes(call_id, first, CANCELLED_AT_ONCE):
            if self._elsewhere(call_id, indexes):
                await self._wait_for_room()
            inputs = tuple(StoredInput(call_id, index) for index in self._elsewhere(call_id, indexes))
            self.backlog.count_off(stored.function_id, len(inputs))
            self._fail_now(stored, inputs, CANCELLED)
            first = indexes[-1] + 1
            if len(indexes) < CANCELLED_AT_ONCE:
                return

    def _elsewhere(self, call_id: str, indexes: tuple[int, ...]) -> list[int]:
        """Those of these inputs that are neither in memory nor have an output that is being written."""
        call = self._calls.get(call_id)
        here = {output.index for output in self._unkept if output.call_id == call_id}
        return [index for index in indexes if index not in here and (call is None or index not in call.inputs)]

    async def tick(self, now: float) -> None:
        """Forget results that are over their time, and see to what waits in the store."""
        self.backlog.tick()
        if now - self._expired_at >= EXPIRE_EVERY_S:
            self._expired_at = now
            await self._store.expire(self._age_clock.now() - self._config.results_kept_s)


def _waited_in(call: Call) -> tuple[float, str]:
    """When the inputs whose outputs have just come began to wait, and the container that brought them."""
    if call.track is None:
        return 0.0, ""
    container_id, queued_at = call.track.latest
    return max(0.0, call.created_at + queued_at - call.track.opened_at), container_id


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
