"""How long functions took to load when their templates were made: what takes longer than a start waits is not waited
for.

Of other versions, too: a function that takes minutes as a rule still does when its code is edited.
"""

from __future__ import annotations

import collections

_KNOWN_MAX = 4_096


class Loads:
    """Seconds, by function; of more than `_KNOWN_MAX` those heard of longest ago are forgotten."""

    def __init__(self) -> None:
        self._seconds: collections.OrderedDict[str, float] = collections.OrderedDict()

    def not_within(self, function_id: str, took_s: float) -> None:
        """One was not loaded in so long; how long it takes is not known by that, where it is known to be longer."""
        self.note(function_id, max(took_s, self.expected_s(function_id)))

    def note(self, function_id: str, took_s: float) -> None:
        """One was loaded."""
        self._seconds[function_id] = took_s
        self._seconds.move_to_end(function_id)
        while len(self._seconds) > _KNOWN_MAX:
            self._seconds.popitem(last=False)

    def expected_s(self, function_id: str) -> float:
        """As long as the last time; 0 where nobody knows."""
        return self._seconds.get(function_id, 0.0)
