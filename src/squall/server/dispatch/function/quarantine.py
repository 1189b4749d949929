"""Inputs of which one has ended a container: each of them runs alone, and all others go on beside them.

A *suspect* is handed to a container that holds nothing, which is *apart* until it has answered: it is handed nothing
else, so that its crash names the input. Suspects take few containers, and leave one to all others if there are several.
Where every container is busy and none is apart, one that holds little is *reserved*: it ends what it runs, and is next.

A suspect under which a *fork that had served nothing* has ended may have nothing to do with it: what was loaded before
the fork may not work after it. It goes on in a container that is *proven*, as it has answered before or was started
plainly; for want of one, one is started plainly. When it succeeds in that, forks that have served nothing are ended,
and not left to end under an input each.

It is told which suspects are held, so that a turn costs as much as there are of these, however many containers there
are.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.function.input import Input
from squall.server.dispatch.function.input_queue import InputQueue

if TYPE_CHECKING:
    from squall.server.dispatch.function.dispatcher import Dispatcher

APART_MAX = 10
"""Containers of a function that suspects take at a time."""
LOOKS_MAX = 100
"""Containers of which the emptiest is reserved."""


class Quarantine:
    """The suspects of one function that wait, and the containers that are apart."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.queue = InputQueue()
        self.queued = 0
        self._reserved: Container | None = None
        self._held: dict[Input, Container] = {}
        """Suspects, by who holds them."""
        self._in_doubt: set[Input] = set()
        """Those that wait for a container that is proven."""

    def put_back(self, one: Input) -> None:
        """A suspect is to run (again)."""
        self._held.pop(one, None)
        self.queue.put_back(one)
        self.queued += 1
        if one.with_trouble().needs_proven:
            self._in_doubt.add(one)

    def is_held(self, one: Input, container: Container) -> None:
        """A suspect is in that container."""
        self._held[one] = container
        self._in_doubt.discard(one)

    def ended(self, one: Input) -> None:
        """It is a suspect no more: its container may be handed others."""
        container = self._held.pop(one, None)
        self._in_doubt.discard(one)
        if container is not None and not container.is_stopped:
            self._dispatcher.refresh(container)

    def left(self, count: int = 1) -> None:
        """So many wait no longer."""
        self.queued -= count
        reserved = self._reserved
        if not self.queued and reserved is not None:
            self._reserved = None
            self._dispatcher.refresh(reserved)
            self._dispatcher.schedule()

    def is_apart(self, container: Container) -> bool:
        """Whether it is handed nothing that is no suspect."""
        return container is self._reserved or self._runs_one(container)

    @staticmethod
    def _runs_one(container: Container) -> bool:
        if len(container.held) != 1:
            return False
        trouble = next(iter(container.held)).trouble
        return trouble is not None and trouble.is_suspect

    @property
    def wanted(self) -> int:
        """What those that wait count for where containers are asked for: few of them fill a container each."""
        return self.queued + (self._dispatcher.target - 1) * min(self.queued, APART_MAX)

    # Handing out

    def can_go(self) -> bool:
        """Whether there is something to hand out, or to reserve for it."""
        if not self.queued:
            return False
        count = self._count()
        return (count < self._count_max() and self._next() is not None) or self._emptiest(count) is not None

    def hand_out(self) -> None:
        """Give suspects to containers that hold nothing."""
        dispatcher = self._dispatcher
        if not self.queued:
            return
        count = self._count()
        while self.queued and count < self._count_max() and (container := self._next()) is not None:
            number = dispatcher.batches.new_number() if dispatcher.batches is not None else 0
            if container is self._reserved:
                self._reserved = None
            dispatcher.hand_out(container, 1, number, self.queue)
            for one in container.held:
                self.is_held(one, container)
            self.left()
            dispatcher.refresh(container)
            count += 1
        emptiest = self._emptiest(count)
        if self.queued and emptiest is not None:
            self._reserved = emptiest
            dispatcher.refresh(emptiest)

    def _count(self) -> int:
        return sum(self._runs_one(one) for one in set(self._held.values()))

    def _count_max(self) -> int:
        dispatcher = self._dispatcher
        if dispatcher.batches_at_once == 1 and not dispatcher.ordinary:
            return APART_MAX
        # One is left to those that come, which need not wait until a suspect has ended.
        return min(APART_MAX, max(1, len(dispatcher.open) - 1))

    def _next(self) -> Container | None:
        """The container for the next one: it holds nothing, and may be handed something."""
        reserved = self._reserved
        if reserved is not None and reserved.is_open and not reserved.is_busy and self._may_take(reserved):
            return reserved
        return next(filter(self._may_take, reversed(self._dispatcher.idle)), None)

    def _may_take(self, container: Container) -> bool:
        return container.is_proven or not self._in_doubt

    def _emptiest(self, count: int) -> Container | None:
        """The container to reserve, if so many are apart; none where one is, or where each has a single input."""
        dispatcher = self._dispatcher
        reserved = self._reserved
        is_reserved = reserved is not None and reserved.is_open
        if count or is_reserved or dispatcher.spec.scaling.is_single_use:
            return None
        # Those with room hold less than all others.
        some = filter(self._may_take, islice(dispatcher.free or dispatcher.open, LOOKS_MAX))
        return min(some, key=lambda one: len(one.held), default=None)

    # Forks in doubt

    @property
    def is_in_doubt(self) -> bool:
        """Whether a suspect waits that no fork is given to before it has answered."""
        return bool(self._in_doubt)

    @property
    def lacks_proven(self) -> bool:
        """Whether a container must be started plainly, for the sake of a suspect that no fork is given to."""
        if not self._in_doubt or any(one.is_proven for one in self._dispatcher.idle):
            return False
        staying = self._dispatcher.containers.values()
        return not any(one.is_plain and not (one.is_ready or one.ending or one.is_draining) for one in staying)

    def make_place(self) -> bool:
        """Let a fork go that has served nothing, the one that has been idle for longest, so that one that is started
        plainly has its place; False if the function may have no more containers than there are."""
        dispatcher = self._dispatcher
        unproven = next((one for one in dispatcher.idle if not one.is_proven), None)
        if unproven is not None:
            dispatcher.fleet.drain(unproven, "its place is for one that is no fork")
        most = dispatcher.scaling.max_containers
        return (
            most is None or sum(not one.is_draining and not one.ending for one in dispatcher.containers.values()) < most
        )

    def succeeded(self, one: Input, container: Container) -> None:
        """An input has a result that has had troubles: in a container that was started plainly since a fork had ended
        under it, that tells whose fault it was. Forks that wait for their first input would end under theirs."""
        if not (container.is_plain and one.with_trouble().needs_proven):
            return
        for idle in [other for other in self._dispatcher.idle if other.is_unproven_fork]:
            self._dispatcher.fleet.drain(idle, "another fork of its template has ended under its first input")
