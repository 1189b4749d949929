"""How long functions took to load when their templates were made: what takes longer than a start waits is not waited
for.

Of other versions, too: a function that takes minutes as a rule still does when its code is edited.
"""

from __future__ import annotations

import collections

_KNOWN_MAX = 4_096


class Loads:
    """Seconds, by function; of more than `_KNOWN_MAX` those heard of longest ago are forgotten.

    Of a variant that was never loaded, what another one of the same function (`follows_id`) took is expected.
    """

    def __init__(self) -> None:
        self._seconds: collections.OrderedDict[tuple[str, bool], float] = collections.OrderedDict()
        """By id, and whether it is one that others follow."""

    def not_within(self, function_id: str, took_s: float, follows_id: str = "") -> None:
        """One was not loaded in so long; how long it takes is not known by that, where it is known to be longer."""
        self.note(function_id, max(took_s, self.expected_s(function_id, follows_id)), follows_id)

    def note(self, function_id: str, took_s: float, follows_id: str = "") -> None:
        """One was loaded."""
        for one in ((function_id, False), (follows_id, True)):
            if one[0]:
                self._seconds[one] = took_s
                self._seconds.move_to_end(one)
        while len(self._seconds) > _KNOWN_MAX:
            self._seconds.popitem(last=False)

    def expected_s(self, function_id: str, follows_id: str = "") -> float:
        """As long as the last time; 0 where nobody knows."""
        of_others = self._seconds.get((follows_id, True), 0.0)
        return self._seconds.get((function_id, False), of_others)
