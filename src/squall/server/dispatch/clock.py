"""The machine's clock, and one that a test moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable

from squall.server.model.clock import Clock, Timer

HELD_S = 24 * 3_600.0
"""How long a clock must have stood where it is for `AgeClock` to believe it, in time that passes."""


class SystemClock:
    """The machine's; needs a running event loop for alarms only."""

    def now(self) -> float:
        """See `Clock`."""
        return time.time()

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """See `Clock`."""
        return asyncio.get_running_loop().call_later(delay_s, callback)


class StoppableClock:
    """Another clock whose alarms no longer ring after `stop`: what is over must not act any more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._is_stopped = False

    def now(self) -> float:
        """See `Clock`."""
        return self._clock.now()

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._clock.monotonic()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """See `Clock`."""
        return self._clock.call_later(delay_s, lambda: None if self._is_stopped else callback())

    def stop(self) -> None:
        """No alarm rings any more."""
        self._is_stopped = True


class AgeClock:
    """What time it is for what is thrown away when it is old: the clock's, where it has stood so for a day.

    A clock that is set forward by a month would make all that is kept for a week old at once, and whoever did that by
    mistake has a day to set it back. If it stays, it is right: a machine that began in 1970 has been told the time, or
    one that slept has woken up, and what is old by it must go some time. So after each `HELD_S` of time that passes,
    the clock is believed where it stood lowest since the last time: a jump forward after one to two of them, if
    somebody asks meanwhile. A clock that is set back is believed at once, and so is any by a server that starts.

    What a clock that ran ahead has written is kept for as much longer: rather too long than not as long as was said.
    What one that was behind has written is kept for less, but `HELD_S` after it was set right at least.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looked_at = clock.monotonic()
        self._lead = self._lowest = clock.now() - self._looked_at
        """How far the clock is ahead of the monotonic one: as it is believed, and at least since `_looked_at`."""

    def now(self) -> float:
        """Seconds since 1970."""
        now, passed = self._clock.now(), self._clock.monotonic()
        self._lowest = min(self._lowest, now - passed)
        if passed - self._looked_at >= HELD_S:
            self._lead, self._lowest, self._looked_at = self._lowest, now - passed, passed
        return min(now, self._lead + passed)


class _Alarm:
    """A callback of a `ManualClock`."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """Stands still until `advance` moves it; alarms ring in the order of their times."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._start = now
        self._elapsed_s = 0.0
        self._alarms: list[tuple[float, int, _Alarm]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        """See `Clock`."""
        return self._start + self._elapsed_s

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._elapsed_s

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """See `Clock`."""
        alarm = _Alarm(callback)
        heapq.heappush(self._alarms, (self._elapsed_s + max(delay_s, 0.0), next(self._numbers), alarm))
        return alarm

    def set(self, seconds: float) -> None:
        """Somebody sets the clock on the wall forward, or back; no time passes."""
        self._start += seconds

    def set_wall(self, seconds: float) -> None:
        """Somebody sets the clock on the wall, so much forward or back: alarms and `monotonic` know nothing of it."""
        self._start += seconds

    def advance(self, seconds: float) -> None:
        """Let time pass, ringing every alarm on the way at its own time."""
        until = self._elapsed_s + seconds
        while self._alarms and self._alarms[0][0] <= until:
            at, _, alarm = heapq.heappop(self._alarms)
            self._elapsed_s = max(self._elapsed_s, at)
            if alarm.callback is not None:
                alarm.callback()
        self._elapsed_s = until
