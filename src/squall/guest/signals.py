"""What signals do to the guest, and that children which user code forks take them as anywhere."""

from __future__ import annotations

import os
import signal
from threading import Timer, get_ident
from types import FrameType
from typing import Any

from squall.guest.cancellation import Interrupter
from squall.guest.inbox import Stopping

AGAIN_S = 0.01
"""After how long the guest sends itself the request to end that came while its main thread forked."""


def install_signals(interrupter: Interrupter) -> None:
    """SIGTERM ends user code, then the guest; SIGINT does nothing. From the main thread."""
    held_back: dict[int, set[signal.Signals | int]] = {}
    """What threads that fork held back before, by their number."""
    main_thread = get_ident()

    def terminate(number: int, frame: FrameType | None) -> None:
        if interrupter.is_closed:
            return
        if interrupter.is_forking:
            Timer(AGAIN_S, os.kill, (os.getpid(), number)).start()
            return
        # In user code: let its finally blocks run, then end. Waiting for work: end now.
        if not interrupter.end_all(frame):
            raise Stopping

    def disregard(number: int, frame: FrameType | None) -> None:
        pass

    signal.signal(signal.SIGTERM, terminate)
    # Nobody ends a container by SIGINT. Not SIG_IGN: programs that user code starts would inherit that, and a Ctrl-C
    # or `Popen.send_signal` meant for them would be lost. Calls of native code that it interrupts go on by themselves.
    signal.signal(signal.SIGINT, disregard)
    signal.siginterrupt(signal.SIGINT, False)
    interrupter.install()

    handlers: dict[signal.Signals, tuple[Any, Any]] = {
        signal.SIGTERM: (terminate, signal.SIG_DFL),
        signal.SIGINT: (disregard, signal.default_int_handler),
    }

    def hold() -> None:
        thread = get_ident()
        if thread == main_thread:
            interrupter.is_forking = True
        # Asked for first: handlers of user code run in either call, and may raise.
        held_back[thread] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, handlers)

    def let_go() -> None:
        thread = get_ident()
        before = held_back.pop(thread, None)
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if thread == main_thread:
            interrupter.is_forking = False

    def restore() -> None:
        for number, (ours, initial) in handlers.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, initial)
        let_go()

    # A child must not leave it to Python: a handler of Python's may come too late for a child that is about to wait,
    # which then waits for ever, and so does `multiprocessing.Pool` for the child. The kernel holds back what is sent
    # to a child before it is that far.
    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=restore)
