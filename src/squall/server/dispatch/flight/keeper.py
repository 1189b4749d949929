"""Writes behind what must outlive the server: calls with failures, arguments of inputs that failed, functions' minutes.

Nobody waits for it. What cannot be written now is tried again; what comes faster than it can be written is dropped
and counted, never the calls themselves.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from squall.protocol.errors import PlatformError
from squall.protocol.flight import CallFlight, InputFlight
from squall.protocol.records import replace, to_wire
from squall.server.dispatch.clock import AgeClock
from squall.server.dispatch.flight.account import Find, account_of
from squall.server.dispatch.flight.earlier import look_up
from squall.server.dispatch.flight.recorder import CallTrack, FlightRecorder
from squall.server.model.flight import FlightLimits, StoredFlight, StoredMinute
from squall.server.model.function_minute import FunctionMinute

if TYPE_CHECKING:
    from squall.server.model.clock import Clock
    from squall.server.model.config import ServerConfig
    from squall.server.model.store import Store, StoredInput

_log = logging.getLogger("squall.server.dispatch.flight.keeper")

FLIGHTS_MAX = 10_000
DETAIL_BYTES_MAX = 64 * 2**20
DETAIL_CHARS_MAX = 64 * 2**10
"""Of one call; inputs beyond it are counted only."""
INPUTS_MAX = 10_000
UNKEPT_INPUTS_MAX = 1_000
UNKEPT_BYTES_MAX = 32 * 2**20
"""Of all apps together, as is what the store keeps: it is for looking at failures, and who fails most has most. What
was spawned is kept whatever others do."""
TICK_FLIGHTS_MAX = 200
MINUTES_KEPT_S = 7 * 24 * 3600.0
MINUTES_MAX = 500_000
MINUTES_EVERY_S = 15.0
UNWRITTEN_MINUTES_MAX = 50_000
"""That wait for a store that is away; the oldest are lost."""
PRUNE_EVERY_S = 60.0


class FlightKeeper:
    """Between the recorder and the store."""

    def __init__(
        self, recorder: FlightRecorder, store: Store, clock: Clock, config: ServerConfig, *,
        find: Find, look: Callable[[FunctionMinute], None],
    ) -> None:  # fmt: skip
        self._recorder = recorder
        self._store = store
        self._clock = clock
        self._age_clock = AgeClock(clock)
        self._config = config
        self._find = find
        self._look = look
        """Notes in a minute how its function is now."""
        self._inputs: list[StoredInput] = []
        self._input_bytes = 0
        self._over: list[FunctionMinute] = []
        self._is_writing = False
        self._is_refused = False
        """Whether the store took nothing the last time."""
        self._minutes_at = self._pruned_at = clock.monotonic()
        self.dropped_inputs = 0
        """Arguments that were not kept: they were too large, or too many came at once."""
        if config.failed_input_bytes_max > 0:
            recorder.keep_input = self.keep_input

    def keep_input(self, track: CallTrack, one: StoredInput) -> bool:
        """Keep the arguments of an input that failed; whether there was room for them."""
        size = len(one.value)
        is_full = len(self._inputs) >= UNKEPT_INPUTS_MAX or self._input_bytes + size > UNKEPT_BYTES_MAX
        if is_full or size > self._config.failed_input_bytes_max:
            self.dropped_inputs += 1
            return False
        self._inputs.append(one)
        self._input_bytes += size
        return True

    def unwritten_input(self, call_id: str, index: int) -> StoredInput | None:
        """Arguments that the store does not have yet."""
        return next((one for one in self._inputs if one.call_id == call_id and one.index == index), None)

    def fold(self) -> None:
        """Count up what came until now."""
        self._recorder.fold()

    async def tick(self) -> None:
        """Count up what came, and write what is new."""
        self.fold()
        if self._is_writing:
            return
        self._is_writing = True
        try:
            await self._write(TICK_FLIGHTS_MAX)
        except PlatformError as error:
            # Each second, for as long as a disk is full: it is said once.
            if not self._is_refused:
                _log.warning("what became of calls cannot be kept now: %s", error.message)
            self._is_refused = True
        else:
            if self._is_refused:
                _log.warning("what became of calls is kept again")
            self._is_refused = False
        finally:
            self._is_writing = False

    async def settle(self) -> None:
        """Write all there is, as far as the store takes it: the server ends."""
        self.fold()
        self._minutes_at = float("-inf")
        try:
            await self._write(FLIGHTS_MAX)
        except PlatformError as error:
            _log.warning("what became of calls could not be kept: %s", error.message)

    async def _write(self, flights_max: int) -> None:
        now = self._clock.monotonic()
        tracks = list(self._recorder.changed.values())[:flights_max]
        for track in tracks:
            await look_up(self._store, self._recorder, track)
        tracks = [track for track in tracks if track.bytes]  # others were forgotten meanwhile
        inputs, flights = tuple(self._inputs), tuple(stored_flight(track, self._find) for track in tracks)
        if flights or inputs:
            for track in tracks:
                self._recorder.changed.pop(track.call_id, None)
            try:
                await self._store.put_flights(flights, inputs, self._clock.now())
            except PlatformError:
                for track in tracks:
                    if track.bytes:
                        self._recorder.changed.setdefault(track.call_id, track)
                raise
            del self._inputs[: len(inputs)]
            self._input_bytes = sum(len(one.value) for one in self._inputs)
        if now - self._minutes_at >= MINUTES_EVERY_S:
            self._minutes_at = now
            await self._write_minutes()
        if now - self._pruned_at >= PRUNE_EVERY_S:
            self._pruned_at = now
            await self._prune()

    async def _write_minutes(self) -> None:
        self._over += self._recorder.take_minutes(self._clock.now())
        del self._over[:-UNWRITTEN_MINUTES_MAX]
        minutes = [*self._over, *self._recorder.minutes.values()]
        count = len(self._over)
        for minute in minutes:
            self._look(minute)
        await self._store.put_minutes(
            tuple(StoredMinute(one.function_id, one.began_at, one.encoded(), one.base_id) for one in minutes)
        )
        del self._over[:count]

    async def _prune(self) -> None:
        now = self._age_clock.now()
        await self._store.prune_flights(
            FlightLimits(
                now - self._config.results_kept_s,
                FLIGHTS_MAX,
                DETAIL_BYTES_MAX,
                INPUTS_MAX,
                self._config.failed_input_bytes_max,
            )
        )
        await self._store.prune_minutes(now - MINUTES_KEPT_S, MINUTES_MAX)

    def unwritten_minutes(self) -> list[FunctionMinute]:
        """Those that the store may not have in full yet."""
        return [*self._over, *self._recorder.minutes.values()]


def stored_flight(track: CallTrack, find: Find) -> StoredFlight:
    """The call as it is kept: its inputs that failed, and the first of the others, as many as there is room for."""
    flight = account_of(track, find, 0, 100)
    if flight.summary.failed_count:
        failed = account_of(track, find, 0, 100, is_failed=True)
        of_both = {one.index: one for one in (*failed.inputs, *flight.inputs[:20])}
        inputs = tuple(sorted(of_both.values(), key=lambda one: one.index))
        flight = replace(flight, inputs=inputs)
    detail, inputs = _encoded(flight), flight.inputs
    while len(detail) > DETAIL_CHARS_MAX and len(inputs) > 1:
        inputs = _fewer(inputs)
        detail = _encoded(replace(flight, inputs=inputs))
    summary = flight.summary
    finished_at = summary.created_at + (summary.duration_ms or 0.0) / 1000
    return StoredFlight(
        track.call_id,
        summary.function_id,
        summary.app_id,
        summary.created_at,
        finished_at,
        summary.failed_count > 0,
        json.dumps(to_wire(summary)),
        detail,
    )


def _fewer(inputs: tuple[InputFlight, ...]) -> tuple[InputFlight, ...]:
    return inputs[: len(inputs) // 2]


def _encoded(flight: CallFlight) -> str:
    return json.dumps(to_wire(flight), separators=(",", ":"))
