"""The guest's connection to the agent: whole frames over a blocking socket, made again when it breaks.

The socket is read by one thread at a time, by turns (see `inbox`); any thread may send.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from squall.protocol import codec as wire
from squall.protocol.codec import Envelope, JsonCodec
from squall.protocol.frames import Frame, FrameDecoder, encode_into
from squall.protocol.guest import ROLE_GUEST, Boot, BootRefused, GuestHello, GuestWaiting, Ready
from squall.protocol.version import PROTOCOL_VERSION, VERSION

RECONNECT_S = 120.0
"""How long a guest without a server waits for one before it gives up; longer than a server takes to be back."""
_RETRY_S_MAX = 1.0
_READ_BYTES = 64 * 1024
_READ_BYTES_MAX = 1024 * 1024


class LinkLost(Exception):
    """No server came back within `RECONNECT_S`; the guest ends."""


class NothingToLoad(LinkLost):
    """The server says that there is nothing to load any more, and why."""


class Link:
    """Frames to and from the server."""

    def __init__(self, path: str, token: str, container_id: str, role: str = ROLE_GUEST) -> None:
        self._path = path
        self._token = token
        self._container_id = container_id
        self._role = role
        self._codec = JsonCodec()
        self._decoder = FrameDecoder()
        self._unread: list[tuple[Envelope, bytes]] = []
        self._socket: socket.socket | None = None
        self._send_lock = threading.Lock()
        self._read_bytes = _READ_BYTES
        self._is_shut = False
        self.is_connected = False
        self.is_ready_said = False
        """Over the connection that there is now."""

    @property
    def codec(self) -> JsonCodec:
        """How headers are read."""
        return self._codec

    def fileno(self) -> int:
        """Of the socket, to wait on; -1 while there is none."""
        connection = self._socket
        return -1 if connection is None else connection.fileno()

    def begin(self, waiting: socket.socket | None, ready: Ready | None) -> None:
        """Introduce ourselves as the fork that we are, which can say already what it is ready for, if it is given.

        Args:
            waiting: from `connect_waiting`, with the same `ready`; we are introduced over it. One that broke
                meanwhile is made anew by whoever reads.

        Raises:
            LinkLost: nobody answered.
        """
        if waiting is None:
            self.connect(ready=ready)
            return
        with self._send_lock:
            self._socket = waiting
            self.is_ready_said, self.is_connected = ready is not None, True

    def connect(
        self, is_reconnect: bool = False, frames: Callable[[], bytes] = bytes, ready: Ready | None = None
    ) -> None:
        """Connect and introduce ourselves, trying again for a while; `frames` follow before anything else is sent.

        Args:
            ready: what we are ready for already; it is said with the introduction.

        Raises:
            LinkLost: nobody answered.
        """
        deadline = time.monotonic() + RECONNECT_S
        pause_s = 0.01
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self._path)
                break
            except OSError as error:
                connection.close()
                if self._is_shut or time.monotonic() > deadline:
                    raise LinkLost(f"cannot connect to the agent at {self._path}: {error}") from error
            time.sleep(pause_s)
            pause_s = min(_RETRY_S_MAX, pause_s * 2)
        self._decoder = FrameDecoder()
        data = self.greeting(is_reconnect, ready) + frames()
        with self._send_lock:
            self._socket = connection
            self.is_ready_said = ready is not None
            try:
                connection.sendall(data)
                self.is_connected = True
            except OSError:
                self.is_connected = False

    def greeting(self, is_reconnect: bool = False, ready: Ready | None = None) -> bytes:
        """What introduces us."""
        hello = GuestHello(
            token=self._token,
            role=self._role,
            container_id=self._container_id,
            version=VERSION,
            protocol_version=PROTOCOL_VERSION,
            pid=os.getpid(),
            python_version=".".join(str(part) for part in sys.version_info[:3]),
            is_reconnect=is_reconnect,
            ready=ready,
        )
        return self.frame("GuestHello", hello)

    def frame(self, method: str, record: Any, body: bytes = b"") -> bytes:
        """One event as it is sent."""
        chunks: list[bytes] = []
        encode_into(Frame(self._codec.encode(wire.EVENT, 0, method, record), body), chunks)
        return b"".join(chunks)

    def send(self, method: str, record: Any, body: bytes = b"") -> bool:
        """Send one event; False when the connection is broken (the reader makes it again)."""
        return self.send_bytes(self.frame(method, record, body))

    def send_bytes(self, data: bytes) -> bool:
        """Send whole frames; False when the connection is broken."""
        with self._send_lock:
            connection = self._socket
            if connection is None or not self.is_connected:
                return False
            try:
                connection.sendall(data)
            except OSError:
                self.is_connected = False
                return False
            except BaseException:
                # Half a frame may be out: only a new connection is whole again, and the reader makes it.
                self.is_connected = False
                connection.shutdown(socket.SHUT_RDWR)
                raise
        return True

    def receive(self) -> list[tuple[Envelope, bytes]] | None:
        """Wait for data and give the frames that are whole; None when the connection has ended."""
        if self._unread:
            unread, self._unread = self._unread, []
            return unread
        connection = self._socket
        if connection is None:
            return None
        try:
            data = connection.recv(self._read_bytes)
        except OSError:
            data = b""
        # Small buffers come from the heap, large ones cost three calls of the kernel each: only while much arrives.
        self._read_bytes = _READ_BYTES_MAX if len(data) == self._read_bytes else _READ_BYTES
        if not data:
            self.disconnect()
            return None
        return [(self._codec.decode(frame.header), frame.body) for frame in self._decoder.feed(data)]

    @property
    def has_unread(self) -> bool:
        """Whether the next `receive` need not wait for the socket."""
        return bool(self._unread)

    def put_back(self, messages: list[tuple[Envelope, bytes]]) -> None:
        """Give these out again, before anything else."""
        self._unread = messages

    def shut_down(self) -> None:
        """Wake whoever waits to receive, or tries to connect: nothing is wanted from the server any more."""
        self._is_shut = True
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def disconnect(self) -> None:
        """Forget a broken connection."""
        with self._send_lock:
            self.is_connected = False
            if self._socket is not None:
                self._socket.close()
                self._socket = None


def connect_waiting(path: str, ready: Ready | None) -> socket.socket | None:
    """Connect before it is known who we are; None where that cannot be done now, and is to be done then.

    Args:
        ready: what is true as soon as that is known, if anything: it is said in our place.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
        connection.sendall(Link(path, "", "").frame("GuestWaiting", GuestWaiting(ready)))
    except OSError:
        connection.close()
        return None
    return connection


def introduce(waiting: socket.socket, path: str, token: str, container_id: str) -> None:
    """Say over a connection from `connect_waiting` who we are now: first of all, for what we are to do comes then."""
    with contextlib.suppress(OSError):
        waiting.sendall(Link(path, token, container_id).greeting())


def receive_boot(link: Link) -> Boot:
    """Wait for the server to say what to load.

    Raises:
        NothingToLoad, LinkLost: nobody says it any more, with the reason.
    """
    while True:
        messages = link.receive()
        if messages is None:
            # The server went away between our greeting and its answer; the next one will answer.
            link.connect()
            continue
        for number, (envelope, _) in enumerate(messages):
            if envelope.method == "Boot":
                # What came along with it, as a request to stop, is for whoever reads when the function is loaded.
                link.put_back(messages[number + 1 :])
                return link.codec.record(Boot, envelope.params)
            if envelope.method == "BootRefused":
                raise NothingToLoad(link.codec.record(BootRefused, envelope.params).cause)
