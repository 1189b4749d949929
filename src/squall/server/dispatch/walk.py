"""To look at many things without holding up the event loop: so many in one turn of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from squall.server.model.clock import Clock

T = TypeVar("T")


class Walk(Generic[T]):
    """Looks at all there is, again and again: whoever has it begin says what there is then."""

    def __init__(self, clock: Clock, look: Callable[[T], None], *, at_a_time: int) -> None:
        self._clock = clock
        self._look = look
        self._at_a_time = at_a_time
        self._left: list[T] = []

    def begin(self, things: Iterable[T]) -> None:
        """Look at the first of them now, and at the others in the turns after this one; not before the walk that is
        under way is over. Things may be gone when they are looked at."""
        if not self._left:
            self._left = list(things)
            self._step()

    def _step(self) -> None:
        due = self._left[-self._at_a_time :]
        del self._left[-self._at_a_time :]
        if self._left:  # first: what a look raises must not be the end of all walks
            self._clock.call_later(0.0, self._step)
        for thing in due:
            self._look(thing)
