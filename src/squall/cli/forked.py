"""What signals do to the command while code of the user's forks, and that its children take them as anywhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from threading import Timer, get_ident
from types import FrameType

AGAIN_S = 0.01
"""After how long the command sends itself the signal that came while its main thread forked."""


def take_signals(numbers: Collection[signal.Signals], act: Callable[[int], None]) -> None:
    """Have `act` called at these; in forked children they have their default. For good: from the main thread, once.

    What whoever started us wants to be ignored (nohup) stays ignored.
    """
    held_back: dict[int, set[signal.Signals | int]] = {}
    """What threads that fork held back before, by their number."""
    main_thread = get_ident()
    is_forking = False
    """Whether the main thread is: signals are handled in that one only."""

    def ours(number: int, frame: FrameType | None) -> None:
        # What is raised while Python runs the functions around a fork is told on stderr, and comes to nothing.
        if is_forking or (frame is not None and frame.f_code is hold.__code__):
            Timer(AGAIN_S, os.kill, (os.getpid(), number)).start()
        else:
            act(number)

    def hold() -> None:
        nonlocal is_forking
        thread = get_ident()
        if thread == main_thread:
            is_forking = True
        # Asked for first: handlers of user code run in either call, and may raise.
        held_back[thread] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def let_go() -> None:
        nonlocal is_forking
        thread = get_ident()
        before = held_back.pop(thread, None)
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if thread == main_thread:
            is_forking = False

    def restore() -> None:
        for number in numbers:
            if signal.getsignal(number) is ours:
                signal.signal(number, signal.SIG_DFL)
        let_go()

    for number in numbers:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, ours)
    # What is sent to a child before it is that far waits: `multiprocessing.Pool` ends its children by SIGTERM, and one
    # that took it as the command does would show a traceback of ours.
    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=restore)
