"""The client's terminal inside the container, for `breakpoint()` and `squall.interact()`.

A pseudo-terminal of the container's own stands between: pdb and other programs see an ordinary terminal, its other
end is carried over the connection. One session at a time. It ends when the debugger is told to continue, or the input
that asked ends: from then on Ctrl-C and everything else that is typed belongs to the client again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pdb
import pty
import struct
import sys
import termios
import threading
from collections.abc import Callable
from typing import IO, Any

from squall.exception import TerminalMissing
from squall.guest.inbox import Inbox
from squall.guest.link import Link
from squall.protocol.guest import TerminalData, TerminalOpen
from squall.sdk import _container

OPEN_S = 60.0
_DRAIN_S = 5.0
_END_OF_FILE = b"\x04"


class Terminal:
    """Opens terminal sessions and carries their bytes."""

    def __init__(self, link: Link, inbox: Inbox) -> None:
        self._link = link
        self._master = -1
        self._slave = -1
        self._input_id: str | None = None
        self._files: list[IO[str]] = []
        self._streams: tuple[Any, Any, Any] | None = None
        self._debugger: _Debugger | None = None
        self._pump: threading.Thread | None = None
        self._opened = threading.Event()
        self._refusal = ""
        inbox.on_terminal = self._received

    def install(self) -> None:
        """Make `breakpoint()` and `squall.interact()` find us."""
        sys.breakpointhook = self._breakpoint
        _container.set_interact(self.attach)

    def attach(self) -> None:
        """Make the client's terminal this process's stdin, stdout and stderr until the input ends.

        Raises:
            TerminalMissing: nobody lends one.
        """
        self._open()
        if self._streams is None:
            self._streams = (sys.stdin, sys.stdout, sys.stderr)
            sys.stdin, sys.stdout, sys.stderr = self._file("r"), self._file("w"), self._file("w")

    def end_input(self, input_id: str) -> None:
        """End the session that this input opened, if it did."""
        if self._input_id == input_id:
            self.release()

    def release(self) -> None:
        """End the session: what was printed is shown, then the terminal is the client's own again."""
        if self._streams is not None:
            sys.stdin, sys.stdout, sys.stderr = self._streams
            self._streams = None
        if self._debugger is not None:
            # A breakpoint set by hand would stop where nobody looks any more.
            self._debugger.clear_all_breaks()
            sys.settrace(None)
            self._debugger = None
        for file in self._files:
            with contextlib.suppress(OSError, ValueError):
                file.close()
        self._files.clear()
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1
        self._input_id = None
        if self._pump is not None:
            self._pump.join(_DRAIN_S)
            self._pump = None

    def _breakpoint(self, *args: Any, **kwargs: Any) -> None:
        self._open()
        if self._debugger is None:
            self._debugger = _Debugger(self.release, self._file("r"), self._file("w"))
        self._debugger.set_trace(sys._getframe(1))

    def _file(self, mode: str) -> IO[str]:
        file = open(os.dup(self._slave), mode, buffering=1)  # noqa: SIM115 - `release` closes it
        self._files.append(file)
        return file

    def _open(self) -> None:
        if self._slave >= 0:
            return
        self._refusal = ""
        self._opened.clear()
        # The pair comes first: the size of the client's terminal arrives with the answer.
        self._master, self._slave = pty.openpty()
        self._link.send("TerminalOpen", TerminalOpen(_container.running_input_id() or ""))
        if not self._opened.wait(OPEN_S) or self._refusal:
            os.close(self._master)
            os.close(self._slave)
            self._master = self._slave = -1
            reason = self._refusal or f"no client offered one within {OPEN_S:.0f} s; run it with `squall run -i`"
            raise TerminalMissing(f"cannot open a terminal: {reason}")
        self._input_id = _container.running_input_id()
        self._pump = threading.Thread(target=self._carry, args=(self._master,), name="squall-terminal", daemon=True)
        self._pump.start()

    def _carry(self, master: int) -> None:
        """Send what is printed; when every user of the terminal has closed it, its end."""
        try:
            while data := os.read(master, 65_536):
                self._link.send("TerminalData", TerminalData(), data)
        except OSError:
            # EIO: nobody has it open any more.
            pass
        finally:
            self._master = -1
            os.close(master)
            self._link.send("TerminalData", TerminalData(is_end=True))

    def _received(self, record: TerminalData, body: bytes) -> None:
        if record.rows and self._slave >= 0:
            size = struct.pack("HHHH", record.rows, record.columns, 0, 0)
            fcntl.ioctl(self._slave, termios.TIOCSWINSZ, size)
        if record.is_end:
            self._refusal = record.message or "the client took its terminal back"
        if record.is_open or record.is_end:
            self._opened.set()
            if record.is_end:
                # Whoever waits for a key learns that none will come.
                body = _END_OF_FILE
        with contextlib.suppress(OSError):
            while body and self._master >= 0:
                body = body[os.write(self._master, body) :]


class _Debugger(pdb.Pdb):
    """Gives the terminal back when it has nothing left to stop at."""

    def __init__(self, release: Callable[[], None], stdin: IO[str], stdout: IO[str]) -> None:
        super().__init__(stdin=stdin, stdout=stdout)
        self.use_rawinput = False
        self._release = release

    def set_continue(self) -> None:
        super().set_continue()
        if not self.breaks:
            self._release()

    def set_quit(self) -> None:
        super().set_quit()
        self._release()


def refuse_breakpoint(*args: Any, **kwargs: Any) -> None:
    """`breakpoint()` where no terminal is lent.

    Raises:
        TerminalMissing: always, unless the user has chosen or switched off the debugger by PYTHONBREAKPOINT.
    """
    if os.environ.get("PYTHONBREAKPOINT"):
        sys.__breakpointhook__(*args, **kwargs)
        return
    raise TerminalMissing("breakpoint() in a container needs a terminal: run the app with `squall run -i`")
