"""The order in which templates are made and used, told as times."""

from __future__ import annotations

from collections.abc import Callable

STEP_S = 1e-6


class OrderedTimes:
    """Seconds since 1970 that never go back: whoever sets the clock back makes nothing that is used the one that was
    used longest ago. Until the clock has caught up, times are a little later one by one.

    Args:
        now: the clock's.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last = float("-inf")

    def __call__(self) -> float:
        """Not earlier than any before."""
        now = self._now()
        self._last = now if now >= self._last else self._last + STEP_S
        return self._last
