"""Who waits at a partition of a queue: for items, for room, or for something to read. Nobody polls.

First come, first served: whoever comes while others wait waits behind them, and who does not want to wait gets nothing
then. The store alone knows what is there; this is about when to ask it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from squall.protocol.errors import PlatformError
    from squall.protocol.task_set import TaskSet
    from squall.server.model.clock import Clock

R = TypeVar("R")


Attempt = Callable[[], Coroutine[Any, Any, R]]
"""Asks the store, before it waits for anything else."""


class _Waiter(Generic[R]):
    """Somebody who waits."""

    def __init__(self, attempt: Attempt[R], unheard: Callable[[], None]) -> None:
        self.attempt = attempt
        self.unheard = unheard
        self.done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.is_tried = False
        """It is being tried for him."""
        self.is_overdue = False


class Line(Generic[R]):
    """Those who wait until an attempt of theirs succeeds: its result is not `nothing`."""

    def __init__(self, nothing: R, clock: Clock, tasks: TaskSet, *, at_once: int) -> None:
        """`at_once`: for so many of those who wait first it is tried together, in their order. Where one may fail and
        the next would succeed, one."""
        self._nothing = nothing
        self._at_once = at_once
        self._clock = clock
        self._tasks = tasks
        self._waiters: list[_Waiter[R]] = []
        self._is_serving = False
        self._news = 0
        """How often it was worth another attempt."""
        self._arrival_count = 0
        self._error: PlatformError | None = None

    async def get(self, attempt: Attempt[R], timeout_s: float, unheard: Callable[[], None]) -> R:
        """What an attempt gives, now or, within that time, when all who came before have had theirs; or `nothing`.

        `unheard` is called when one succeeded for somebody who is gone.
        """
        news = self._news
        if not self._waiters:
            result = await self._first(attempt, unheard)
            if result != self._nothing or timeout_s <= 0:
                return result
        elif timeout_s <= 0:
            return self._nothing
        if self._error is not None:
            raise self._error
        waiter = _Waiter(attempt, unheard)
        self._waiters.append(waiter)
        self._arrival_count += 1
        if news != self._news:
            self.serve()  # something came while the store was asked
        return await self._wait(waiter, timeout_s)

    async def _first(self, attempt: Attempt[R], unheard: Callable[[], None]) -> R:
        # The store carries it out, even if whoever asked is gone by then.
        change = self._tasks.start(attempt())
        try:
            result: R = await asyncio.shield(change)
        except asyncio.CancelledError:
            change.add_done_callback(lambda _: unheard() if self._has_result(change) else None)
            raise
        return result

    def _has_result(self, change: asyncio.Future[R]) -> bool:
        if not change.done() or change.cancelled() or change.exception() is not None:
            return False
        return change.result() != self._nothing

    async def _wait(self, waiter: _Waiter[R], timeout_s: float) -> R:
        def overdue() -> None:
            waiter.is_overdue = True
            if not waiter.is_tried and not waiter.done.done():
                waiter.done.set_result(self._nothing)

        timer = self._clock.call_later(timeout_s, overdue)
        try:
            return await waiter.done
        except asyncio.CancelledError:
            if self._has_result(waiter.done):
                waiter.unheard()
            raise
        finally:
            timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def serve(self) -> None:
        """An attempt may succeed now."""
        self._news += 1
        self._go_on()

    def _go_on(self) -> None:
        if self._waiters and not self._is_serving:
            self._is_serving = True
            self._tasks.start(self._serve())

    async def serve_with(self, change: Awaitable[bool], count_max: int) -> bool:
        """As `serve`, of what lets so many attempts succeed at most, and together with it: the store commits them in
        one go, in this order. What the change says."""
        if self._is_serving:
            is_done = await change
            self.serve()
            return is_done
        self._is_serving = True
        news, arrival_count, first = self._news, self._arrival_count, self._begin(count_max)
        try:
            outcomes: list[Any] = await asyncio.gather(
                change, *(waiter.attempt() for waiter in first), return_exceptions=True
            )
            for waiter, one in zip(first, outcomes[1:], strict=True):
                self._settle(waiter, one)
        finally:
            self._is_serving = False
        is_changed = (news, arrival_count) != (self._news, self._arrival_count)
        self._news += 1
        if is_changed or len(first) == self._at_once or any(isinstance(one, BaseException) for one in outcomes[1:]):
            self._go_on()
        if isinstance(outcomes[0], BaseException):
            raise outcomes[0]
        return bool(outcomes[0])

    def _begin(self, count_max: int) -> list[_Waiter[R]]:
        # Not for who has just run out of time: he would be gone, and what he gets of use to nobody for a while.
        waiting = (waiter for waiter in self._waiters if not waiter.done.done())
        first = list(islice(waiting, min(self._at_once, count_max)))
        for waiter in first:
            waiter.is_tried = True
        return first

    def fail(self, error: PlatformError) -> None:
        """There is nothing to wait for any more."""
        self._error = error
        for waiter in self._waiters:
            if not waiter.done.done():
                waiter.done.set_exception(error)

    async def _serve(self) -> None:
        try:
            is_over = False
            while self._waiters and not is_over:
                news, first = self._news, self._begin(self._at_once)
                results = await asyncio.gather(*(waiter.attempt() for waiter in first), return_exceptions=True)
                for waiter, result in zip(first, results, strict=True):
                    self._settle(waiter, result)
                is_over = not first or (self._nothing in results and news == self._news)
        finally:
            self._is_serving = False

    def _settle(self, waiter: _Waiter[R], result: R | BaseException) -> None:
        waiter.is_tried = False
        if not isinstance(result, BaseException) and result == self._nothing and not waiter.is_overdue:
            return
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        if isinstance(result, BaseException):
            if not waiter.done.done():
                waiter.done.set_exception(result)
        elif not waiter.done.done():
            waiter.done.set_result(result)
        elif result != self._nothing:
            waiter.unheard()


class News:
    """Those who look at something that stays where it is: all of them look again when more comes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: set[asyncio.Future[None]] = set()
        self._error: PlatformError | None = None
        self._count = 0

    async def get(self, look: Callable[[], Awaitable[R]], timeout_s: float) -> R:
        """What a look gives once that is true, or, when the time is over, whatever it is."""
        until = self._clock.monotonic() + timeout_s
        while True:
            count = self._count
            found = await look()
            left_s = until - self._clock.monotonic()
            if found or left_s <= 0:
                return found
            if count == self._count:
                await self._wait(left_s)
            if self._error is not None:
                raise self._error

    async def _wait(self, timeout_s: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(timeout_s, lambda: _ring(future))
        self._waiting.add(future)
        try:
            await future
        finally:
            timer.cancel()
            self._waiting.discard(future)

    def ring(self) -> None:
        """More has come."""
        self._count += 1
        for future in self._waiting:
            _ring(future)

    def fail(self, error: PlatformError) -> None:
        """There is nothing to look at any more."""
        self._error = error
        self.ring()


def _ring(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
