"""Run the inputs of an asynchronous function (or asynchronous generator) on an event loop in the main thread.

A thread of its own waits for inputs, so that the loop is free for user code.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import contextvars
import inspect
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any

from squall.exception import InputCancellation
from squall.guest.cancellation import INSIST_S, INSIST_TIMES
from squall.guest.inbox import Key, Stopping, Work
from squall.guest.link import LinkLost
from squall.guest.loading import LoadFailed
from squall.guest.runner import (
    ItemSender,
    Outcome,
    RunnerParts,
    cancelled,
    end_forked,
    failed,
    print_failure,
    send_items,
)
from squall.protocol.call import CANCELLED, SUCCEEDED
from squall.sdk import _container

_LOOP_PACKAGES = frozenset({"asyncio", "selectors", "threading", "concurrent", "uvloop", "weakref", "_weakrefset"})
"""Where the main thread is between two steps of user code, if nobody has called them but the loop."""
_CALLERS = frozenset({
    "_outcome", "_outcome_of", "_made", "_send_items", "send_items", "run", "_enter_async", "leave_async",
})  # fmt: skip
"""Functions of the guest that call user code on the loop."""


class AsyncRunner:
    """Runs up to `max_inputs` inputs at once on one loop until the guest is to stop."""

    def __init__(self, parts: RunnerParts, max_inputs: int, start: Callable[[], None] | None = None) -> None:
        """`start` lets inputs come, if they do not already; it is called when the enter hooks of a class have run."""
        self._parts = parts
        self._start_inputs = start
        self._max_inputs = max_inputs
        self._here: tuple[Key, ...] = ()
        """Run in the main thread, outside of the loop."""
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._cancelled_early: set[Key] = set()
        """Cancelled between the inbox and here; one at most, as the reader takes an input when the last has started."""
        self._slots = asyncio.Semaphore(max_inputs)
        self._threads: ThreadPoolExecutor | None = None
        """For methods that are not async, each with one: the loop's own are a few, and user code may keep them busy."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done = asyncio.Event()
        self._is_ending = False
        self._has_raised = False
        self._serving: asyncio.Task[None] | None = None
        self._is_entering = False
        """The enter hooks of a class are run."""
        self._pid = os.getpid()

    def run(self) -> None:
        """Return when no more inputs will come; all outputs have been sent then. Runs the hooks of a class, too.

        Raises:
            EnterFailed: an enter hook has raised.
        """
        self._parts.interrupter.on_ending = self.end
        run_on_loop(self._serve())
        self._parts.outbox.flush()

    def cancel(self, call_id: str, index: int) -> None:
        """Cancel one input if it runs. From any thread."""
        loop = self._loop
        if (call_id, index) in self._here:
            self._parts.interrupter.cancel(call_id, index)
        elif loop is not None:
            # One turn later: cancelled before its first step, a coroutine would never run and never give its slot back.
            loop.call_soon_threadsafe(loop.call_soon, self._cancel_now, (call_id, index))

    def end(self, frame: FrameType | None) -> bool:
        """Cancel all that runs and begin nothing more. In a signal handler, the main thread being at `frame`.

        Returns:
            Whether that is user code, which keeps the loop from its turn: it is to be interrupted there. What the loop
            and this guest are at is not: an answer would be cut off half-way, or the exit hooks left out.
        """
        if self._loop is None or self._loop.is_closed():
            return True
        if not self._is_ending:
            self._is_ending = True
            self._loop.call_soon_threadsafe(self._loop.call_soon, self._end_now)
            # Not `Thread.start`: what it locks, the main thread may hold.
            _thread.start_new_thread(self._insist, ())
        if self._has_raised or not is_user_code(frame):
            return False
        self._has_raised = True  # once: its `finally` may take its time
        return True

    def _insist(self) -> None:
        # User code may have been in a call of ours, as `print` is, and keep the loop from its turn after that.
        for _ in range(INSIST_TIMES):
            time.sleep(INSIST_S)
            if self._done.is_set() or self._has_raised:
                return
            os.kill(os.getpid(), signal.SIGTERM)

    def _end_now(self) -> None:
        self._done.set()
        if self._serving is not None and self._is_entering:
            self._serving.cancel()
        for running in self._running.values():
            running.cancel()

    def _cancel_now(self, key: tuple[str, int]) -> None:
        running = self._running.get(key)
        if running is not None:
            running.cancel()
        elif self._parts.inbox.has_begun(*key):
            # Taken, and on its way to `_start`. What was answered is not kept: a new attempt of it may come.
            self._cancelled_early.add(key)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._enter()
        try:
            if self._start_inputs is not None:
                self._start_inputs()
            self._begin_reading(self._loop)
            await self._done.wait()
        finally:
            if self._running:
                await asyncio.wait(list(self._running.values()))
            if self._parts.interrupter.is_ending:
                # The loop joins its threads before it closes, and one may read for a generator that got ahead.
                self._parts.outbox.flush()
                self._parts.inbox.close()
            await self._leave()

    async def _enter(self) -> None:
        self._serving, self._is_entering = asyncio.current_task(), True
        try:
            await self._begin()
        except LoadFailed:
            if self._is_ending:
                raise InputCancellation("the container is being stopped") from None  # not the hook's fault
            raise
        finally:
            self._is_entering = False

    async def _begin(self) -> None:
        """What comes before the first input: the enter hooks."""
        if self._parts.instance is not None:
            await self._parts.instance.enter_async()

    async def _leave(self) -> None:
        """What comes after the last one: the exit hooks."""
        if self._parts.instance is not None:
            # Callers are not to wait for the hooks, and a second request to end is not to stop them.
            self._parts.outbox.flush()
            self._parts.interrupter.is_closed = True
            await self._parts.instance.leave_async()

    def _begin_reading(self, loop: asyncio.AbstractEventLoop) -> None:
        threading.Thread(target=self._read_inputs, args=(loop,), name="squall-reader", daemon=True).start()

    def _read_inputs(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while True:
                # A slot first, an input then: what is taken from the inbox can no longer be given back.
                self._take_slot(loop)
                item = self._parts.inbox.take()
                loop.call_soon_threadsafe(self._start, item)
        except (Stopping, LinkLost):
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends already
                loop.call_soon_threadsafe(self._done.set)
        except CancelledError:
            return  # the loop ends, and with it the wait for a slot
        except RuntimeError:
            if not loop.is_closed():
                raise

    def _take_slot(self, loop: asyncio.AbstractEventLoop) -> None:
        taking = self._slots.acquire()
        try:
            asyncio.run_coroutine_threadsafe(taking, loop).result()
        finally:
            taking.close()

    def _start(self, item: Work) -> None:
        early = self._cancelled_early.intersection(item.keys)
        if early:
            self._cancelled_early -= early
            self._slots.release()
            self._answer(item, cancelled(), 0)
            return
        running = asyncio.ensure_future(self._run_one(item))
        for key in item.keys:
            self._running[key] = running

    async def _run_one(self, item: Work) -> None:
        self._parts.inbox.began()
        token = _container.begin_input(item.input_id, item.call_id)
        started_ns = time.perf_counter_ns()
        try:
            outcome = await self._outcome(item)
        finally:
            _container.end_input(token)
            self._parts.inbox.ended()
            for key in item.keys:
                self._running.pop(key, None)
            self._slots.release()
        run_us = (time.perf_counter_ns() - started_ns) // 1000
        self._parts.end_input(item)
        if self._parts.interrupter.is_ending and (outcome[0] == CANCELLED or not self._is_in_thread(item)):
            # Interrupted, whatever user code made of it; the server gives it to another container.
            self._parts.inbox.answered(item)
            return
        self._answer(item, outcome, run_us)

    def _answer(self, item: Work, outcome: Outcome, run_us: int) -> None:
        self._parts.answer(item, outcome, run_us)
        if self._parts.outbox.is_due() or not self._parts.inbox.has_input():
            self._parts.outbox.flush()

    async def _outcome(self, item: Work) -> Outcome:
        try:
            function, is_generator = self._parts.served(item)
            args, kwargs = await self._in_thread_if_blob(item)
            if self._parts.is_plain(item):
                return await self._plain_outcome(item, partial(function, *args, **kwargs), is_generator)
            if is_generator:
                return SUCCEEDED, str(await self._send_items(item, function(*args, **kwargs))).encode(), ""
            result = function(*args, **kwargs)
            if hasattr(result, "__await__"):
                result = await result
            if os.getpid() != self._pid:
                end_forked(None)
            return self._parts.returned(item, result)
        except (asyncio.CancelledError, InputCancellation) as error:
            if os.getpid() != self._pid:
                end_forked(error)
            return cancelled()
        except BaseException as error:
            if isinstance(error, GeneratorExit) and not self._is_run_by_loop(item):
                raise  # Python takes the coroutine down
            if os.getpid() != self._pid:
                end_forked(error)
            return failed(error)

    def _is_unwanted(self, item: Work) -> bool:
        """Whether it was interrupted; user code may have caught that and gone on."""
        return self._parts.interrupter.is_ending or self._parts.inbox.is_cancelled(item)

    def _is_in_thread(self, item: Work) -> bool:
        """Whether it runs where nothing can be interrupted."""
        return self._max_inputs > 1 and self._parts.is_plain(item)

    def _is_run_by_loop(self, item: Work) -> bool:
        running = self._running.get(item.keys[0])
        return running is not None and asyncio.current_task(self._loop) is running

    async def _in_thread_if_blob(self, item: Work) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if item.has_blobs:
            return await asyncio.to_thread(self._parts.arguments, item)
        return self._parts.arguments(item)

    async def _plain_outcome(self, item: Work, call: Callable[[], Any], is_generator: bool) -> Outcome:
        """Of a method that is not async, in a class that has others: alone it runs right here, where it can be
        cancelled; where there may be others beside it, in a thread."""

        def check() -> None:
            self._end_if_forked()
            if self._is_unwanted(item):
                raise InputCancellation("the input was cancelled")

        def run() -> Outcome:
            result = call()
            self._end_if_forked()
            if is_generator:
                return SUCCEEDED, str(send_items(item, result, self._parts, check)).encode(), ""
            return self._parts.returned(item, result)

        if not self._is_in_thread(item):
            return self._run_here(item, run)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._max_inputs, "squall-input")
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, contextvars.copy_context().run, run)
        while not running.done():
            # A thread cannot be cancelled: what was to be is told when it has ended, or ends with the container.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        return running.result()

    def _end_if_forked(self) -> None:
        if os.getpid() != self._pid:
            end_forked(None)

    def _run_here(self, item: Work, run: Callable[[], Outcome]) -> Outcome:
        """Run in the main thread."""
        interrupter = self._parts.interrupter
        with outside_loop():
            try:
                self._here = item.keys
                interrupter.begin(item.keys)
                return run()
            finally:
                interrupter.end()
                self._here = ()
                interrupter.forget()

    async def _send_items(self, item: Work, items: Any) -> int:
        one = item.inputs[0]
        batch = ItemSender(one, self._parts)
        try:
            async for value in items:
                if os.getpid() != self._pid:
                    end_forked(None)
                if self._is_unwanted(item):
                    raise asyncio.CancelledError
                # In a thread when it may wait: a consumer that is behind must not stop the other inputs.
                if batch.may_wait():
                    await asyncio.to_thread(batch.add, value)
                else:
                    batch.add(value)
        except BaseException as error:
            if os.getpid() != self._pid:
                end_forked(error)
            raise
        finally:
            batch.flush()
            self._parts.inbox.drop_item_credit(one.call_id, one.index)
        return batch.count


