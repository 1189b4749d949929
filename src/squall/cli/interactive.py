"""`squall run -i`: lend this terminal to the app's containers while the entrypoint runs."""

from __future__ import annotations

import os
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from squall.cli.server_calls import open_stream
from squall.cli.terminal import size, unchanged, write
from squall.exception import Error
from squall.protocol.container import TerminalInput, TerminalOffer, TerminalOutput
from squall.sdk._client import ClientStream
from squall.sdk._pending import iterate


@contextmanager
def lend_terminal(app_id: str) -> Iterator[None]:
    """While the block runs, a container of the app that asks for a terminal gets this one."""
    rows, columns = size()
    stream = open_stream("TerminalOffer", TerminalOffer(app_id, rows, columns))
    lending = threading.Thread(target=_serve, args=(stream,), name="squall-terminal", daemon=True)
    lending.start()
    try:
        # The thread that reads keys makes the terminal raw and never ends by itself: it is put back here.
        with unchanged():
            yield
    finally:
        stream.cancel()


def _serve(stream: ClientStream) -> None:
    is_wanted = threading.Event()
    try:
        for output, body in iterate(stream.items(TerminalOutput), is_background=True):
            if not is_wanted.is_set():
                # Keys are read only once a container asks: until then they are the entrypoint's own.
                is_wanted.set()
                threading.Thread(target=_feed, args=(stream,), name="squall-keys", daemon=True).start()
            write(output, body)
    except Error:
        return


def _feed(stream: ClientStream) -> None:
    descriptor = sys.stdin.fileno()
    if sys.stdin.isatty():
        tty.setraw(descriptor, termios.TCSADRAIN)
    while data := os.read(descriptor, 1024):
        stream.send(TerminalInput(), data)
    stream.send(TerminalInput(is_end=True))
