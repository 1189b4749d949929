"""The spawner's end of a connection: frames in, answers and events out, descriptors with them."""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from squall.runtime.errors import RuntimeFailure
from squall.runtime.poll import Poller
from squall.runtime.wire import RECEIVE_BYTES, FrameReader, encode_frame

# An agent that reads this little is dead or stuck; it can connect again and list.
OUTGOING_BYTES_MAX = 64 * 2**20


class Peer:
    """One connected agent. After it is gone, sending does nothing but close the descriptors."""

    def __init__(
        self,
        connection: socket.socket,
        poller: Poller,
        on_message: Callable[[Peer, dict[str, Any]], None],
        on_close: Callable[[Peer], None],
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._poller = poller
        self._on_message = on_message
        self._on_close = on_close
        self._reader = FrameReader()
        self._outgoing: deque[tuple[memoryview, list[int]]] = deque()
        self._outgoing_bytes = 0
        self.is_open = True
        self.wants_events = False
        poller.watch(connection.fileno(), self._on_ready)
        poller.private.add(connection.fileno())

    def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Queue a frame. The descriptors are closed here once they are sent or can no longer be."""
        if not self.is_open:
            for descriptor in descriptors:
                os.close(descriptor)
            return
        frame = encode_frame(message, len(descriptors))
        self._outgoing.append((memoryview(frame), list(descriptors)))
        self._outgoing_bytes += len(frame)
        if self._outgoing_bytes > OUTGOING_BYTES_MAX:
            self.close()
        elif len(self._outgoing) == 1:
            self._flush()

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        if not self.is_open:
            return
        self.is_open = False
        self._poller.unwatch(self._connection.fileno())
        self._poller.private.discard(self._connection.fileno())
        self._connection.close()
        self._reader.close()
        for _, descriptors in self._outgoing:
            for descriptor in descriptors:
                os.close(descriptor)
        self._outgoing.clear()
        self._on_close(self)

    def _on_ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if self.is_open and events & ~select.EPOLLOUT:
            self._receive()

    def _receive(self) -> None:
        try:
            # Requests bring no descriptors; what is received without room for them is closed by the kernel.
            data = self._connection.recv(RECEIVE_BYTES)
            if not data:
                self.close()
                return
            frames = self._reader.feed(data)
        except BlockingIOError:
            return
        except (OSError, RuntimeFailure):
            self.close()
            return
        for message, _ in frames:
            if self.is_open:
                self._on_message(self, message)

    def _flush(self) -> None:
        try:
            while self._outgoing:
                frame, descriptors = self._outgoing[0]
                sent = socket.send_fds(self._connection, [frame], descriptors)
                self._outgoing_bytes -= sent
                # The descriptors went with the first byte.
                for descriptor in descriptors:
                    os.close(descriptor)
                if sent == len(frame):
                    self._outgoing.popleft()
                else:
                    self._outgoing[0] = (frame[sent:], [])
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        wanted = select.EPOLLIN | (select.EPOLLOUT if self._outgoing else 0)
        self._poller.watch(self._connection.fileno(), self._on_ready, wanted)
