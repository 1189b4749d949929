"""A call with many inputs: pulled from the user's iterators, sent in batches, its results in order."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from squall.exception import SerializationError
from squall.protocol.call import OUTSTANDING_MAX, SUCCEEDED
from squall.protocol.frames import INLINE_BYTES_MAX
from squall.sdk import _shown
from squall.sdk._calls import MapCall, Output, Payload
from squall.sdk._client import Client
from squall.sdk._feed import Feed
from squall.sdk._invoke import failure_bytes, named, pack, parent_input_id, says_unknown, unknown, unpack
from squall.sdk._pending import is_driven
from squall.sdk._pieces import is_large
from squall.sdk._serialization import failure_as_value, serialize
from squall.sdk._target import Target

BATCH_INPUTS = 100
"""What takes longer in one go keeps others from the processor, and costs no less for each."""
BATCH_BYTES = 512 * 1024
BATCH_S = 0.001
"""A batch goes out after that long even if the user's iterator has given only a few inputs."""
HELD_MAX = 100_000
"""Results of one map that wait for an earlier one; with so many, no more inputs are taken from the user's iterators."""
MAP_BYTES_MAX = 256 * 1024 * 1024
"""The same for bytes: of inputs without a result, and of results that wait, with those that are still to come."""
HELD_OVERHEAD_BYTES = 512
"""What one held result costs beside its value, about."""


class Progress(Protocol):
    """Is told how far a map is: outputs, failures among them, inputs, and whether those are all there will be."""

    def __call__(self, done: int, failed: int, total: int, is_total_known: bool) -> None:
        """It got on, or looked whether it did."""

    def end(self, done: int, failed: int, total: int, is_total_known: bool) -> None:
        """It is over, or was given up."""


class Mapping:
    """One map under way."""

    def __init__(
        self,
        target: Target,
        form: str,
        feed: Feed,
        kwargs: dict[str, Any],
        progress: Progress,
        method: str = "",
    ) -> None:
        """`form` is the method of the function that its user has called."""
        client = target.client
        self._target = target
        self._form = form
        self._client = client
        self._feed = feed
        self._kwargs = kwargs
        self._progress = progress
        self._input_count = 0
        self._output_count = 0
        self._failed_count = 0
        self._is_fed = False
        self._held: dict[int, Output] = {}
        self._held_bytes = 0
        self._call = MapCall(
            client.new_call_id(),
            target.function_id,
            parent_input_id(),
            client.connection,
            method,
            says_unknown if target.may_have_another else None,
        )

    @property
    def name(self) -> str:
        """Of the function."""
        return self._target.name

    async def outputs(self) -> AsyncGenerator[Output, None]:
        """Outputs as they come.

        Raises:
            NotFoundError: there is no such function, or none any more that has its name.
        """
        is_done = False
        try:
            async with _Feeder(self) as feeder:
                while True:
                    call = self._call
                    if call.refusal is not None:
                        await self._call_another(call.refusal)
                        continue
                    if self._has_room():
                        await feeder.feed()
                    while call.ready:
                        output = call.ready.popleft()
                        self._output_count += 1
                        self._failed_count += output.status != SUCCEEDED
                        yield output
                    self._progress(*self._counts())
                    if call.error is not None:
                        raise call.error
                    if self._is_fed and not call.outstanding and not call.ready:
                        is_done = True
                        return
                    signal = call.arm()
                    can_feed = self._has_room() and (feeder.has_news or not feeder.is_running)
                    if not call.ready and call.error is None and call.refusal is None and not can_feed:
                        await signal
        finally:
            # The feed comes last: what ends there is the user's, and may raise.
            try:
                self._client.close_call(self._call, is_prompt=not is_done)
                self._progress.end(*self._counts())
            finally:
                self._feed.close()

    async def _call_another(self, refusal: Output) -> None:
        """None of the inputs has begun: all of them go to the function that has the name by now."""
        self._target = await self._target.again(unknown(refusal).error, self._form)
        refused = self._call
        self._client.close_call(refused)
        # Also with those that an async iterator has given while that was asked.
        self._call = refused.with_function(self._client.new_call_id(), self._target.function_id)
        self._client.open_call(self._call, self._call.frames())

    def _counts(self) -> tuple[int, int, int, bool]:
        """Of outputs, failures among them, and inputs; and whether those are all there will be."""
        total = self._input_count if self._is_fed else self._feed.size
        return self._output_count, self._failed_count, total or self._input_count, total is not None

    def hold(self, output: Output) -> None:
        """It waits for an earlier one."""
        self._held[output.number] = output
        self._held_bytes += len(output.value) + HELD_OVERHEAD_BYTES

    def take_held(self, number: int) -> Output | None:
        """The held output of that input, if it is there."""
        output = self._held.pop(number, None) if self._held else None
        if output is not None:
            self._held_bytes -= len(output.value) + HELD_OVERHEAD_BYTES
        return output

    def _has_room(self) -> bool:
        # Waiting for room always ends: what is held waits for an input that was sent before, and so has its output some
        # day, retries included; when nothing is outstanding, nothing is held.
        call = self._call
        outstanding = call.outstanding
        if self._is_fed or outstanding > OUTSTANDING_MAX - BATCH_INPUTS:
            return False
        # What came while the last batch was sent may be for holding, too.
        if len(self._held) + len(call.ready) >= HELD_MAX:
            return False
        to_come_bytes = outstanding * call.output_bytes_mean
        return call.outstanding_bytes <= MAP_BYTES_MAX and self._held_bytes + to_come_bytes <= MAP_BYTES_MAX

    async def send_batch(self) -> None:
        """Pull one batch of inputs and send it; less than a full one when the iterators are slow.

        The first input goes alone: the second may be long in coming, and a container is to run this one meanwhile.
        """
        batch: list[tuple[int, Payload]] = []
        batch_bytes = 0
        deadline = time.monotonic() + BATCH_S
        feed, client = self._feed, self._client
        while len(batch) < BATCH_INPUTS and batch_bytes < BATCH_BYTES:
            args = await feed.pull_async() if feed.is_async else feed.pull()
            if args is None:
                self._is_fed = True
                break
            try:
                data = b"" if any(map(is_large, args)) else serialize((args, self._kwargs))
            except SerializationError as error:
                raise named(error, self._target.name) from error.__cause__
            is_inline = 0 < len(data) <= INLINE_BYTES_MAX
            payload = Payload(data) if is_inline else await pack(client, args, self._kwargs, self._target.name)
            batch.append((self._input_count, payload))
            batch_bytes += len(payload.value)
            self._input_count += 1
            if self._input_count == 1:
                break
            if time.monotonic() > deadline:
                client.connection.poll()
                break
        if batch:
            client.open_call(self._call, self._call.add(batch))


