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

    __slots__ = ("app_id", "function_count", "line_of", "lines", "order", "owners", "share", "waiting_count")

    def __init__(self, app_id: str) -> None:
        self.app_id = app_id
        self.share = 0
        self.function_count = 0
        self.waiting_count = 0
        self.order: Order[Function] = Order()
        """Of those that wait, whose turn it is."""
        self.owners: Order[Function] = Order()
        """Those that have anything, the one with most first."""
        self.line_of: dict[int, Line] = {}
        """By weight; none is empty."""
        self.lines: Order[Line] = Order()


class Function:
    """What a function has and waits for."""

    __slots__ = ("app", "function_id", "is_aside", "line", "promised", "share", "waiting", "weight")

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
        """So many of those that wait would get a place by what has been chosen so far (`giving_way.py`)."""

    @property
    def first(self) -> tuple[int, Pending] | None:
        """Who has waited longest."""
        return next(iter(self.waiting.values()), None)

    @property
    def first_without(self) -> Pending | None:
        """Who has waited longest, of those that nothing is promised to."""
        found = next(islice(self.waiting.values(), self.promised, None), None)
        return None if found is None else found[1]
