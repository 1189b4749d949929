"""The machine's clock, and one that a test moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable

from squall.server.model.clock import Clock, Timer


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
    """What time it is for what is thrown away when it is old: the clock's, but never ahead of the time that has passed.

    A clock that is set forward by a month would make all that is kept for a week old at once. A server that is started
    after that believes it. The time a machine sleeps does not count, and what a clock that ran ahead has written is
    kept for as much longer: rather too long than not as long as was said.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_at = clock.now() - clock.monotonic()

    def now(self) -> float:
        """Seconds since 1970."""
        return min(self._clock.now(), self._started_at + self._clock.monotonic())


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
