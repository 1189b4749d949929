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

What is chosen need not be possible: who has most may have no container that may go, or none whose place would do. So
each choice is tried at once. A function that could not give is passed over, and the next one asked, until somebody
gives or nobody is left; then it is the turn of who waits next. Who has no room for a claim is not asked again
while others ask for the same, whatever their image; who just lacked the image is, for another image. So where all ask
for as much, what cannot be done is tried once in a round; it keeps nobody waiting who can be helped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, TypeVar

from squall.server.scheduler.claim import Claim, Pending
from squall.server.scheduler.order import Order
from squall.server.scheduler.promises import Promises
from squall.server.scheduler.standing import App, Function, Line

K = TypeVar("K")

GIVE_WAY_S = 2.0
"""How long somebody waits for a place before others give one up."""
LOOKS_MAX = 250
"""Lines, donors, and functions that have come to wait long enough, that are looked at in one turn of the event loop."""
REFUSED_S = 5.0
"""How long a function that had nothing to give is not asked again."""


class Answer(Enum):
    """What came of a move that was tried."""

    MADE = "made"
    UNFIT = "unfit"
    """None of its containers that may go would make room for one with that claim, whatever its image."""
    NO_IMAGE = "no image"
    """One would, but its node does not have the image."""
    NOTHING = "nothing"
    """None of its containers may go."""
    LATER = "later"
    """So many were looked at in this turn that this must wait for the next one."""


Try = Callable[[str, Pending], Answer]
"""Has a container of that function give way to that one, if it can be done."""


class Chosen(NamedTuple):
    """The functions that give up a container each, and for whom."""

    moves: list[tuple[str, Pending]]
    has_more: bool = False
    """Not everybody was looked at: ask again in the next turn."""


def _made(_: str, __: Pending) -> Answer:
    return Answer.MADE


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
        self._passed: list[Function] = []
        """Those that nobody could make room for in this round."""
        self._refused: deque[tuple[float, Function]] = deque()
        """Those that had nothing to give, by until when."""
        self._unfit: list[Function] = []
        """Those whose places would not do for the claim that was asked for last."""
        self._lacking: list[Function] = []
        """Those whose places would do for it, where the image that was asked for last is missing."""
        self._asked_for: tuple[Claim, str] | None = None
        self._unfit_until = float("-inf")
        self.promises = Promises(self.changed)

    def changed(self, function: Function) -> None:
        """What it has is not what it was, or who of it waits."""
        app, one = function.app, function.first_without
        has_any = function.share > 0 and not function.gives_nothing
        _put(app.owners, function, function.standing if has_any else 0)
        _put(self._richest, app, app.standing if len(app.owners) else 0)
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
        line.functions.set(function, (function.is_passed, function.standing + function.late, one.asked_at))
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
            line.app.lines.set(line, (line.round, *head[0][1:]))

    def _rank(self, app: App) -> None:
        head = app.lines.first()
        if head is None:
            self._poorest.discard(app)
        else:
            round_number, *rank = head[0]
            self._poorest.set(app, (round_number, app.standing + app.late, *rank))

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

    def _end_round(self) -> None:
        self._round += 1
        passed, self._passed = self._passed, []
        for function in passed:
            function.is_passed = False
            self.changed(function)

    # Who gives

    def choose(self, now: float, count: int, make: Try = _made) -> Chosen:
        """Who should give up a container, and for whom: who has least comes first; at most `count` of them, with those
        that were promised before. What each has is not changed by it: see `promises`."""
        self.promises.expire(now)
        count -= len(self.promises)
        if count <= 0:
            return Chosen([])
        self._asked_before = max(self._asked_before, now - GIVE_WAY_S)
        if not self._has_looked_at_all():
            return Chosen([], has_more=True)
        while self._refused and self._refused[0][0] <= now:
            self._ask_again(self._refused.popleft()[1])
        first = self._poorest.first()
        if first is not None:
            self._round = max(self._round, int(first[0][0]))
        moved: list[tuple[Function, Function, Pending]] = []
        is_late = False
        for _ in range(LOOKS_MAX):
            line = self._next()
            if line is None or len(moved) == count:
                break
            head = line.functions.first()
            assert head is not None, "a line has somebody in it"
            function, one = head[1], head[1].first_without
            assert one is not None, "who stands in a line waits"
            self._ask_for(one, now)
            donor = None if function.is_passed else self._donor(function, one)
            if donor is None:
                self._nobody_gives(line, function)
                continue
            answer = make(donor.function_id, one)
            if answer is Answer.MADE:
                moved.append((donor, function, one))
                self._move(donor, function, one, +1)
            elif answer is Answer.LATER:
                is_late = True
                break
            else:
                self._set_aside(donor, answer, now)
        is_cut = len(moved) == count
        has_more = not is_cut and (is_late or self._next() is not None)
        for donor, function, one in reversed(moved):
            self._move(donor, function, one, -1)
            if not is_cut and function.line is not None:
                self._pass_over(function.line)
        if not is_cut and not has_more:
            self._end_round()
        return Chosen([(donor.function_id, one) for donor, _, one in moved], has_more)

    def _nobody_gives(self, line: Line, function: Function) -> None:
        """The first of a line has had its turn. Where shares forbid it, nobody gives to the others, either; where those
        who should have given could not, they may be able to give to somebody who asks for something else."""
        if function.is_passed or not (self._refused or self._unfit or self._lacking):
            self._pass_over(line)
            return
        function.is_passed = True
        self._passed.append(function)
        self.changed(function)

    # Who cannot give

    def _ask_for(self, one: Pending, now: float) -> None:
        """Those whose places would not do for somebody else are asked anew, and now and then all are."""
        before, self._asked_for = self._asked_for, (one.claim, one.image_id)
        if before == self._asked_for and now < self._unfit_until:
            return
        again, self._lacking = self._lacking, []
        # By claim alone: each of many functions that wait may have an image of its own.
        if before is None or before[0] != one.claim or now >= self._unfit_until:
            self._unfit_until = now + REFUSED_S
            again += self._unfit
            self._unfit = []
        for donor in again:
            self._ask_again(donor)

    def _set_aside(self, donor: Function, answer: Answer, now: float) -> None:
        if answer is Answer.UNFIT:
            self._unfit.append(donor)
        elif answer is Answer.NO_IMAGE:
            self._lacking.append(donor)
        else:
            self._refused.append((now + REFUSED_S, donor))
        donor.gives_nothing = True
        self.changed(donor)

    def _ask_again(self, donor: Function) -> None:
        donor.gives_nothing = False
        self.changed(donor)

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
            if donor is not None and _may_give(donor, richest.standing, app.standing, one):
                return donor
        donor = _largest(app, function)
        if donor is None:
            return None
        return donor if _may_give(donor, donor.standing, function.standing, one) else None

    def _move(self, donor: Function, function: Function, one: Pending, sign: int) -> None:
        """The place changes hands, or goes back."""
        donor.moved -= sign * donor.weight
        donor.app.moved -= sign * donor.weight
        function.moved += sign * one.claim.weight
        function.app.moved += sign * one.claim.weight
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
