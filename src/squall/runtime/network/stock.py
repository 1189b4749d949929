"""Slots of one kind: the free ones, who waits for one, and how many there should be. Lists and numbers only."""

from __future__ import annotations

import asyncio
from collections import deque

from squall.runtime.errors import RuntimeFailure
from squall.runtime.network.owner import SlotOwner
from squall.runtime.network.peak import RecentPeak
from squall.runtime.spec import NetworkSlot


class Stock:
    """The slots of one owner, or of the machine, with a network or without one.

    As many are kept free as were in use at once lately and are not now: what a burst made is there for the next one,
    and goes as time passes. None are made for that; made ahead is only the minimum.
    """

    def __init__(self, owner: SlotOwner | None, is_blocked: bool, minimum: int, free_max: int) -> None:
        self.owner = owner
        self.is_blocked = is_blocked
        self.minimum = minimum
        """Made ahead."""
        self.free: deque[NetworkSlot] = deque()
        """Those that came back last are at the end."""
        self.making = 0
        self.batch_count = 0
        """How many batches are being made."""
        self.used_at_s = 0.0
        """When somebody last asked for one."""
        self._free_max = free_max
        self.is_retired = False
        """Nobody gets any of these any more."""
        self._lent = 0
        self._peak = RecentPeak()
        self._waiting: deque[asyncio.Future[NetworkSlot]] = deque()

    def lend(self, now_s: float) -> None:
        """One more is in use."""
        self._lent += 1
        self.used_at_s = now_s
        self._peak.note(self._lent, now_s)

    def take_back(self, now_s: float) -> None:
        """One less is in use."""
        # Noted now as well: those that were lent all the time are as recent a peak as any.
        self._peak.note(self._lent, now_s)
        self._lent -= 1

    def retire(self, failure: RuntimeFailure) -> None:
        """Nobody is to get any of these any more; whoever waits is told."""
        self.minimum, self.is_retired = 0, True
        while (waiting := self._next_waiter()) is not None:
            waiting.set_exception(failure)

    def wanted(self, now_s: float) -> int:
        """How many should be free at most."""
        return min(max(self._peak.at(now_s) - self._lent, self.minimum), self._free_max)

    def surplus(self, now_s: float) -> int:
        """How many are free and should not be."""
        return max(len(self.free) - self.wanted(now_s), 0)

    def missing(self) -> int:
        """How many are still to be made."""
        return self.waiter_count() + min(self.minimum, self._free_max) - len(self.free) - self.making

    def waiter_count(self) -> int:
        """How many wait for a slot."""
        return sum(not waiting.done() for waiting in self._waiting)

    def is_over(self, now_s: float) -> bool:
        """Nothing is there, asked for, or worth remembering."""
        is_empty = not (self.free or self.making or self._lent or self.minimum or self.waiter_count())
        return is_empty and self._peak.at(now_s) == 0

    def wait(self) -> asyncio.Future[NetworkSlot]:
        """The slot that comes next, after those that others wait for."""
        waiting: asyncio.Future[NetworkSlot] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        return waiting

    def hand_over(self, slot: NetworkSlot) -> bool:
        """Give it to whoever waits longest; False when nobody does."""
        waiting = self._next_waiter()
        if waiting is not None:
            waiting.set_result(slot)
        return waiting is not None

    def fail_one(self, failure: RuntimeFailure) -> None:
        """Tell whoever waits longest that there is none."""
        waiting = self._next_waiter()
        if waiting is not None:
            waiting.set_exception(failure)

    def cancel_waiters(self) -> None:
        """Nobody gets one any more."""
        for waiting in self._waiting:
            waiting.cancel()

    def _next_waiter(self) -> asyncio.Future[NetworkSlot] | None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                return waiting
        return None
