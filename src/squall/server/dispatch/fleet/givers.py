"""Which container of a function gives way to one that waits, found with so many looks in a turn of the event loop."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from squall.server.scheduler import Answer, Pending, Scheduler

if TYPE_CHECKING:
    from squall.server.dispatch.fleet.container import Container
    from squall.server.dispatch.fleet.fleet import ContainerFleet

LOOKS_MAX = 2_000
"""Containers that are looked at in one turn, and of one function before others are asked."""


class Givers:
    """Carries out what the scheduler chooses."""

    def __init__(self, fleet: ContainerFleet, scheduler: Scheduler) -> None:
        self._fleet = fleet
        self._scheduler = scheduler
        self._looks_left = 0
        self._looked_at: dict[str, int] = {}
        """Of functions with more containers than are looked at at once: how many were, so that all are in the end."""
        self.made: list[tuple[Container, Pending]] = []
        """Those that give way since the turn began, and for whom."""

    def begin(self) -> None:
        """Another turn of the event loop."""
        self._looks_left = LOOKS_MAX
        self.made = []

    def make(self, function_id: str, one: Pending) -> Answer:
        """Have a container of that function give way to that one."""
        if self._looks_left <= 0:
            return Answer.LATER
        dispatcher = self._fleet.active.get(function_id)
        if dispatcher is None:
            return Answer.NOTHING
        if dispatcher.scaling.min_containers:
            self._looks_left -= len(dispatcher.containers)
        self._looks_left -= 1
        if not dispatcher.may_lose_one:
            return Answer.NOTHING
        first = self._looked_at.pop(function_id, 0)
        if len(dispatcher.containers) > first + LOOKS_MAX:
            self._looked_at[function_id] = first + LOOKS_MAX
        answer = Answer.NOTHING
        # The newest: it has least to lose. What waits for calls itself might wait for this very one.
        for his in islice(reversed(dispatcher.containers.values()), first, first + LOOKS_MAX):
            self._looks_left -= 1
            if not (his.is_open and his.is_busy and not his.is_waiting):
                continue
            if not self._scheduler.would_fit(one.claim, his.container_id):
                answer = Answer.UNFIT if answer is Answer.NOTHING else answer
            elif self._scheduler.is_image_missing(one.image_id, his.container_id):
                answer = Answer.NO_IMAGE
            else:
                self._looked_at.pop(function_id, None)
                self._fleet.drain(his, "another function has waited long for a place")
                self.made.append((his, one))
                return Answer.MADE
        return answer
