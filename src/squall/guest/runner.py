"""Run inputs: synchronous functions one after the other in the main thread, or several in threads, asynchronous ones on
its event loop.

The order of things around an input is the same in all: announce it, load its arguments, run user code, store the
result, hand it to the outbox. Only `InputCancellation`, and what ends the process, passes through; everything else
user code raises is its output. What was interrupted has no output, also when user code caught that and returned.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from squall.exception import InputCancellation, InvalidError
from squall.guest.cancellation import Interrupter
from squall.guest.inbox import Inbox, Input, Stopping, Work
from squall.guest.link import Link
from squall.guest.loading import note_missing_package
from squall.guest.outbox import Outbox
from squall.guest.stdio import MarkedStream
from squall.guest.values import Values
from squall.protocol.call import CANCELLED, FAILED, GENERATOR_WINDOW, SUCCEEDED, Failure, ItemBatch, encode_failure
from squall.protocol.frames import INLINE_BYTES_MAX
from squall.sdk import _container
from squall.sdk._serialization import encode_exception

if TYPE_CHECKING:
    from squall.guest.instance import Instance

_ITEM_LINGER_S = 0.002
_ITEMS_PER_BATCH = 256


class InputListener(Protocol):
    """Wants to know when an input has ended."""

    def end_input(self, input_id: str) -> None:
        """User code of this input runs no more; its output has not left yet."""


Outcome = tuple[int, bytes, str]
"""What became of an input: its status, its value, and the blob that holds the value if that is large."""


class RunnerParts(NamedTuple):
    """What a runner runs inputs with, whichever kind it is."""

    function: Callable[..., Any]
    is_generator: bool
    inbox: Inbox
    outbox: Outbox
    link: Link
    values: Values
    interrupter: Interrupter
    listeners: tuple[InputListener, ...]
    instance: Instance | None = None
    """Of a class: whose methods are run, in place of `function`; that is its only one where inputs come in batches."""

    def served(self, item: Work) -> tuple[Callable[..., Any], bool]:
        """What to call for an input, and whether that gives a generator.

        Raises:
            InvalidError: the class has no such method: it is another version than the caller knows.
        """
        if self.instance is None:
            return self.function, self.is_generator
        name = item.inputs[0].method
        method = self.instance.methods.get(name)
        if method is None:
            names = ", ".join(self.instance.methods)
            raise InvalidError(f"the class has no method {name!r} here; it has: {names}")
        return method.function, method.is_generator

    def is_plain(self, item: Work) -> bool:
        """Whether it is of a method that is not async."""
        return self.instance is not None and not self.instance.methods[item.inputs[0].method].is_async

    def arguments(self, item: Work) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What to call the function with."""
        one: Any = item  # batches have parts of their own
        return self.values.arguments(one)

    def returned(self, item: Work, result: Any) -> Outcome:
        """What became of an input whose function has returned."""
        return (SUCCEEDED, *self.values.result(result))

    def answer(self, item: Work, outcome: Outcome, run_us: int) -> None:
        """Put it into the outbox: of what was cancelled that, whatever user code made of it."""
        one: Any = item  # as above
        status, value, blob_sha256 = cancelled() if self.inbox.is_cancelled(item) else outcome
        self.outbox.add(one.call_id, one.index, one.attempt, status, value, run_us, blob_sha256)
        self.inbox.answered(one)

    def end_input(self, item: Work) -> None:
        """Tell who wants to know."""
        for listener in self.listeners:
            listener.end_input(item.input_id)


class Runner:
    """Runs the inputs of a synchronous function in the main thread until the guest is to stop."""

    def __init__(self, parts: RunnerParts) -> None:
        self._parts = parts
        self._pid = os.getpid()

    def run(self) -> None:
        """Return when no more inputs will come; all outputs have been sent then."""
        inbox, outbox = self._parts.inbox, self._parts.outbox
        while not self._parts.interrupter.is_ending:
            try:
                item = inbox.take()
            except Stopping:
                break
            try:
                self.run_one(item)
            except Stopping:
                break  # between user code and its output: the server gives the input to another container
            if outbox.is_due():
                outbox.flush()
        outbox.flush()

    def run_one(self, item: Work) -> None:
        """Run what was taken, and put its output into the outbox."""
        inbox, interrupter = self._parts.inbox, self._parts.interrupter
        inbox.began()
        token = _container.begin_input(item.input_id, item.call_id)
        started_ns = time.perf_counter_ns()
        try:
            outcome = self._outcome(item)
        except InputCancellation as error:
            # Raised between user code and the end of `_outcome`: the window is a few instructions wide.
            outcome = cancelled(error)
        finally:
            interrupter.end()
            _container.end_input(token)
            inbox.ended()
        run_us = (time.perf_counter_ns() - started_ns) // 1000
        self._parts.end_input(item)
        if interrupter.has_interrupted:
            outcome = cancelled()
        if outcome[0] == CANCELLED and interrupter.is_ending:
            return
        self._parts.answer(item, outcome, run_us)
        interrupter.forget()

    def _outcome(self, item: Work) -> Outcome:
        interrupter = self._parts.interrupter
        try:
            function, is_generator = self._parts.served(item)
            args, kwargs = self._parts.arguments(item)
            interrupter.begin(item.keys)
            result = function(*args, **kwargs)
            self._end_if_forked()
            if is_generator:
                count = send_items(item, result, self._parts, self._check)
                interrupter.end()
                return SUCCEEDED, str(count).encode(), ""
            interrupter.end()
            return self._parts.returned(item, result)
        except InputCancellation as error:
            return cancelled(error)
        except Stopping:
            raise
        except BaseException as error:
            interrupter.end()
            if os.getpid() != self._pid:
                raise
            return failed(error)

    def _check(self) -> None:
        """Between two items of a generator."""
        self._end_if_forked()
        self._parts.interrupter.check()

    def _end_if_forked(self) -> None:
        """End a child that user code forked and that came back here: it is no second guest."""
        if os.getpid() != self._pid:
            raise SystemExit(0)


