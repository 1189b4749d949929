"""The batches of one function: formed of what waits, whoever called, and handed out whole.

A container holds at most `max_inputs` batches and none ahead: all it holds, it runs. Inputs of a batch may be answered,
cancelled or taken back one by one; it takes up its place until the last has gone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from squall.protocol.function import Batching
from squall.server.dispatch.fleet.container import FROM_BEFORE, Container
from squall.server.dispatch.function import choice
from squall.server.dispatch.function.input import Input
from squall.server.policy.batching import batches_of, due_at, size_now

if TYPE_CHECKING:
    from squall.server.dispatch.function.dispatcher import Dispatcher
    from squall.server.model.clock import Timer

GONE_MAX = 1_000
"""Inputs that have left the queue and may be remembered as having come."""


class Batches:
    """Forms and counts them."""

    def __init__(self, dispatcher: Dispatcher, batching: Batching) -> None:
        self._dispatcher = dispatcher
        self.batching = batching
        self._came: deque[tuple[float, Input]] = deque()
        """When inputs were queued, oldest first; may hold those that have left the queue."""
        self._timer: Timer | None = None
        self._last_number = 0
        for one in dispatcher.queue.queued():
            self.came_back(one, has_waited=True)

    def revise(self, batching: Batching) -> None:
        """From now on batches are these."""
        self.batching = batching
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._dispatcher.schedule()

    # What waits

    def came(self, inputs: Iterable[Input]) -> None:
        """These were queued now."""
        now = self._dispatcher.clock.monotonic()
        self._came.extend([(now, one) for one in inputs])
        if len(self._came) > 2 * self._dispatcher.queued + GONE_MAX:
            self._came = deque([entry for entry in self._came if entry[1].is_queued])

    def came_back(self, one: Input, *, has_waited: bool) -> None:
        """This one was queued again; where it has waited already, it does not wait for others now."""
        if has_waited:
            self._came.appendleft((-math.inf, one))
        else:
            self.came([one])

    def _oldest_at(self) -> float:
        while self._came and not self._came[0][1].is_queued:
            self._came.popleft()
        return self._came[0][0] if self._came else self._dispatcher.clock.monotonic()

    def of(self, inputs: int) -> int:
        """How many batches so many inputs make."""
        return batches_of(self.batching, inputs)

    # What goes out

    def hand_out(self, batches_max: int) -> None:
        """Hand out what is due and finds room, so many at most; look again when the next is due."""
        dispatcher = self._dispatcher
        for _ in range(batches_max):
            if not dispatcher.ordinary or not dispatcher.free:
                return
            size = self._next_size()
            if not size:
                self._look_again()
                return
            container = choice.next_in_use(dispatcher)
            dispatcher.hand_out(container, size, self.new_number())
            dispatcher.refresh(container)
        dispatcher.schedule()

    def new_number(self) -> int:
        """The number of the next batch."""
        self._last_number += 1
        return self._last_number

    def _next_size(self) -> int:
        dispatcher = self._dispatcher
        return size_now(self.batching, dispatcher.ordinary, self._oldest_at(), dispatcher.clock.monotonic())

    def _look_again(self) -> None:
        if self._timer is None:
            clock = self._dispatcher.clock
            delay_s = max(0.0, due_at(self.batching, self._oldest_at()) - clock.monotonic())
            self._timer = clock.call_later(delay_s, self._rung)

    def _rung(self) -> None:
        self._timer = None
        self._dispatcher.schedule()

    # What containers hold

    def held_by(self, container: Container) -> int:
        """How many batches it runs, as far as is known."""
        return len(container.batches) + bool(container.unknown)

    def window(self, container: Container) -> int:
        """How many inputs it may hold now: room for a whole batch, or for none."""
        held, at_once = len(container.held), self._dispatcher.batches_at_once
        if container.unknown or FROM_BEFORE in container.batches:
            return held
        return held + (self.batching.max_batch_size if len(container.batches) < at_once else 0)
