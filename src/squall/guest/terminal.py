"""The client's terminal inside the container, for `breakpoint()` and `squall.interact()`.

A pseudo-terminal of the container's own stands between: pdb and other programs see an ordinary terminal, its other
end is carried over the connection. One session at a time.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios
import threading
from typing import Any

from squall.guest.inbox import Inbox
from squall.guest.link import Link
from squall.protocol.guest import TerminalData, TerminalOpen
from squall.sdk import _container

OPEN_S = 60.0


class TerminalMissing(RuntimeError):
    """No client lends a terminal: run with `squall run -i`."""


class Terminal:
    """Opens terminal sessions and carries their bytes."""

    def __init__(self, link: Link, inbox: Inbox) -> None:
        self._link = link
        self._master = -1
        self._slave = -1
        self._opened = threading.Event()
        self._refusal = ""
        inbox.on_terminal = self._received

    def install(self) -> None:
        """Make `breakpoint()` and `squall.interact()` find us."""
        sys.breakpointhook = self._breakpoint
        _container.set_interact(self.attach)

    def attach(self) -> None:
        """Make the client's terminal this process's stdin, stdout and stderr.

        Raises:
            TerminalMissing: nobody lends one.
        """
        self._open()
        for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            setattr(sys, stream, open(os.dup(self._slave), mode, buffering=1))  # noqa: SIM115 - it becomes the stream

    def _breakpoint(self, *args: Any, **kwargs: Any) -> None:
        import pdb  # cold start: debugging only

        self._open()
        frame = sys._getframe(1)
        stdin = open(os.dup(self._slave), buffering=1)  # noqa: SIM115 - the debugger's, until it ends
        stdout = open(os.dup(self._slave), "w", buffering=1)  # noqa: SIM115
        debugger = pdb.Pdb(stdin=stdin, stdout=stdout)
        debugger.use_rawinput = False
        debugger.set_trace(frame)

    def _open(self) -> None:
        if self._master >= 0:
            return
        self._refusal = ""
        self._opened.clear()
        # The pair comes first: the size of the client's terminal arrives with the answer.
        self._master, self._slave = pty.openpty()
        self._link.send("TerminalOpen", TerminalOpen(_container.current_input_id() or ""))
        if not self._opened.wait(OPEN_S) or self._refusal:
            os.close(self._master)
            os.close(self._slave)
            self._master = self._slave = -1
            reason = self._refusal or f"no client offered a terminal within {OPEN_S:.0f} s"
            raise TerminalMissing(f"cannot open a terminal: {reason}; run with `squall run -i`")
        threading.Thread(target=self._pump, args=(self._master,), name="squall-terminal", daemon=True).start()

    def _pump(self, master: int) -> None:
        while True:
            try:
                data = os.read(master, 65_536)
            except OSError:
                return
            if not data:
                return
            self._link.send("TerminalData", TerminalData(), data)

    def _received(self, record: TerminalData, body: bytes) -> None:
        if record.rows and self._slave >= 0:
            size = struct.pack("HHHH", record.rows, record.columns, 0, 0)
            fcntl.ioctl(self._slave, termios.TIOCSWINSZ, size)
        if record.is_end:
            self._refusal = record.message or "the client took its terminal back"
        if record.is_open or record.is_end:
            self._opened.set()
        while body and self._master >= 0:
            body = body[os.write(self._master, body) :]
