"""This terminal at one end of a stream, a process in a container at the other."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from squall.protocol.container import TerminalInput, TerminalOutput
from squall.protocol.log import STDERR
from squall.sdk._client import ClientStream
from squall.sdk._pending import iterate

_READ_BYTES = 65_536


def size() -> tuple[int, int]:
    """Rows and columns of this terminal."""
    try:
        # Not the variables first, as shutil does: what a shell exported once does not follow the window.
        found = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        found = shutil.get_terminal_size()
    return found.lines, found.columns


@contextmanager
def unchanged() -> Iterator[None]:
    """The terminal is as before when the block ends, whatever was done to it."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def raw(is_wanted: bool) -> Iterator[None]:
    """Every key goes to the other end, Ctrl-C included; the terminal is as before afterwards."""
    with unchanged():
        if is_wanted:
            # What has been typed already is for the other end: it stays, which `setraw` would not see to by itself.
            tty.setraw(sys.stdin.fileno(), termios.TCSADRAIN)
        yield


def carry(stream: ClientStream, *, is_raw: bool) -> int:
    """Carry bytes both ways until the process ends; returns its exit code."""
    ended = threading.Event()
    feeder = threading.Thread(target=_feed, args=(stream, ended), name="squall-terminal", daemon=True)
    code = 1
    with raw(is_raw), _resizes(stream, is_raw):
        feeder.start()
        try:
            for output, body in iterate(stream.items(TerminalOutput)):
                write(output, body)
                if output.exit_code is not None:
                    code = output.exit_code
        finally:
            ended.set()
    return code


def write(output: TerminalOutput, body: bytes) -> None:
    """Bytes of the other end to this one."""
    if body:
        target = sys.stderr if output.source == STDERR else sys.stdout
        target.flush()
        os.write(target.fileno(), body)


def _feed(stream: ClientStream, ended: threading.Event) -> None:
    try:
        descriptor = sys.stdin.fileno()
    except (OSError, ValueError):
        stream.send(TerminalInput(is_end=True))
        return
    while not ended.is_set():
        readable, _, _ = select.select([descriptor], [], [], 0.1)
        if not readable:
            continue
        data = os.read(descriptor, _READ_BYTES)
        if not data:
            stream.send(TerminalInput(is_end=True))
            return
        stream.send(TerminalInput(), data)


@contextmanager
def _resizes(stream: ClientStream, is_wanted: bool) -> Iterator[None]:
    if not is_wanted:
        yield
        return

    def tell(number: int, frame: Any) -> None:
        rows, columns = size()
        stream.send(TerminalInput(rows=rows, columns=columns))

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
