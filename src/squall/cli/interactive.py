"""`squall run -i`: lend this terminal to the app's containers while the entrypoint runs."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from squall.cli.server_calls import open_stream
from squall.cli.terminal import size, unchanged
from squall.exception import Error
from squall.protocol.container import TerminalInput, TerminalOffer, TerminalOutput
from squall.sdk import _shown
from squall.sdk._client import ClientStream
from squall.sdk._pending import iterate

_LOOK_S = 0.02
CATCH_UP_S = 1.0
"""How long a result waits for what was written to the terminal before it; somebody sits there and reads."""
DRAIN_S = 5.0
"""How long the end of the entrypoint waits for what containers wrote to the terminal."""


@contextmanager
def lend_terminal(app_id: str) -> Iterator[None]:
    """While the block runs, a container of the app that asks for a terminal gets this one."""
    rows, columns = size()
    stream = open_stream("TerminalOffer", TerminalOffer(app_id, rows, columns))
    display = _shown.Display()
    display.catch_up_s = CATCH_UP_S
    display.begin(stream)
    _shown.displays.append(display)
    lending = threading.Thread(target=_serve, args=(stream, display), name="squall-terminal", daemon=True)
    # Whatever a session left behind if the program ends in the middle of it.
    with unchanged():
        lending.start()
        try:
            yield
        finally:
            # What a container wrote comes on its own way, and the result may have been faster.
            with suppress(Error):
                stream.send(None)
            lending.join(DRAIN_S)
            stream.cancel()


def _serve(stream: ClientStream, display: _shown.Display) -> None:
    session: _Keys | None = None
    try:
        for output, body in iterate(stream.items(TerminalOutput), is_background=True):
            if session is None and output.exit_code is None:
                # Keys are read only while a container asks: at other times they are the entrypoint's own.
                session = _Keys(stream)
                # Once, before the container's first word. Later it would tear a line that the program just prints.
                sys.stdout.flush()
            if body:
                os.write(sys.stdout.fileno(), body)
            if session is not None and output.exit_code is not None:
                session.end()
                session = None
            display.has_shown()
    except Error:
        return
    finally:
        if session is not None:
            session.end()
        _shown.displays.remove(display)
        display.end()


class _Keys:
    """What is typed goes to the container, every key of it, until `end`."""

    def __init__(self, stream: ClientStream) -> None:
        self._stream = stream
        self._is_over = threading.Event()
        self._before: list[Any] | None = None
        self._descriptor = sys.stdin.fileno()
        if sys.stdin.isatty():
            self._before = termios.tcgetattr(self._descriptor)
            tty.setraw(self._descriptor, termios.TCSADRAIN)
        self._feeder = threading.Thread(target=self._feed, name="squall-keys", daemon=True)
        self._feeder.start()

    def end(self) -> None:
        """The terminal is as before, and nobody else reads it."""
        self._is_over.set()
        self._feeder.join()
        if self._before is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def _feed(self) -> None:
        while not self._is_over.is_set():
            readable, _, _ = select.select([self._descriptor], [], [], _LOOK_S)
            if not readable or self._is_over.is_set():
                continue
            data = os.read(self._descriptor, 1024)
            self._stream.send(TerminalInput(is_end=not data), data)
            if not data:
                return
