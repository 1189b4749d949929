"""What threads share at places where a Ctrl-C may come between any two steps of the interpreter.

Locks and events will not do there: a Ctrl-C between taking a lock and noting that it is ours leaves it taken by nobody,
and a `threading.Event` takes one inside. Here everything that changes is one step, and can be looked at, and done
again, by whoever unwinds.
"""

from __future__ import annotations

import threading
import time

SIGNALS_S = 0.2
"""How long the main thread sleeps in one system call at most.

Python looks at its signals between its steps, and the kernel interrupts a system call that has begun: a Ctrl-C that
comes after the one and before the other is not noticed before the call returns.
"""


class Turn:
    """Whose turn it is: one thread's, or nobody's."""

    __slots__ = ("_holder",)

    def __init__(self) -> None:
        self._holder: dict[str, int] = {}

    @property
    def is_taken(self) -> bool:
        """Whether it is anybody's."""
        return bool(self._holder)

    @property
    def is_mine(self) -> bool:
        """Whether it is this thread's."""
        return self._holder.get("thread") == threading.get_ident()

    def take(self) -> bool:
        """Take it if it is nobody's; whether it is this thread's now."""
        thread = threading.get_ident()
        return self._holder.setdefault("thread", thread) == thread

    def leave(self) -> None:
        """If it is this thread's, it is nobody's from now on. May be repeated."""
        if self._holder.get("thread") == threading.get_ident():
            self._holder.pop("thread", None)


class Bell:
    """Wakes one thread, also if it goes to sleep only later."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """End the current or the next `wait`."""
        try:
            self._lock.release()
        except RuntimeError:
            return  # it was rung, and nobody has heard it yet

    def wait(self, timeout_s: float | None = None) -> bool:
        """Sleep until it is rung; False when that takes longer."""
        return self._lock.acquire(timeout=-1 if timeout_s is None else timeout_s)


def join(thread: threading.Thread, timeout_s: float) -> None:
    """Wait for the end of a thread, at most so long."""
    deadline = time.monotonic() + timeout_s
    while thread.is_alive() and (left_s := deadline - time.monotonic()) > 0:
        thread.join(min(left_s, SIGNALS_S))
