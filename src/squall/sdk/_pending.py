"""A value that is not there yet: set from any thread, waited for by a blocked thread or in any event loop.

The whole SDK waits through this module. Its coroutines run in two ways:
  * in an event loop, where `await pending` becomes a future of that loop
  * driven by `run` in the caller's thread, where `await pending` blocks that thread; no event loop exists then, and
    asyncio is not even imported
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from squall.sdk._turn import SIGNALS_S

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class Reader(Protocol):
    """Who makes pendings come true by reading a connection; blocked threads may have to do the reading."""

    def wait(self, pending: Pending[Any], deadline: float | None) -> bool:
        """Block until it is done or the (monotonic) deadline is past; whether it is done."""

    def need(self, who: object) -> None:
        """Somebody waits who cannot read: see that a thread does, until `unneed` by the same."""

    def unneed(self, who: object) -> None:
        """Undo `need`. May be repeated, or come without it: whoever was interrupted does not know."""


class Pending(Generic[T]):
    """One value to come. Setting it again changes nothing."""

    __slots__ = ("_callbacks", "_error", "_lock", "_reader", "_value", "is_done")

    def __init__(self, reader: Reader | None = None) -> None:
        self.is_done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._lock: threading.Lock | None = None
        self._callbacks: list[Callable[[], None]] | None = None
        self._reader = reader

    def set(self, value: T) -> None:
        """It is there."""
        if not self.is_done:
            self._value = value
            self.is_done = True
            self._wake()

    def fail(self, error: BaseException) -> None:
        """It will never be there."""
        if not self.is_done:
            self._error = error
            self.is_done = True
            self._wake()

    def result(self) -> T:
        """The value, or raise the error. Only when done."""
        assert self.is_done
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    @property
    def error(self) -> BaseException | None:
        """Why it will never be there, if so. Only when done."""
        return self._error

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Called once when it is done, in whichever thread sets it."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)
        if self.is_done:
            self._call_back()

    def nudge(self) -> None:
        """Wake who sleeps on it, done or not."""
        lock = self._lock
        if lock is not None:
            try:
                lock.release()
            except RuntimeError:
                return  # nobody has slept since the last one

    def prepare(self) -> threading.Lock:
        """From now on a nudge is not lost: one that comes before `sleep` ends it at once."""
        lock = self._lock
        if lock is None:
            lock = threading.Lock()
            lock.acquire()
            self._lock = lock
        return lock

    def sleep(self, deadline: float | None = None) -> bool:
        """Block until done, nudged, past the deadline, or for a moment; whether it is done."""
        lock = self.prepare()
        if not self.is_done:
            left_s = SIGNALS_S if deadline is None else max(0.0, deadline - time.monotonic())
            lock.acquire(timeout=min(left_s, SIGNALS_S))
        if self.is_done:
            self.nudge()  # another thread may sleep on the same
        return self.is_done

    def block(self, deadline: float | None = None) -> bool:
        """Block until done or past the deadline; whether it is done."""
        if self.is_done:
            return True
        if self._reader is None:
            while not self.sleep(deadline):
                if deadline is not None and time.monotonic() >= deadline:
                    return False
            return True
        if not getattr(_driver, "is_background", False):
            return self._reader.wait(self, deadline)
        who = object()
        try:
            self._reader.need(who)
            while not self.sleep(deadline):
                if deadline is not None and time.monotonic() >= deadline:
                    return False
            return True
        finally:
            self._reader.unneed(who)

    def within(self, timeout_s: float | None) -> Within[T]:
        """Awaitable: whether it is done after at most `timeout_s`."""
        return Within(self, timeout_s)

    def __await__(self) -> Generator[Any, None, T]:
        if not self.is_done:
            yield from Within(self, None).__await__()
        return self.result()

    def _wake(self) -> None:
        if self._lock is not None:
            self.nudge()
        if self._callbacks is not None:
            self._call_back()

    def _call_back(self) -> None:
        # Both the setter and a late `add_callback` come here; `pop` hands each callback to one of them only.
        callbacks = self._callbacks
        while callbacks:
            try:
                callback = callbacks.pop()
            except IndexError:
                return
            callback()


class Within(Generic[T]):
    """The awaitable of a pending with a time limit."""

    __slots__ = ("_pending", "_timeout_s")

    def __init__(self, pending: Pending[T], timeout_s: float | None) -> None:
        self._pending = pending
        self._timeout_s = timeout_s

    def __await__(self) -> Generator[Any, None, bool]:
        pending, timeout_s = self._pending, self._timeout_s
        if not pending.is_done:
            if is_driven():
                yield pending, (None if timeout_s is None else time.monotonic() + timeout_s)
            else:
                yield from _wait_in_loop(pending, timeout_s).__await__()
        return pending.is_done


class _Nap:
    """The awaitable of `sleep`, when driven."""

    __slots__ = ("_duration_s",)

    def __init__(self, duration_s: float) -> None:
        self._duration_s = duration_s

    def __await__(self) -> Generator[Any, None, None]:
        yield None, time.monotonic() + self._duration_s


async def sleep(duration_s: float) -> None:
    """Wait, whichever way the coroutine runs."""
    if is_driven():
        await _Nap(duration_s)
    else:
        await _asyncio().sleep(duration_s)


def _asyncio() -> Any:
    import asyncio  # cold start: only programs that run an event loop have loaded it

    return asyncio


async def _wait_in_loop(pending: Pending[Any], timeout_s: float | None) -> None:
    module = _asyncio()
    loop: asyncio.AbstractEventLoop = module.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            return  # that loop is closed: nobody waits

    reader = pending._reader
    beat = _beat_of(loop)
    beat.begin()
    try:
        if reader is not None:
            reader.need(future)
        pending.add_callback(wake)
        await module.wait({future}, timeout=timeout_s)
    finally:
        future.cancel()
        if reader is not None:
            reader.unneed(future)
        beat.end()


class _Beat:
    """Turns an event loop now and then while somebody waits in it for us: its own sleep is a system call, too."""

    __slots__ = ("_count", "_is_on", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._count = 0
        self._is_on = False

    def begin(self) -> None:
        """One more waits."""
        self._count += 1
        if not self._is_on:
            self._is_on = True
            self.loop.call_later(SIGNALS_S, self._go_on)

    def end(self) -> None:
        """One less waits."""
        self._count -= 1

    def _go_on(self) -> None:
        # Left to run out by itself, as the next wait mostly begins before that.
        self._is_on = self._count > 0
        if self._is_on:
            self.loop.call_later(SIGNALS_S, self._go_on)


def _beat_of(loop: asyncio.AbstractEventLoop) -> _Beat:
    beat = _driver.beat
    if beat is None or beat.loop is not loop:
        beat = _driver.beat = _Beat(loop)
    return beat


class StopRaised(RuntimeError):
    """A function raised StopIteration, which no coroutine can: Python takes it for its end."""

    def __init__(self, error: StopIteration) -> None:
        super().__init__(f"the function raised {error!r}, which a coroutine cannot raise")
        self.error = error
        self.__cause__ = error


class _Driver(threading.local):
    """What this thread drives; the loop that was running when it began tells apart a loop started further in."""

    loop: Any = ()
    is_background: bool = False
    beat: _Beat | None = None
    """Of the loop that waited last."""


_driver = _Driver()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop running in this thread, if any; imports nothing."""
    module = sys.modules.get("asyncio.events")
    return None if module is None else cast("asyncio.AbstractEventLoop | None", module._get_running_loop())


