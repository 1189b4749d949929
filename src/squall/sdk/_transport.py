"""Bytes to and from a server: a unix socket, or WebSocket messages. Used from any thread, blocking."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from typing import Protocol

from squall.sdk._pending import Reader
from squall.sdk._turn import SIGNALS_S

_READ_BYTES = 64 * 1024
_READ_BYTES_MAX = 1024 * 1024
_SIGNALS = struct.pack("ll", 0, int(SIGNALS_S * 1_000_000))
"""As a `struct timeval`."""


class Transport(Protocol):
    """A connection."""

    reader: Reader | None

    def write(self, data: bytes, body: bytes | memoryview = b"") -> None:
        """Send both, in this order, whole; any thread may.

        Raises:
            OSError: the connection is gone.
        """

    def read(self, deadline: float | None = None) -> bytes | None:
        """Some bytes; empty when the other side has ended, None when the (monotonic) deadline is past. One thread."""

    def close(self) -> None:
        """End it; a blocked `read` returns."""


class UnixTransport:
    """A unix stream socket."""

    def __init__(self, path: str, timeout_s: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._write_lock = threading.Lock()
        self._read_bytes = _READ_BYTES
        self._is_closed = False
        self.reader: Reader | None = None
        """Asked to read while a write has to wait."""
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(path)
            self._socket.settimeout(None)
            # The kernel's own time limit, and not Python's: that one would cost a `poll` before each call.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SIGNALS)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SIGNALS)
        except BaseException:
            self._socket.close()
            raise

    def write(self, data: bytes, body: bytes | memoryview = b"") -> None:
        """See `Transport`."""
        with self._write_lock:
            sent = self._send_now(data)
            if sent == len(data) and not body:
                return
            # The other side is slow, perhaps because it waits for us to read: somebody must, while we write.
            who = object()
            try:
                if self.reader is not None:
                    self.reader.need(who)
                self._send_all(memoryview(data)[sent:])
                self._send_all(memoryview(body))
            finally:
                if self.reader is not None:
                    self.reader.unneed(who)

    def _send_now(self, data: bytes) -> int:
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _send_all(self, data: memoryview) -> None:
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                continue  # Python has looked at its signals

    def read(self, deadline: float | None = None) -> bytes | None:
        """See `Transport`."""
        if deadline is not None and not self._is_readable(deadline):
            return None
        try:
            data = self._receive()
        except OSError:
            return b""
        # A full read means that more is there: large values arrive in fewer, larger pieces.
        if len(data) == self._read_bytes:
            self._read_bytes = _READ_BYTES_MAX
        elif len(data) < _READ_BYTES:
            self._read_bytes = _READ_BYTES
        return data

    def _receive(self) -> bytes:
        while True:
            try:
                return self._socket.recv(self._read_bytes)
            except BlockingIOError:
                continue  # Python has looked at its signals

    def _is_readable(self, deadline: float) -> bool:
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLIN)
        except ValueError:
            return True  # closed meanwhile: let `recv` say so
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            if poll.poll(int(min(left_s, SIGNALS_S) * 1000)):
                return True
            if left_s <= SIGNALS_S:
                return False

    def close(self) -> None:
        """See `Transport`."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was faster
        self._socket.close()

    def forget(self) -> None:
        """In a forked child: let go of the parent's connection without ending it."""
        self._is_closed = True
        os.close(self._socket.detach())