def send_items(item: Work, generator: Any, parts: RunnerParts, check: Callable[[], None]) -> int:
    """Send all that a generator yields, and say how many that is; `check` is called after each and may raise."""
    one, pid = item.inputs[0], os.getpid()
    if not isinstance(generator, Generator) and not hasattr(generator, "__next__"):
        generator = iter(generator)
    batch = ItemSender(one, parts)
    try:
        for value in generator:
            check()
            batch.add(value)
        check()
    finally:
        # A child has a copy of what waits here: its parent sends that.
        if os.getpid() == pid:
            batch.flush()
            parts.inbox.drop_item_credit(one.call_id, one.index)
    return batch.count


def cancelled(error: BaseException | None = None) -> Outcome:
    """Of an input that was given up before it had a result."""
    message = str(error or "") or "the input was cancelled"
    return CANCELLED, encode_failure(Failure("cancelled", message)), ""


def failed(error: BaseException) -> Outcome:
    """Of an input whose user code raised; said in the log, too."""
    print_failure(error)
    return FAILED, encode_exception(error, _container.container_id()), ""


def print_failure(error: BaseException) -> None:
    """Put what user code raised into the log: the caller may be gone, or may swallow it.

    A package that the image lacks is noted on the error itself, so that the caller reads it, too.
    """
    from squall.sdk._traceback import format_for_user  # cold start: only when something failed

    note_missing_package(error)
    # What was printed without an end of line came first: the question of an `input()` that nobody answers.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, MarkedStream):
            stream.end_input(_container.running_input_id() or "")
    sys.stderr.write(format_for_user(error))


def end_forked(error: BaseException | None) -> NoReturn:
    """End a child that user code forked and that came back, as any program ends: it is no second guest.

    At once, not by raising: on its way out an event loop would cancel and answer the other inputs, and take from the
    epoll instance that parent and child share what wakes the parent; a thread that is not the main one would end alone.
    """
    code = 0
    try:
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if isinstance(error.code, str):
                sys.stderr.write(error.code + "\n")
        elif error is not None:
            code = 1
            print_failure(error)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


class ItemSender:
    """Sends what a generator yields: soon, in batches when it is quick, never far ahead of the consumer."""

    def __init__(self, item: Input, parts: RunnerParts) -> None:
        self._item = item
        self._link = parts.link
        self._inbox = parts.inbox
        self._values = parts.values
        self._values_pending: list[bytes] = []
        self._sizes: list[int] = []
        self._blobs: dict[str, str] = {}
        self._bytes = 0
        self._first = 0
        self._last_sent = 0.0
        self.count = 0

    def add(self, value: Any) -> None:
        """Take one item; waits while the consumer is too far behind."""
        data, blob_sha256 = self._values.result(value)
        if blob_sha256:
            self._blobs[str(self.count)] = blob_sha256
            self._sizes.append(-1)
        else:
            self._values_pending.append(data)
            self._sizes.append(len(data))
            self._bytes += len(data)
        self.count += 1
        now = time.monotonic()
        if (
            now - self._last_sent >= _ITEM_LINGER_S
            or len(self._sizes) >= _ITEMS_PER_BATCH
            or self._bytes > INLINE_BYTES_MAX
        ):
            self.flush()
            self._last_sent = now
        if self.count >= GENERATOR_WINDOW:
            if self._sizes:
                self.flush()
            self._inbox.wait_item_credit(self._item.call_id, self._item.index, self.count - GENERATOR_WINDOW + 1)

    def may_wait(self) -> bool:
        """Whether the next `add` can have to wait for the consumer."""
        return self.count + 1 >= GENERATOR_WINDOW

    def flush(self) -> None:
        """Send what waits."""
        if not self._sizes:
            return
        batch = ItemBatch(
            call_id=self._item.call_id,
            index=self._item.index,
            attempt=self._item.attempt,
            first=self._first,
            sizes=tuple(self._sizes),
            blobs=self._blobs,
        )
        self._link.send("Items", batch, b"".join(self._values_pending))
        self._first = self.count
        self._values_pending, self._sizes, self._blobs, self._bytes = [], [], {}, 0