def is_driven() -> bool:
    """Whether the coroutine that asks is driven by `run`; an event loop runs it otherwise."""
    return _driver.loop is running_loop()


def run(coroutine: Coroutine[Any, Any, T], *, is_background: bool = False) -> T:
    """Drive a coroutine of the SDK to its end, blocking this thread where it waits.

    A background thread leaves the reading of the connection to others, so that it never stands in the way of a thread
    that waits for a result.
    """
    before = _driver.loop, _driver.is_background
    _driver.loop, _driver.is_background = running_loop(), is_background
    error: BaseException | None = None
    stopped: StopIteration
    try:
        while True:
            try:
                waiting, deadline = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                return cast("T", stop.value)
            except StopRaised as raised:
                stopped = raised.error
                break
            error = None
            try:
                if waiting is None:
                    while (left_s := deadline - time.monotonic()) > 0:
                        time.sleep(min(left_s, SIGNALS_S))
                else:
                    waiting.block(deadline)
            except BaseException as interrupted:  # noqa: BLE001 - Ctrl-C goes through the coroutine's own clean-up
                error = interrupted
    finally:
        coroutine.close()
        _driver.loop, _driver.is_background = before
    raise stopped


async def _next(generator: AsyncGenerator[T, None]) -> T:
    return await generator.__anext__()


def iterate(generator: AsyncGenerator[T, None], *, is_background: bool = False) -> Generator[T, None, None]:
    """Drive an async generator of the SDK in this thread."""
    try:
        while True:
            try:
                item = run(_next(generator), is_background=is_background)
            except StopAsyncIteration:
                return
            except BaseException as error:  # noqa: BLE001 - raised again
                from squall.sdk._traceback import for_user_code  # cold start: only when something failed

                raise for_user_code(error)  # noqa: B904 - it is that error
            yield item
    finally:
        run(generator.aclose(), is_background=is_background)