class _Feeder:
    """Feeds a mapping: inline where pulling blocks the caller anyway, by a task where an event loop awaits them."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._task: Any = None
        self.has_news = False

    async def __aenter__(self) -> _Feeder:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            try:
                await task
            except BaseException:  # noqa: BLE001 - cancelled; what it raised otherwise does not matter any more
                return

    @property
    def is_running(self) -> bool:
        """Whether a task is pulling inputs."""
        return self._task is not None

    async def feed(self) -> None:
        """Send a batch, or see that one is being made. What the user's iterator raises comes out here."""
        self.has_news = False
        if not self._mapping._feed.is_async or is_driven():
            await self._mapping.send_batch()
            return
        if self._task is None:
            import asyncio  # cold start: a loop is running, so it is loaded

            self._task = asyncio.ensure_future(self._mapping.send_batch())
            self._task.add_done_callback(self._ended)
        elif self._task.done():
            task, self._task = self._task, None
            task.result()

    def _ended(self, task: object) -> None:
        self.has_news = True
        self._mapping._call.wake()


async def mapped(
    client: Client,
    mapping: Mapping,
    *,
    is_ordered: bool,
    has_exceptions: bool,
) -> AsyncGenerator[Any, None]:
    """Values of a map; the first failure is raised, or yielded in its place."""
    following = 0
    outputs = mapping.outputs()
    try:
        async for output in outputs:
            if not is_ordered:
                yield await _value(client, output, mapping.name, has_exceptions)
                continue
            if output.number != following:
                mapping.hold(output)
                continue
            found: Output | None = output
            while found is not None:
                following += 1
                yield await _value(client, found, mapping.name, has_exceptions)
                found = mapping.take_held(following)
    finally:
        await outputs.aclose()


async def _value(client: Client, output: Output, name: str, has_exceptions: bool) -> Any:
    if not has_exceptions:
        return await unpack(client, output, name)
    if output.status != SUCCEEDED:
        if _shown.displays:
            await _shown.catch_up()
        return failure_as_value(await failure_bytes(client, output))
    try:
        return await unpack(client, output, name)
    except Exception as error:  # noqa: BLE001 - the user asked for it as a value
        return error