@contextlib.contextmanager
def outside_loop() -> Iterator[None]:
    """In a task: code in here that looks for a running loop finds none, for it may run one of its own."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    asyncio._leave_task(loop, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
        asyncio._enter_task(loop, task)


def is_user_code(frame: FrameType | None) -> bool:
    """Whether the main thread is in code that an input or a hook has called, or that the loop runs for user code.

    It is not in a call of this guest's, whoever made that, nor in the loop's own code.
    """
    is_of_loop = True
    found = frame
    while found is not None:
        package = _package(found)
        if package == __package__:
            name = found.f_code.co_name
            return found is not frame and (name in _CALLERS or (name == _complete.__name__ and not is_of_loop))
        is_of_loop = is_of_loop and package in _LOOP_PACKAGES
        found = found.f_back
    return not is_of_loop


def _package(frame: FrameType) -> str:
    module: str = frame.f_globals.get("__name__", "")
    return __package__ if module.startswith(f"{__package__}.") else module.partition(".")[0]


def run_on_loop(serving: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`, but the loop goes on after exits in tasks and callbacks that user code has started."""
    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        _complete(loop, loop.create_task(serving))
    finally:
        try:
            left = asyncio.all_tasks(loop)
            for one in left:
                one.cancel()
            if left:
                _complete(loop, asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _complete(loop: asyncio.AbstractEventLoop, awaited: asyncio.Future[Any]) -> None:
    pid = os.getpid()
    while True:
        try:
            loop.run_until_complete(awaited)
            return
        except (SystemExit, KeyboardInterrupt) as error:
            # In a task of user code they leave the loop at once, whatever else runs in it. The task has failed with
            # them, as with any other exception: whoever awaits it hears of that when the loop goes on.
            if os.getpid() != pid:
                end_forked(error)
            if awaited.done():
                raise
            if not _is_of_task(error):
                print_failure(error)


def _is_of_task(error: BaseException) -> bool:
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_code.co_flags & inspect.CO_COROUTINE for frame in frames)
