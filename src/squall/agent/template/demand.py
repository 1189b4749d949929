"""How many cells and parked clones of a template are to be kept ready: pure, from the starts of late."""

from __future__ import annotations

import math
from dataclasses import dataclass

from squall.protocol.template import FUNCTION

WINDOW_S = 60.0
"""A start counts one at first, and e times less after so long."""
PARKED_MAX = 8
PARKED_IDLE_S = 600.0
"""A function that nobody has started for so long has none parked: a clone that waits holds memory of its own."""
STARTS_PER_PARKED = 16.0
CELLS_MAX = 200
CELLS_IDLE_S = 300.0
AT_ONCE_S = 2.0
"""Starts within so long of the first one come at once: as many as came so may come so again, and each wants a cell."""
HOT = 1.5
"""Starts of late that make a function hot."""


@dataclass(frozen=True, slots=True)
class Targets:
    """So many are to be ready."""

    cell_count: int
    parked_count: int


class Demand:
    """Counts starts, in no more memory than a few numbers."""

    def __init__(self, now: float) -> None:
        self._level = self._peak = 0.0
        self._at_once = 0
        self._since = now
        self.last_at = now

    def add(self, now: float) -> None:
        """A container was started."""
        if now - self._since > AT_ONCE_S or not self._at_once:
            self._since, self._at_once = now, 0
        self._at_once += 1
        self._peak = max(self.peak(now), self._at_once)
        self._level = self.level(now) + 1.0
        self.last_at = max(now, self.last_at)

    def level(self, now: float) -> float:
        """Starts of late."""
        return self._level * self._left(now)

    def peak(self, now: float) -> float:
        """As many as came at once, of late."""
        return self._peak * self._left(now)

    def _left(self, now: float) -> float:
        return math.exp(-max(0.0, now - self.last_at) / WINDOW_S)

    def targets(self, kind: str, now: float) -> Targets:
        """How many are to be ready for a template of this kind."""
        level, idle_s = self.level(now), now - self.last_at
        parked_count = 0
        if self._level and idle_s <= PARKED_IDLE_S:
            # What is loaded already is nearly all of a start of a function template; of an image template it is less.
            parked_count = min(PARKED_MAX, (kind == FUNCTION) + (level >= HOT) + int(level / STARTS_PER_PARKED))
        cell_count = 0
        if self._level and idle_s <= CELLS_IDLE_S:
            cell_count = min(CELLS_MAX, max(1, math.ceil(self.peak(now))))
        return Targets(cell_count, parked_count)
