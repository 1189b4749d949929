"""Pending containers in the order of their turns, and what everybody has: fair shares between apps and functions.

The next place goes to the app with the smallest share that waits for one, and in it to the function with the smallest;
between equal ones, and in a function, first come is first served. So a function with a thousand inputs takes what
nobody else wants, and one call of another app is next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from squall.server.scheduler.claim import Claim, Pending
from squall.server.scheduler.giving_way import GivingWay
from squall.server.scheduler.order import Order
from squall.server.scheduler.standing import App, Function

Shape = tuple[Claim, str]
"""A claim and an image: what decides whether a container fits."""


class Turns:
    """Who waits, and who is next."""

    def __init__(self) -> None:
        self._apps: dict[str, App] = {}
        self._functions: dict[str, Function] = {}
        self._order: Order[App] = Order()
        self._aside: list[Function] = []
        self._owner: dict[str, Function] = {}
        """Of each container that waits."""
        self._number = 0
        self.giving_way = GivingWay()
        """Told of all that changes here."""
        self.shapes: Counter[Shape] = Counter()
        """What waits, by what it needs."""
        self.claims: Counter[Claim] = Counter()
        """The same, whatever its image."""

    def __len__(self) -> int:
        return len(self._owner)

    def want(self, one: Pending) -> None:
        """A container waits for a node."""
        if one.container_id in self._owner:
            return
        function = self._function(one.app_id, one.function_id)
        function.weight = function.weight or one.claim.weight
        self._number += 1
        function.waiting[one.container_id] = (self._number, one)
        function.app.waiting_count += 1
        self._owner[one.container_id] = function
        self.shapes[one.claim, one.image_id] += 1
        self.claims[one.claim] += 1
        self._changed(function)

    def unwant(self, container_id: str) -> None:
        """It waits no longer."""
        function = self._owner.pop(container_id, None)
        if function is None:
            return
        _, one = function.waiting.pop(container_id)
        function.app.waiting_count -= 1
        shape = (one.claim, one.image_id)
        self.shapes[shape] -= 1
        if not self.shapes[shape]:
            del self.shapes[shape]
        self.claims[one.claim] -= 1
        if not self.claims[one.claim]:
            del self.claims[one.claim]
        self._changed(function)

    def add_share(self, one: Pending, sign: int) -> None:
        """A container of it got a place (+1) or gave one up (-1)."""
        function = self._function(one.app_id, one.function_id)
        function.weight = one.claim.weight
        function.share += sign * one.claim.weight
        function.app.share += sign * one.claim.weight
        self._changed(function)

    def promise(self, container_id: str, given: Pending, one: Pending, now: float) -> None:
        """A container, of which `given` is what it claims, gives way to that one."""
        donor, function = self._functions.get(given.function_id), self._functions.get(one.function_id)
        if donor is not None and function is not None:
            promise = function, one.claim.weight
            self.giving_way.promises.make(container_id, donor, given.claim.weight, promise, now)

    def _function(self, app_id: str, function_id: str) -> Function:
        function = self._functions.get(function_id)
        if function is None:
            app = self._apps.get(app_id)
            if app is None:
                app = self._apps[app_id] = App(app_id)
            app.function_count += 1
            function = self._functions[function_id] = Function(app, function_id)
        return function

    def _changed(self, function: Function) -> None:
        self.giving_way.changed(function)
        self._rank(function)

    def _rank(self, function: Function) -> None:
        """Put it, and its app, where they belong now."""
        app, first = function.app, function.first
        if first is not None and not function.is_aside:
            app.order.set(function, (function.share, first[0]))
        else:
            app.order.discard(function)
        head = app.order.first()
        if head is not None:
            self._order.set(app, (app.share, head[0][1]))
        else:
            self._order.discard(app)
        if first is None and not function.share and not function.is_aside:
            self._functions.pop(function.function_id, None)
            app.function_count -= 1
            if not app.function_count:
                self._apps.pop(app.app_id, None)

    # Whose turn it is

    def first(self) -> Pending | None:
        """Who is next, of those that are not set aside."""
        app = self._order.first()
        if app is None:
            return None
        function = app[1].order.first()
        assert function is not None, "an app that waits has a function that waits"
        first = function[1].first
        assert first is not None, "a function in the order has a container that waits"
        return first[1]

    def set_aside(self, one: Pending) -> None:
        """Pass its function over, until `restore`."""
        function = self._owner[one.container_id]
        function.is_aside = True
        self._aside.append(function)
        self._rank(function)

    def restore(self) -> None:
        """Nobody is passed over any more."""
        aside, self._aside = self._aside, []
        for function in aside:
            function.is_aside = False
        for function in aside:
            self._rank(function)

    # What everybody has

    def share_of_app(self, app_id: str) -> int:
        """What an app has."""
        app = self._apps.get(app_id)
        return app.share if app is not None else 0

    def waiting_of_app(self, app_id: str) -> int:
        """How many containers of it wait."""
        app = self._apps.get(app_id)
        return app.waiting_count if app is not None else 0

    def share_of_function(self, function_id: str) -> int:
        """What a function has."""
        function = self._functions.get(function_id)
        return function.share if function is not None else 0

    def is_waiting(self, function_id: str) -> bool:
        """Whether it waits for a place."""
        function = self._functions.get(function_id)
        return function is not None and bool(function.waiting)

    def waiting(self) -> Iterator[Pending]:
        """All that wait, function by function."""
        for function in list(self._functions.values()):
            for _, one in list(function.waiting.values()):
                yield one
