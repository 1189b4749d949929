"""Who gives up containers that are busy, when others with less have waited long.

Places that a function has it keeps until its inputs end, so one with endless work would keep all of them for ever. A
container that gives way takes no more inputs, ends what it runs, and ends. Nobody gives up so much that they would have
less than who gets it: two that want everything come to a half each, and nothing moves then. Only who has nothing at all
gets somebody's last place.

It is told of each change, and keeps in order who has most and who has least of those that have waited long enough. So a
choice costs a few steps of heaps for each line that is looked at, `LOOKS_MAX` at most in one turn of the event loop,
however many functions there are: of each only the one that has waited longest is looked at, and when nobody may give to
one, then nobody may to others of its app that ask for as much.

Lines are looked at in *rounds*: one that has had its turn comes last until all others have had theirs, also where that
takes several turns. When no more may give way for now, the round goes on with who has least, whoever has got a promise.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from squall.server.scheduler.claim import Pending
from squall.server.scheduler.order import Order
from squall.server.scheduler.standing import App, Function, Line

K = TypeVar("K")

GIVE_WAY_S = 2.0
"""How long somebody waits for a place before others give one up."""
LOOKS_MAX = 250
"""Lines, and functions that have come to wait long enough, that are looked at in one turn of the event loop."""


class Chosen(NamedTuple):
    """The function that should give up a container, and for whom."""

    moves: list[tuple[str, Pending]]
    has_more: bool = False
    """Not everybody was looked at: ask again in the next turn."""


class GivingWay:
    """Told of what everybody has and waits for; says who should give to whom."""

    def __init__(self) -> None:
        self._asked_before = float("-inf")
        self._round = 0
        self._soon: Order[Function] = Order()
        """Those whose first has not waited long enough when it was looked at, by when it asked."""
        self._richest: Order[App] = Order()
        self._poorest: Order[App] = Order()
        """Apps that have lines."""

    def changed(self, function: Function) -> None:
        """What it has is not what it was, or who of it waits."""
        app, one = function.app, function.first_without
        _put(app.owners, function, function.share)
        _put(self._richest, app, app.share)
        if one is None or one.asked_at <= self._asked_before:
            self._soon.discard(function)
        else:
            self._soon.set(function, (one.asked_at,))
            one = None
        if function.line is not None and (one is None or one.claim.weight != function.line.weight):
            self._leave(function, function.line)
        if one is not None:
            self._enter(function, one)
        self._rank(app)

    # Who waits

    def _enter(self, function: Function, one: Pending) -> None:
        app, weight = function.app, one.claim.weight
        line = app.line_of.get(weight)
        if line is None:
            line = app.line_of[weight] = Line(app, weight, self._round)
        function.line = line
        line.functions.set(function, (function.share, one.asked_at))
        self._rank_line(line)

    def _leave(self, function: Function, line: Line) -> None:
        function.line = None
        line.functions.discard(function)
        if not len(line.functions):
            del line.app.line_of[line.weight]
        self._rank_line(line)

    def _rank_line(self, line: Line) -> None:
        head = line.functions.first()
        if head is None:
            line.app.lines.discard(line)
        else:
            line.app.lines.set(line, (line.round, *head[0]))

    def _rank(self, app: App) -> None:
        head = app.lines.first()
        if head is None:
            self._poorest.discard(app)
        else:
            round_number, *rank = head[0]
            self._poorest.set(app, (round_number, app.share, *rank))

    def _next(self) -> Line | None:
        """The line of who has least, in this round."""
        first = self._poorest.first()
        if first is None or first[0][0] > self._round:
            return None
        head = first[1].lines.first()
        assert head is not None, "an app in this order has a line"
        return head[1]

    def _pass_over(self, line: Line) -> None:
        """It has had its turn in this round."""
        line.round = self._round + 1
        self._rank_line(line)
        self._rank(line.app)

    # Who gives

    def choose(self, now: float, count: int) -> Chosen:
        """Who should give up a container, and for whom: who has least comes first; at most `count` of them.

        Nothing is changed by it: what each has is told when containers end and get their places.
        """
        if count <= 0:
            return Chosen([])
        self._asked_before = max(self._asked_before, now - GIVE_WAY_S)
        if not self._has_looked_at_all():
            return Chosen([], has_more=True)
        first = self._poorest.first()
        if first is not None:
            self._round = max(self._round, int(first[0][0]))
        moved: list[tuple[Function, Function, Pending]] = []
        for _ in range(LOOKS_MAX):
            line = self._next()
            if line is None or len(moved) == count:
                break
            head = line.functions.first()
            assert head is not None, "a line has somebody in it"
            function, one = head[1], head[1].first_without
            assert one is not None, "who stands in a line waits"
            donor = self._donor(function, one)
            if donor is None:
                self._pass_over(line)
            else:
                moved.append((donor, function, one))
                self._move(donor, function, one, +1)
        is_cut = len(moved) == count
        has_more = not is_cut and self._next() is not None
        for donor, function, one in reversed(moved):
            self._move(donor, function, one, -1)
            if not is_cut and function.line is not None:
                self._pass_over(function.line)
        if not is_cut and not has_more:
            self._round += 1
        return Chosen([(donor.function_id, one) for donor, _, one in moved], has_more)

    def _has_looked_at_all(self) -> bool:
        """Whether everybody who has waited long enough stands in a line; some more do."""
        for _ in range(LOOKS_MAX):
            first = self._soon.first()
            if first is None or first[0][0] > self._asked_before:
                return True
            self.changed(first[1])
        return False

    def _donor(self, function: Function, one: Pending) -> Function | None:
        """The function with most of the app with most, or else of its own app, if it would still have as much as who
        gets the place."""
        first = self._richest.first()
        if first is None:
            return None
        app, richest = function.app, first[1]
        if richest is not app:
            donor = _largest(richest, function)
            if donor is not None and _may_give(donor, richest.share, app.share, one):
                return donor
        donor = _largest(app, function)
        if donor is None:
            return None
        return donor if _may_give(donor, donor.share, function.share, one) else None

    def _move(self, donor: Function, function: Function, one: Pending, sign: int) -> None:
        """The place changes hands, or goes back."""
        donor.share -= sign * donor.weight
        donor.app.share -= sign * donor.weight
        function.share += sign * one.claim.weight
        function.app.share += sign * one.claim.weight
        function.promised += sign
        self.changed(donor)
        self.changed(function)


def _put(order: Order[K], key: K, share: int) -> None:
    """Those that have most come first, those that have nothing not at all."""
    if share > 0:
        order.set(key, (-share,))
    else:
        order.discard(key)


def _largest(app: App, function: Function) -> Function | None:
    """Of an app, another function than that one, with most."""
    first = app.owners.first()
    if first is not None and first[1] is function:
        app.owners.discard(function)
        rank, first = first[0], app.owners.first()
        app.owners.set(function, rank)
    return None if first is None else first[1]


def _may_give(donor: Function, has: int, lacks: int, one: Pending) -> bool:
    # Who has nothing at all gets the last place, too: they take turns then.
    return lacks == 0 or has - donor.weight >= lacks + one.claim.weight
