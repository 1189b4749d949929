"""Who gives up containers that are busy, when others with less have waited long.

Places that a function has it keeps until its inputs end, so one with endless work would keep all of them for ever. A
container that gives way takes no more inputs, ends what it runs, and ends. Nobody gives up so much that they would have
less than who gets it: two that want everything come to a half each, and nothing moves then. Only who has nothing at all
gets somebody's last place.

All of it is decided in one turn of the event loop, so it costs one pass over the functions and a few steps of heaps for
each place, however many wait: of each function only the one that has waited longest is looked at, and when nobody may
give to one, then nobody may to others of its app that ask for as much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from squall.server.scheduler.claim import Pending
from squall.server.scheduler.order import Order

GIVE_WAY_S = 2.0
"""How long somebody waits for a place before others give one up."""

_Line = tuple[str, int]
"""Those of one app that wait for places of one weight: they have the same to hope for."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a function has and wants."""

    app_id: str
    function_id: str
    share: int
    weight: int
    """Of one of its containers."""
    waiting: Iterable[Pending] = ()
    """Who has waited longest comes first."""


def give_way(standings: Iterable[Standing], now: float, count: int) -> list[tuple[str, Pending]]:
    """The function that should give up a container, and for whom; at most `count` of them."""
    if count <= 0:
        return []
    shares = _Shares(standings)
    waiting = _Waiting(shares, asked_before=now - GIVE_WAY_S)
    found: list[tuple[str, Pending]] = []
    while len(found) < count and (first := waiting.first()) is not None:
        line, one = first
        donor = shares.donor(one)
        if donor is None:
            waiting.give_up(line)
        else:
            shares.move(donor, one)
            waiting.moved(donor, line, one)
            found.append((donor, one))
    return found


class _Shares:
    """What everybody has, as it changes with each container that is given up."""

    def __init__(self, standings: Iterable[Standing]) -> None:
        self.known = {one.function_id: one for one in standings}
        self.functions = {one.function_id: one.share for one in self.known.values()}
        self.apps: Counter[str] = Counter()
        self._of_app: dict[str, list[str]] = {}
        for one in self.known.values():
            self.apps[one.app_id] += one.share
            self._of_app.setdefault(one.app_id, []).append(one.function_id)
        self._richest: Order[str] = Order()
        for app_id, share in self.apps.items():
            self._richest.set(app_id, (-share,))
        self._largest_of: dict[str, Order[str]] = {}
        """Of an app, its functions that have anything; made when it is asked for."""

    def donor(self, one: Pending) -> str | None:
        """The function with most of the app with most, or else of its own app, if it would still have as much as who
        gets the place."""
        first = self._richest.first()
        richest = one.app_id if first is None else first[1]
        if richest != one.app_id:
            function_id = self._largest(richest, one)
            if function_id is not None and self._may_give(function_id, self.apps[richest], self.apps[one.app_id], one):
                return function_id
        function_id = self._largest(one.app_id, one)
        if function_id is None:
            return None
        shares = self.functions[function_id], self.functions[one.function_id]
        return function_id if self._may_give(function_id, *shares, one) else None

    def _largest(self, app_id: str, one: Pending) -> str | None:
        order = self._largest_of.get(app_id)
        if order is None:
            order = self._largest_of[app_id] = Order()
            for function_id in self._of_app[app_id]:
                if self.functions[function_id] > 0:
                    order.set(function_id, (-self.functions[function_id],))
        first = order.first()
        if first is not None and first[1] == one.function_id:
            order.discard(one.function_id)
            rank, first = first[0], order.first()
            order.set(one.function_id, rank)
        return None if first is None else first[1]

    def _may_give(self, function_id: str, has: int, lacks: int, one: Pending) -> bool:
        # Who has nothing at all gets the last place, too: they take turns then.
        return lacks == 0 or has - self.known[function_id].weight >= lacks + one.claim.weight

    def move(self, donor: str, one: Pending) -> None:
        """The place changes hands."""
        self._change(donor, -self.known[donor].weight)
        self._change(one.function_id, one.claim.weight)

    def _change(self, function_id: str, weight: int) -> None:
        app_id = self.known[function_id].app_id
        self.functions[function_id] += weight
        self.apps[app_id] += weight
        self._richest.set(app_id, (-self.apps[app_id],))
        order = self._largest_of.get(app_id)
        if order is None:
            return
        if self.functions[function_id] > 0:
            order.set(function_id, (-self.functions[function_id],))
        else:
            order.discard(function_id)


class _Waiting:
    """The first of each function that have waited long enough, the one whose app and function have least first."""

    def __init__(self, shares: _Shares, asked_before: float) -> None:
        self._shares = shares
        self._asked_before = asked_before
        self._left: dict[str, Iterator[Pending]] = {}
        self._first: dict[str, Pending] = {}
        """Of each function that stands in a line."""
        self._lines: dict[_Line, Order[str]] = {}
        self._lines_of: dict[str, set[_Line]] = {}
        self._order: Order[_Line] = Order()
        for known in shares.known.values():
            self._left[known.function_id] = iter(known.waiting)
            self._enqueue(known.function_id)
        for line in self._lines:
            self._rank(line)

    def _enqueue(self, function_id: str) -> _Line | None:
        """The next of a function stands in its line, if it has one more."""
        one = next(self._left[function_id], None)
        if one is None or one.asked_at > self._asked_before:
            return None
        app_id = self._shares.known[function_id].app_id
        line = (app_id, one.claim.weight)
        self._first[function_id] = one
        self._lines_of.setdefault(app_id, set()).add(line)
        self._lines.setdefault(line, Order()).set(function_id, (self._shares.functions[function_id], one.asked_at))
        return line

    def _rank(self, line: _Line) -> None:
        first = self._lines[line].first()
        if first is None:
            self._order.discard(line)
        else:
            self._order.set(line, (self._shares.apps[line[0]], *first[0]))

    def first(self) -> tuple[_Line, Pending] | None:
        """Who has least, and its line."""
        first = self._order.first()
        if first is None:
            return None
        head = self._lines[first[1]].first()
        assert head is not None, "a line in the order has somebody in it"
        return first[1], self._first[head[1]]

    def give_up(self, line: _Line) -> None:
        """Nobody may give to the first of it, nor to the others, who have as much or more."""
        self._order.discard(line)
        self._lines_of[line[0]].discard(line)

    def moved(self, donor: str, line: _Line, one: Pending) -> None:
        """That one got a place of the donor."""
        self._lines[line].discard(one.function_id)
        del self._first[one.function_id]
        self._enqueue(one.function_id)
        given = self._first.get(donor)
        giver = self._shares.known[donor].app_id
        if given is not None:
            its_line = (giver, given.claim.weight)
            self._lines[its_line].set(donor, (self._shares.functions[donor], given.asked_at))
        for app_id in {giver, line[0]}:
            for other in self._lines_of.get(app_id, ()):
                self._rank(other)
