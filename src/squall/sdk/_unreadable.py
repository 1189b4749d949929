"""Answers that cannot be read: what is asked again over each new connection is not asked so for ever.

Which question an unreadable frame answers nobody knows: its header is what cannot be read. So each that was open when
it came is suspected, and one that is suspected so often without a break is given up. Those that are answered in between
are suspected no more. Requests go before calls: a call may be open for days, beside anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from squall.exception import ServiceError

TIMES_MAX = 3
"""How often a question is asked whose answer cannot be read."""
APART_S = 60.0
"""What happens as rarely as that is not the same again."""


class Unreadable:
    """What is suspected, and how often it was."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[Any, int] = {}
        self._noted_at = 0.0

    def note(self, requests: Iterable[int], calls: Iterable[str]) -> None:
        """A frame could not be read while these were open."""
        now = self._clock()
        before = self._times if now - self._noted_at < APART_S else {}
        self._noted_at = now
        times: dict[Any, int] = {key: before.get(key, 0) + 1 for key in list(requests)}
        if not any(count >= TIMES_MAX for count in times.values()):
            # With one of them given up, the next connection tells whether it was that.
            times |= {key: before.get(key, 0) + 1 for key in list(calls)}
        self._times = times

    def hopeless(self, keys: Iterable[Any]) -> list[Any]:
        """Those of these that are to be given up."""
        return [key for key in list(keys) if self._times.get(key, 0) >= TIMES_MAX]

    def error(self, what: str, reason: str) -> ServiceError:
        """To be raised for one that is given up; `what` begins the sentence."""
        return ServiceError(f"{what}what the server sends cannot be read ({reason}), {TIMES_MAX} times running")
