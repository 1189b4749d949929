"""Places that are on their way: whose containers give way, and who is to get what they leave.

A promise holds until the container has ended, and for `SLOW_S` at most: what runs for longer keeps neither the one it
gives way to from being promised another place, nor anybody else; who was promised it comes after those who have as
little and were promised nothing. What gives way counts as given until it has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from squall.server.scheduler.standing import Function

SLOW_S = 10.0
"""How long a container that gives way may take to end what it runs before it is counted on no more."""


class _Promise(NamedTuple):
    made_at: float
    function: Function
    weight: int


class Promises:
    """What is given up and has not gone yet, and what is promised for it."""

    def __init__(self, changed: Callable[[Function], None]) -> None:
        self._changed = changed
        self._given: dict[str, tuple[Function, int]] = {}
        """By container: whose it is, and its weight."""
        self._promised: dict[str, _Promise] = {}
        """The oldest first."""
        self._late: dict[str, tuple[Function, int]] = {}
        """What was promised of those that take long."""

    def __len__(self) -> int:
        """Promises that hold."""
        return len(self._promised)

    def make(self, container_id: str, donor: Function, given: int, promise: tuple[Function, int], now: float) -> None:
        """A container of weight `given` gives way to that function, which is promised so much."""
        if container_id in self._given:
            return
        self._given[container_id] = (donor, given)
        self._promised[container_id] = _Promise(now, *promise)
        self._move(donor, -given, 0)
        self._move(*promise, +1)

    def ended(self, container_id: str) -> None:
        """The container is gone: its place is anybody's whose turn it is."""
        given = self._given.pop(container_id, None)
        if given is None:
            return
        self._move(*given, 0)
        promise = self._promised.pop(container_id, None)
        if promise is not None:
            self._move(promise.function, -promise.weight, -1)
        else:
            function, weight = self._late.pop(container_id)
            self._be_late(function, -weight)

    def expire(self, now: float) -> None:
        """Count no more on those that take long."""
        while self._promised:
            container_id, (made_at, function, weight) = next(iter(self._promised.items()))
            if now - made_at < SLOW_S:
                return
            del self._promised[container_id]
            self._late[container_id] = function, weight
            self._move(function, -weight, -1)
            self._be_late(function, weight)

    def _be_late(self, function: Function, weight: int) -> None:
        function.late += weight
        function.app.late += weight
        self._changed(function)

    def _move(self, function: Function, weight: int, promised: int) -> None:
        function.moved += weight
        function.app.moved += weight
        function.promised += promised
        self._changed(function)
