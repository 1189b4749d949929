"""The other end of a guest's connection: a thread that accepts, records events and says what it is told to."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from squall.protocol import codec as wire
from squall.protocol.codec import Envelope, JsonCodec
from squall.protocol.frames import Frame, FrameDecoder, encode

R = TypeVar("R")


class AgentDouble:
    """Accepts one connection after another on a unix socket; events land in a queue."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.codec = JsonCodec()
        self.events: queue.Queue[tuple[Envelope, bytes]] = queue.Queue()
        self._connection: socket.socket | None = None
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._connected = threading.Event()
        self.server_path = ""
        """Where clients in the container are passed on to."""
        self._listen()

    def _listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._start(self._accept, self._listener)

    def _start(self, reads: Callable[[socket.socket], None], of: socket.socket) -> None:
        thread = threading.Thread(target=reads, args=(of,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            if self.server_path and self._is_client(connection):
                self._pass_on(connection)
                continue
            self._connection = connection
            self._connected.set()
            self._start(self._read, connection)

    def _is_client(self, connection: socket.socket) -> bool:
        """Whether it begins with the greeting of one; that stays to be read."""
        return b'"role":"client"' in connection.recv(65_536, socket.MSG_PEEK)

    def _pass_on(self, connection: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.connect(self.server_path)
        self._connections.append(server)
        for one, other in ((connection, server), (server, connection)):
            self._start(lambda source, sink=other: self._copy(source, sink), one)  # type: ignore[misc]

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        AgentDouble._shut_down(sink)

    def _read(self, connection: socket.socket) -> None:
        decoder = FrameDecoder()
        while True:
            try:
                data = connection.recv(65_536)
            except OSError:
                return
            if not data:
                return
            for frame in decoder.feed(data):
                envelope = self.codec.decode(frame.header)
                self.events.put((envelope, frame.body))
                if envelope.method == "GuestHello" and envelope.params.get("ready"):
                    # An agent says it in the place of the guest.
                    self.events.put((envelope._replace(method="Ready", params=envelope.params["ready"]), b""))

    def say(self, method: str, record: Any, body: bytes = b"") -> None:
        """Send one event to the guest."""
        assert self._connected.wait(10)
        assert self._connection is not None
        self._connection.sendall(encode(Frame(self.codec.encode(wire.EVENT, 0, method, record), body)))

    def expect(self, method: str, cls: type[R], timeout_s: float = 10.0) -> tuple[R, bytes]:
        """The next event of that method; others before it are dropped."""
        deadline = time.monotonic() + timeout_s
        while True:
            envelope, body = self.events.get(timeout=max(0.01, deadline - time.monotonic()))
            if envelope.method == method:
                return self.codec.record(cls, envelope.params), body

    def all_events(self) -> list[tuple[Envelope, bytes]]:
        """What has come and was not expected yet, of a guest that has ended."""
        for reading in self._threads[1:]:
            reading.join(10)
        return list(self.events.queue)

    def drop(self) -> None:
        """Die: the connection and the socket go away."""
        Path(self.path).unlink()
        self._connected.clear()
        self._shut_down(self._listener)
        # First who accepts, as it starts others. A thread on its way to `recv` when its socket is closed would read
        # from whatever has the number next.
        self._threads.pop(0).join(10)
        for connection in self._connections:
            self._shut_down(connection)
        for thread in self._threads:
            thread.join(10)
        for closed in (self._listener, *self._connections):
            closed.close()
        self._threads.clear()
        self._connections.clear()

    @staticmethod
    def _shut_down(ended: socket.socket) -> None:
        with contextlib.suppress(OSError):
            ended.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        """Listen again at the same path."""
        self._listen()

    def close(self) -> None:
        """End for good."""
        self.drop()
