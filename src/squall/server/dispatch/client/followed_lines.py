"""The log lines that one client follows, and what is written to a terminal it lends: results must not pass them.

A line that has come is on its way to the client one turn of the loop later, at best. Results that came after it wait
for that; a client that does not read its lines, or is sent endless ones, gets its results all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squall.server.model.clock import Clock
    from squall.server.model.logs import Progress

HOLD_S = 0.1
"""How long results wait for lines; then they do no more until the client has read them all."""
LOOK_S = 0.002
"""How often it is looked after the lines of a client that is behind."""


class FollowedLines:
    """How far a client's reads of logs are, and which results may go."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.reads: set[Progress] = set()
        """Those that follow."""
        self._goals: list[tuple[Progress, int]] = []
        self._held_count = 0
        self._held_since = 0.0
        self._has_given_up = False

    def may_go(self, waiting_count: int) -> int:
        """How many of the results that wait, the oldest first, have no line before them any more."""
        behind = [(read, read.came) for read in self.reads if read.taken < read.came]
        if not behind:
            self._goals = []
            self._has_given_up = False
            return waiting_count
        if self._has_given_up:
            return waiting_count
        if not self._goals:
            self._hold(behind, waiting_count)
            return 0
        if any(read.taken < goal for read, goal in self._goals if read in self.reads):
            if self._clock.monotonic() - self._held_since < HOLD_S:
                return 0
            self._has_given_up = True
            self._goals = []
            return waiting_count
        # Those that came while the first ones waited have lines of their own before them.
        going_count = min(self._held_count, waiting_count)
        self._hold(behind, waiting_count - going_count)
        return going_count

    def _hold(self, behind: list[tuple[Progress, int]], count: int) -> None:
        self._goals = behind if count else []
        self._held_count = count
        self._held_since = self._clock.monotonic()
