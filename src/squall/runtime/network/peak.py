"""How many of something were in use at once lately: what was needed a moment ago may be needed again."""

from __future__ import annotations

HALF_LIFE_S = 60.0


class RecentPeak:
    """The highest count of late. It falls by half in each `half_life_s` that sees no higher one."""

    def __init__(self, half_life_s: float = HALF_LIFE_S) -> None:
        self._half_life_s = half_life_s
        self._value = 0.0
        self._at_s = 0.0

    def note(self, count: int, now_s: float) -> None:
        """So many are in use now."""
        self._value = max(self._decayed(now_s), float(count))
        self._at_s = now_s

    def at(self, now_s: float) -> int:
        """The peak as it counts now."""
        return round(self._decayed(now_s))

    def _decayed(self, now_s: float) -> float:
        # The clock is monotonic, but not every caller reads it at the same moment.
        return float(self._value * 0.5 ** (max(now_s - self._at_s, 0.0) / self._half_life_s))
