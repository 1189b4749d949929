"""What signals do to the guest."""

from __future__ import annotations

import signal
from types import FrameType

from squall.guest.cancellation import Interrupter
from squall.guest.inbox import Stopping


def install_signals(interrupter: Interrupter) -> None:
    """SIGTERM ends user code, then the guest; SIGINT does nothing. Not in children that user code forks. From the main
    thread."""

    def terminate(number: int, frame: FrameType | None) -> None:
        if interrupter.is_closed:
            return
        # In user code: let its finally blocks run, then end. Waiting for work: end now.
        if not interrupter.end_all(frame):
            raise Stopping

    def disregard(number: int, frame: FrameType | None) -> None:
        pass

    interrupter.forks.take(signal.SIGTERM, terminate, signal.SIG_DFL)
    # Nobody ends a container by SIGINT. Not SIG_IGN: programs that user code starts would inherit that, and a Ctrl-C
    # or `Popen.send_signal` meant for them would be lost. Calls of native code that it interrupts go on by themselves.
    interrupter.forks.take(signal.SIGINT, disregard, signal.default_int_handler)
    signal.siginterrupt(signal.SIGINT, False)
    interrupter.install()
    interrupter.forks.install()
