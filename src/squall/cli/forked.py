"""Children that code of the user's forks take signals as children of any program do, not as the command."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from threading import get_ident
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


def leave_signals_to_children(numbers: Collection[signal.Signals], ours: Handler) -> None:
    """In forked children, what `ours` handles has its default again. For good: to be called once."""
    held_back: dict[int, set[signal.Signals | int]] = {}
    """What threads that fork held back before, by their number."""

    def hold() -> None:
        # Asked for first: a handler runs in either call, and may raise.
        held_back[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def let_go() -> None:
        before = held_back.pop(get_ident(), None)
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def restore() -> None:
        for number in numbers:
            if signal.getsignal(number) is ours:
                signal.signal(number, signal.SIG_DFL)
        let_go()

    # What is sent to a child before it is that far waits: `multiprocessing.Pool` ends its children by SIGTERM, and one
    # that took it as the command does would show a traceback of ours.
    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=restore)
