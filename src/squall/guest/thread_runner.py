"""Run several inputs of a synchronous function at once, each in a thread.

The main thread hands them over and stays free for signals. Python raises nothing in another thread: an input that was
cancelled ends at its next item, if it is a generator, or when its function returns. The server ends the container when
that takes too long, and the other inputs in it run elsewhere.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from types import FrameType
from typing import Any

from squall.exception import InputCancellation
from squall.guest.inbox import Stopping, Work
from squall.guest.runner import Outcome, RunnerParts, cancelled, end_forked, failed, send_items
from squall.protocol.call import SUCCEEDED
from squall.sdk import _container


class ThreadRunner:
    """Runs up to `max_inputs` inputs at once until the guest is to stop. Threads are started as they are needed."""

    def __init__(self, parts: RunnerParts, max_inputs: int) -> None:
        self._parts = parts
        self._max_inputs = max_inputs
        self._slots = threading.Semaphore(max_inputs)
        self._handed: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        """Threads that wait for an input; less what waits for a thread, where one could not be started."""
        self._count = 0
        self._pid = os.getpid()

    def run(self) -> None:
        """Return when no more inputs will come; all outputs have been sent then.

        Raises:
            InputCancellation: the process is to end at once. What runs then is no output.
        """
        interrupter, inbox = self._parts.interrupter, self._parts.inbox
        interrupter.on_ending = _end_nothing
        try:
            while not interrupter.is_ending:
                # A slot first, an input then: what is taken from the inbox can no longer be given back.
                self._slots.acquire()
                self._hand_over(inbox.take())
        except Stopping:
            for _ in range(self._max_inputs - 1):
                self._slots.acquire()
        finally:
            self._parts.outbox.flush()

    def cancel(self, call_id: str, index: int) -> None:
        """Nothing can be raised in a thread; whoever runs the input looks whether it is still wanted."""

    def _hand_over(self, item: Work) -> None:
        with self._lock:
            self._idle -= 1
            if self._idle < 0 and self._start_thread():
                self._idle += 1
            elif self._idle < 0 and not self._count:
                self._idle += 1
                raise RuntimeError("no thread can be started: the container has reached its limit of processes")
        self._handed.put(item)

    def _start_thread(self) -> bool:
        thread = threading.Thread(target=self._serve, name=f"squall-input-{self._count}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False  # the limit of processes is reached: the threads there are do it one after the other
        self._count += 1
        return True

    def _serve(self) -> None:
        while True:
            self._run_one(self._handed.get())
            with self._lock:
                self._idle += 1
            self._slots.release()
            # Last: whoever sends the next input because of this output finds the thread free.
            if self._parts.outbox.is_due() or not self._parts.inbox.has_input():
                self._parts.outbox.flush()

    def _run_one(self, item: Work) -> None:
        parts = self._parts
        with self._lock:
            parts.inbox.began()
        token = _container.begin_input(item.input_id, item.call_id)
        started_ns = time.perf_counter_ns()
        try:
            outcome = self._outcome(item)
        finally:
            _container.end_input(token)
            with self._lock:
                parts.inbox.ended()
        run_us = (time.perf_counter_ns() - started_ns) // 1000
        parts.end_input(item)
        parts.answer(item, outcome, run_us)

    def _outcome(self, item: Work) -> Outcome:
        parts = self._parts
        try:
            function, is_generator = parts.served(item)
            args, kwargs = parts.arguments(item)
            self._raise_if_cancelled(item)
            result = function(*args, **kwargs)
            if os.getpid() != self._pid:
                end_forked(None)
            if not is_generator:
                return parts.returned(item, result)
            return SUCCEEDED, str(send_items(item, result, parts, lambda: self._check(item, result))).encode(), ""
        except InputCancellation as error:
            return cancelled(error)
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is its output
            if os.getpid() != self._pid:
                end_forked(error)
            return failed(error)

    def _check(self, item: Work, generator: Any) -> None:
        """Between two items of a generator."""
        if os.getpid() != self._pid:
            end_forked(None)
        try:
            self._raise_if_cancelled(item)
        except InputCancellation as error:
            if hasattr(generator, "throw"):
                # Where it has yielded, as a generator that runs alone would see it.
                generator.throw(error)
            raise

    def _raise_if_cancelled(self, item: Work) -> None:
        if self._parts.inbox.is_cancelled(item):
            raise InputCancellation("the input was cancelled")


def _end_nothing(_: FrameType | None) -> bool:
    """Nothing can be raised in a thread: what runs ends with the process, and the main thread only hands over."""
    return True
