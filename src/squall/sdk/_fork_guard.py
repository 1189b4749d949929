"""What signals do to a process of ours while code of the user's forks, and that its children take them as anywhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from threading import Timer, get_ident, main_thread
from types import CodeType, FrameType
from typing import Any

AGAIN_S = 0.01
"""After how long a process sends itself a signal that came where none can be raised, as while its main thread forks."""


class ForkGuard:
    """Handles signals, but not while the main thread is between the hooks of a fork, or in what it is told to keep out
    of: what is raised there is only printed. Children get the handling of any Python, unless user code has taken the
    signal meanwhile.

    A child must not leave that to Python: a handler of Python's may come too late for a child that is about to wait,
    which then waits for ever, and so does `multiprocessing.Pool` for the child. The kernel holds back what is sent to a
    child before it is that far.
    """

    def __init__(self) -> None:
        self._main_thread = main_thread().ident
        self._is_forking = False
        self._held_back: dict[int, set[signal.Signals | int]] = {}
        """What threads that fork held back before, by their number."""
        self._taken: dict[signal.Signals, tuple[Any, Any]] = {}
        """Of each signal our handler, and what children have in its place."""
        self._given_up: list[signal.Signals] = []
        """In a child: what were its parent's, and no handlers of user code."""
        self._closed = [ForkGuard._hold.__code__]
        """Code in whose frames, and in what these call, nothing can be raised."""

    def take(self, number: signal.Signals, act: Callable[[int, FrameType | None], None], initial: Any) -> None:
        """Have `act` called at this signal, and children begin with `initial`. From the main thread."""

        def ours(number: int, frame: FrameType | None) -> None:
            if self.must_wait(frame):
                Timer(AGAIN_S, os.kill, (os.getpid(), number)).start()
            else:
                act(number, frame)

        self._taken[number] = ours, initial
        signal.signal(number, ours)

    def install(self) -> None:
        """Look after all forks from now on, for good."""
        os.register_at_fork(before=self._hold, after_in_parent=self._let_go, after_in_child=self._restore)

    def keep_out_of(self, code: CodeType) -> None:
        """Put off what comes while the main thread is in this."""
        self._closed.append(code)

    def take_again(self) -> None:
        """In a child that goes on in our place: handle what we did. From the main thread."""
        for number in self._given_up:
            signal.signal(number, self._taken[number][0])
        self._given_up = []

    def must_wait(self, frame: FrameType | None) -> bool:
        """Whether nothing can be raised in the main thread, which is at `frame`: it forks, say."""
        # At any depth: on a busy machine a signal that was put off comes again while the thread that sends it is still
        # being started, by a handler that the first of our hooks was interrupted by.
        while frame is not None and not self._is_forking:
            if frame.f_code in self._closed:
                return True
            frame = frame.f_back
        return self._is_forking

    def _hold(self) -> None:
        thread = get_ident()
        if thread == self._main_thread:
            self._is_forking = True
        # Asked for first: handlers of user code run in either call, and may raise.
        self._held_back[thread] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, self._taken)

    def _let_go(self) -> None:
        thread = get_ident()
        before = self._held_back.pop(thread, None)
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if thread == self._main_thread:
            self._is_forking = False

    def _restore(self) -> None:
        for number, (ours, initial) in self._taken.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, initial)
                self._given_up.append(number)
        self._let_go()
