"""Raise `InputCancellation` in user code that runs in the main thread.

The watcher learns of a cancellation; Python lets only the main thread be interrupted, by a signal. The handler raises
only while user code of that very input runs; a cancellation that comes too late is nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from squall.exception import InputCancellation
from squall.guest.inbox import Key
from squall.sdk._fork_guard import AGAIN_S, ForkGuard

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

# Not SIGUSR1: user programs like to take that one.
SIGNAL = signal.SIGRTMIN + 3 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2

INSIST_S, INSIST_TIMES = 0.1, 20
"""How often the signal is sent again while nothing comes of it, and how many times."""


class Interrupter:
    """Knows which input runs in the main thread, and interrupts it."""

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._running: tuple[Key, ...] = ()
        """The inputs that run: one, or those of a batch."""
        self._wanted: Key | None = None
        self.has_interrupted = False
        """What runs, or ran last: user code may have caught that and gone on."""
        self.on_ending: Callable[[FrameType | None], bool] | None = None
        """Who ends what runs, when that is more than the main thread's one input; given what the main thread is at, it
        says whether that is to be interrupted as well."""
        self.is_ending = False
        """The process is to end: what it interrupted is no output, the server gives the input to another container."""
        self._raised: tuple[BaseException, tuple[Key, ...]] | None = None
        """What was raised last, and in what."""
        self.forks = ForkGuard()
        self.is_closed = False
        """The guest is on its way out: there is nothing left to interrupt."""

    def install(self) -> None:
        """Take the signals; from the main thread."""
        signal.signal(SIGNAL, self._handle)
        others = sys.unraisablehook

        def hook(unraisable: UnraisableHookArgs) -> None:
            if self._raised is None or unraisable.exc_value is not self._raised[0]:
                others(unraisable)
            else:
                self._raise_again()

        sys.unraisablehook = hook
        # What is sent again may come while the thread that sends it is still being started.
        self.forks.keep_out_of(hook.__code__)

    def begin(self, keys: tuple[Key, ...]) -> None:
        """User code of these inputs begins.

        Raises:
            InputCancellation: it was cancelled on its way here.
        """
        # In this order: who cancels says so first and looks then, so that one of the two sees the other.
        self._running = keys
        if self._wanted in keys:
            self._running = ()
            raise InputCancellation("the input was cancelled")

    def end(self) -> None:
        """It has ended: nothing will be raised from now on."""
        self._running, self._raised = (), None

    def forget(self) -> None:
        """What was cancelled is answered: a new attempt of it may run here."""
        self._wanted = None
        self.has_interrupted = False

    def check(self) -> None:
        """Between two steps of what runs.

        Raises:
            InputCancellation: it was interrupted before, and user code has caught that and gone on.
        """
        if self.has_interrupted:
            raise InputCancellation("the input was cancelled")

    def cancel(self, call_id: str, index: int) -> None:
        """Interrupt this input if it runs. From any thread."""
        self._wanted = (call_id, index)
        if self._wanted in self._running:
            self._interrupt()
            threading.Thread(target=self._insist, daemon=True).start()

    def _interrupt(self) -> None:
        if self._main is not None:
            signal.pthread_kill(self._main, SIGNAL)

    def _insist(self) -> None:
        # A signal that comes between Python's last look at its signals and a system call does not end that call.
        for _ in range(INSIST_TIMES):
            time.sleep(INSIST_S)
            if self._wanted not in self._running:
                return
            self._interrupt()

    def end_all(self, frame: FrameType | None) -> bool:
        """The process is to end: interrupt whatever runs. From the main thread, which is at `frame`.

        Returns:
            Whether what runs ends by itself from here on; False when nothing does.

        Raises:
            InputCancellation: to end what the main thread is at.
        """
        self.is_ending = True
        if self.on_ending is not None:
            if not self.on_ending(frame):
                return True
        elif not self._running:
            return False
        raise self._interruption("the container is being stopped")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # What has to wait is sent again.
        if self._wanted in self._running and not self.forks.must_wait(frame):
            raise self._interruption("the input was cancelled")

    def _interruption(self, why: str) -> InputCancellation:
        error = InputCancellation(why)
        self._raised = error, self._running
        self._running, self.has_interrupted = (), True
        return error

    def _raise_again(self) -> None:
        """What was raised has come where Python only prints it, and what was to be interrupted goes on: in a hook of
        forks that was registered later than ours, as those of `logging` may be, or in a `__del__`."""
        if self._raised is not None:
            self._running, self.has_interrupted, self._raised = self._raised[1], False, None
            number = signal.SIGTERM if self.is_ending else SIGNAL
            threading.Timer(AGAIN_S, os.kill, (os.getpid(), number)).start()
