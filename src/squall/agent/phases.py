"""How long the stretches of a start take."""

from __future__ import annotations

import time


class Phases:
    """Durations in milliseconds, by name, in order."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._last = time.monotonic()

    def mark(self, name: str) -> None:
        """A stretch ends here, perhaps again."""
        now = time.monotonic()
        self.ms[name] = round(self.ms.get(name, 0.0) + (now - self._last) * 1_000, 3)
        self._last = now
