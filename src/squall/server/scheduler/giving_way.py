"""Who gives up containers that are busy, when others with less have waited long.

Places that a function has it keeps until its inputs end, so one with endless work would keep all of them for ever. A
container that gives way takes no more inputs, ends what it runs, and ends. Nobody gives up so much that they would have
less than who gets it: two that want everything come to a half each, and nothing moves then. Only who has nothing at all
gets somebody's last place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from squall.server.scheduler.claim import Pending

GIVE_WAY_S = 2.0
"""How long somebody waits for a place before others give one up."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a function has and wants."""

    app_id: str
    function_id: str
    share: int
    weight: int
    """Of one of its containers."""
    waiting: tuple[Pending, ...] = ()


def give_way(standings: Iterable[Standing], now: float, count: int) -> list[tuple[str, Pending]]:
    """The function that should give up a container, and for whom; at most `count` of them."""
    shares = _Shares(standings)
    waiting = [
        one for known in shares.known.values() for one in known.waiting[:count] if now - one.asked_at >= GIVE_WAY_S
    ]
    found: list[tuple[str, Pending]] = []
    while waiting and len(found) < count:
        one = min(waiting, key=lambda one: (*shares.of(one), one.asked_at))
        waiting.remove(one)
        donor = shares.donor(one)
        if donor is not None:
            shares.move(donor, one)
            found.append((donor, one))
    return found


class _Shares:
    """What everybody has, as it changes with each container that is given up."""

    def __init__(self, standings: Iterable[Standing]) -> None:
        self.known = {one.function_id: one for one in standings}
        self._functions = Counter({one.function_id: one.share for one in self.known.values()})
        self._apps: Counter[str] = Counter()
        for one in self.known.values():
            self._apps[one.app_id] += one.share

    def of(self, one: Pending) -> tuple[int, int]:
        """What its app has, and its function."""
        return self._apps[one.app_id], self._functions[one.function_id]

    def donor(self, one: Pending) -> str | None:
        """The function with most of the app with most, or else of its own app, if it would still have as much as who
        gets the place."""
        richest = max(self._apps, key=lambda app_id: self._apps[app_id])
        if richest != one.app_id:
            function_id = self._largest(richest, one)
            if function_id is not None and self._may_give(
                function_id, self._apps[richest], self._apps[one.app_id], one
            ):
                return function_id
        function_id = self._largest(one.app_id, one)
        if function_id is None:
            return None
        shares = self._functions[function_id], self._functions[one.function_id]
        return function_id if self._may_give(function_id, *shares, one) else None

    def _largest(self, app_id: str, one: Pending) -> str | None:
        candidates = [
            key
            for key, known in self.known.items()
            if known.app_id == app_id and key != one.function_id and self._functions[key] > 0
        ]
        return max(candidates, key=lambda key: self._functions[key], default=None)

    def _may_give(self, function_id: str, has: int, lacks: int, one: Pending) -> bool:
        # Who has nothing at all gets the last place, too: they take turns then.
        return lacks == 0 or has - self.known[function_id].weight >= lacks + one.claim.weight

    def move(self, donor: str, one: Pending) -> None:
        """The place changes hands."""
        weight = self.known[donor].weight
        self._functions[donor] -= weight
        self._apps[self.known[donor].app_id] -= weight
        self._functions[one.function_id] += one.claim.weight
        self._apps[one.app_id] += one.claim.weight
