"""How apps and functions stand: what they have of all nodes, and who of them waits for more."""

from __future__ import annotations

from itertools import islice

from squall.server.scheduler.claim import Pending
from squall.server.scheduler.order import Order


class Line:
    """Functions of one app whose first waits for a place of one weight: they have the same to hope for."""

    __slots__ = ("app", "functions", "round", "weight")

    def __init__(self, app: App, weight: int, round_number: int) -> None:
        self.app = app
        self.weight = weight
        self.round = round_number
        """When it is looked at next (`giving_way.py`)."""
        self.functions: Order[Function] = Order()
        """The one that has least first, then who has waited longest."""


class App:
    """What an app has, and in what orders its functions are asked."""

    __slots__ = (
        "app_id", "function_count", "late", "line_of", "lines", "moved", "order", "owners", "share", "waiting_count",
    )  # fmt: skip

    def __init__(self, app_id: str) -> None:
        self.app_id = app_id
        self.share = 0
        self.moved = 0
        """What its functions are promised, less what they give up."""
        self.late = 0
        """What they were promised and have not got in time: that puts them behind others who have as little."""
        self.function_count = 0
        self.waiting_count = 0
        self.order: Order[Function] = Order()
        """Of those that wait, whose turn it is."""
        self.owners: Order[Function] = Order()
        """Those that have anything to give, the one with most first."""
        self.line_of: dict[int, Line] = {}
        """By weight; none is empty."""
        self.lines: Order[Line] = Order()

    @property
    def standing(self) -> int:
        """What it will have once all that is on its way out has gone."""
        return self.share + self.moved


class Function:
    """What a function has and waits for."""

    __slots__ = (
        "app", "function_id", "gives_nothing", "is_aside", "is_passed", "late", "line", "moved", "promised", "share",
        "waiting", "weight",
    )  # fmt: skip

    def __init__(self, app: App, function_id: str) -> None:
        self.app = app
        self.function_id = function_id
        self.share = 0
        self.weight = 0
        """Of the container that got a place last, or of the first that wants one."""
        self.waiting: dict[str, tuple[int, Pending]] = {}
        self.is_aside = False
        self.line: Line | None = None
        self.promised = 0
        """So many of those that wait get a place by what has been chosen so far (`giving_way.py`)."""
        self.moved = 0
        """What that is, less what its containers that give way have."""
        self.late = 0
        """What it was promised and has not got in time."""
        self.is_passed = False
        """Nobody could make room for its first in this round."""
        self.gives_nothing = False
        """None of its containers could go when it was asked, and it is not asked for now."""

    @property
    def standing(self) -> int:
        """What it will have once all that is on its way out has gone."""
        return self.share + self.moved

    @property
    def first(self) -> tuple[int, Pending] | None:
        """Who has waited longest."""
        return next(iter(self.waiting.values()), None)

    @property
    def first_without(self) -> Pending | None:
        """Who has waited longest, of those that nothing is promised to."""
        found = next(islice(self.waiting.values(), self.promised, None), None)
        return None if found is None else found[1]
