"""Outputs of many durable calls for one question: those there are, or the first that come.

Whoever asks about a thousand calls and is answered with one output asks again about the others. So an answer waits a
moment for more, unless it has half of them, or a failure: that is all that most callers want to hear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from squall.protocol.call import SUCCEEDED, OutputBatch
from squall.protocol.errors import INVALID, PlatformError
from squall.server.dispatch.durable.expired import why_unknown
from squall.server.dispatch.durable.outputs import WAIT_MAX_S, batch_of
from squall.server.dispatch.function.call_table import CallTable
from squall.server.model.clock import Clock
from squall.server.model.config import ServerConfig
from squall.server.model.store import Store, StoredOutput

if TYPE_CHECKING:
    from squall.server.dispatch.durable.durable import Durable

CALLS_MAX = 1_000
"""Of one question."""
BYTES_MAX = 4 * 2**20
"""Of values in one answer, or one value more."""
LINGER_S = 0.1
"""How long what is there waits for more."""


class Gathering:
    """Answers `CallGather`."""

    def __init__(self, durable: Durable, store: Store, calls: CallTable, clock: Clock, config: ServerConfig) -> None:
        self._durable = durable
        self._store = store
        self._calls = calls
        self._clock = clock
        self._config = config

    async def apps_of(self, call_ids: Sequence[str]) -> frozenset[str]:
        """The apps that these calls are of.

        Raises:
            PlatformError: `not_found` or `expired` for one that is not known, `invalid` for one without inputs, for too
                many, and for none.
        """
        if not 1 <= len(call_ids) <= CALLS_MAX or len(set(call_ids)) != len(call_ids):
            raise PlatformError(INVALID, f"CallGather: takes from 1 to {CALLS_MAX:,} calls, each once")
        living = {one: call for one in call_ids if (call := self._calls.get(one)) is not None and call.is_durable}
        stored = {one.call_id: one for one in await self._store.get_calls([c for c in call_ids if c not in living])}
        for call_id in call_ids:
            if call_id not in living and call_id not in stored:
                raise why_unknown(call_id, self._clock.now(), self._config.results_kept_s)
        for one in stored.values():
            if not one.input_count and not one.is_growing:
                raise PlatformError(INVALID, f"CallGather: call {one.call_id} has no inputs, so there is no result")
        apps = [call.dispatcher.spec.app_id for call in living.values()]
        return frozenset([*apps, *[one.app_id for one in stored.values()]])

    async def gather(self, call_ids: Sequence[str], timeout_s: float) -> tuple[OutputBatch, bytes]:
        """Outputs of the first inputs of these calls, numbered as the calls are; none when none is there in time."""
        found: dict[str, StoredOutput] = {}
        news = asyncio.Event()

        def tell(output: StoredOutput) -> None:
            found[output.call_id] = output
            news.set()

        def is_enough() -> bool:
            outputs = found.values()
            return (
                2 * len(found) >= len(call_ids)
                or any(one.status != SUCCEEDED for one in outputs)
                or sum([len(one.value) for one in outputs]) >= BYTES_MAX
            )

        # Registered before the store is asked: an output that comes in between is not missed.
        with self._durable.telling([(call_id, 0) for call_id in call_ids], tell):
            asked = [call_id for call_id in call_ids if not self._durable.is_unfinished(call_id, 0)]
            for output in await self._store.first_outputs(asked, BYTES_MAX):
                found[output.call_id] = output
            if not found and timeout_s > 0:
                await self._wait(news, lambda: bool(found), min(timeout_s, WAIT_MAX_S))
            if found and timeout_s > 0:
                await self._wait(news, is_enough, min(timeout_s, LINGER_S))
        return _numbered(call_ids, found)

    async def _wait(self, news: asyncio.Event, is_enough: Callable[[], bool], seconds: float) -> None:
        is_late = False

        def late() -> None:
            nonlocal is_late
            is_late = True
            news.set()

        timer = self._clock.call_later(seconds, late)
        try:
            while not is_late and not is_enough():
                news.clear()
                await news.wait()
        finally:
            timer.cancel()


def _numbered(call_ids: Sequence[str], found: dict[str, StoredOutput]) -> tuple[OutputBatch, bytes]:
    outputs: list[tuple[int, StoredOutput]] = []
    size_bytes = 0
    for number, call_id in enumerate(call_ids):
        if call_id in found and size_bytes < BYTES_MAX:
            outputs.append((number, found[call_id]))
            size_bytes += len(found[call_id].value)
    return batch_of("", outputs)
