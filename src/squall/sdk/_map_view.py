"""How maps look to a person: how many inputs are done, of how many, how quickly, and how many failed."""

from __future__ import annotations

from collections import deque

LINE_EVERY_S = 10.0
"""Where nothing can be drawn over, a line of a map that takes long."""
RATE_OVER_S = 5.0
"""The rate is that of so many seconds, or of all there were."""


class MapState:
    """One map, as far as it is."""

    def __init__(self, function_name: str, began_at: float) -> None:
        self.function_name = function_name
        self.done = 0
        """Inputs with a result, also those that failed."""
        self.failed = 0
        self.total = 0
        """All inputs, or those that were pulled so far."""
        self.is_total_known = False
        self.is_over = False
        self._samples: deque[tuple[float, int]] = deque([(began_at, 0)])

    def got_on(self, now: float, done: int, failed: int, total: int, is_total_known: bool) -> None:
        """So far it is now."""
        self.done, self.failed, self.total, self.is_total_known = done, failed, total, is_total_known
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] >= RATE_OVER_S:
            self._samples.popleft()

    @property
    def per_second(self) -> float:
        """Inputs done in a second, lately."""
        (before, done_before), (now, done) = self._samples[0], self._samples[-1]
        return (done - done_before) / (now - before) if now > before else 0.0

    def text(self) -> str:
        """In one line."""
        total = f"{self.total:,}" if self.is_total_known else f"{self.total:,}+"
        rate = self.per_second
        parts = [f"{self.function_name}: {self.done:,} of {total}", f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        return " · ".join(parts)


class MapView:
    """All maps under way; those that began first come first."""

    def __init__(self) -> None:
        self._said_at: dict[MapState, float] = {}
        """When a line was last written of each, or it was first heard of."""
        self._has_lines: set[MapState] = set()

    def status(self, state: MapState) -> str:
        """What to draw now that this map got on; empty when none is under way."""
        self._note(state, 0.0)
        return " | ".join(one.text() for one in self._said_at)

    def line(self, state: MapState, now: float) -> str:
        """What to write now that this map got on, mostly nothing; if lines were written, the last says how it ended."""
        said_at = self._note(state, now)
        if state.is_over:
            was_said = state in self._has_lines
            self._has_lines.discard(state)
            return state.text() if was_said else ""
        if now - said_at < LINE_EVERY_S:
            return ""
        self._said_at[state] = now
        self._has_lines.add(state)
        return state.text()

    def _note(self, state: MapState, now: float) -> float:
        if state.is_over:
            return self._said_at.pop(state, now)
        return self._said_at.setdefault(state, now)
