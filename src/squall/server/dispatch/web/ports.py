"""Connections to ports of containers, through the agents of their nodes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from squall.protocol.errors import UNAVAILABLE, ChannelClosed, PlatformError
from squall.protocol.port import CONNECT_S, WINDOW_BYTES, NodePort, PortInput, PortOutput

if TYPE_CHECKING:
    from squall.protocol.stream import Stream
    from squall.server.dispatch.fleet.container import Container

ANSWER_S = 4 * CONNECT_S
"""For an agent that stands still."""


async def open_port(container: Container, port: int) -> NodeStream:
    """Connect to a port of a container.

    Raises:
        PlatformError: see `NodePort`; `not_found` also when its node is away.
    """
    node = container.node
    if container.is_stopped or node is None or node.peer is None:
        what = f"cannot connect to port {port} of {container.container_id}"
        raise PlatformError("not_found", f"{what}: it has ended, or its node is away")
    stream = node.peer.stream("NodePort", NodePort(container.container_id, port))
    try:
        first = await asyncio.wait_for(stream.next(PortOutput), ANSWER_S)
    except TimeoutError:
        stream.cancel()
        raise PlatformError(UNAVAILABLE, f"port {port} of {container.container_id}: its node does not answer") from None
    except asyncio.CancelledError:
        stream.cancel()
        raise
    if first is None:
        raise PlatformError(UNAVAILABLE, f"port {port} of {container.container_id}: the connection ended at once")
    return NodeStream(stream, f"port {port} of {container.container_id}")


class NodeStream:
    """Implements `model.port.PortStream`."""

    def __init__(self, stream: Stream, what: str) -> None:
        self._stream = stream
        self._what = what
        self._room = WINDOW_BYTES
        self._has_room = asyncio.Event()
        self._untold = 0
        """Bytes that were read and that the agent was not told of."""
        self._come: asyncio.Queue[bytes | PlatformError] = asyncio.Queue()
        self._is_ended = self._is_closed = self._has_said_end = False
        self._failure: PlatformError | None = None
        self._receiving = asyncio.ensure_future(self._receive())

    async def _receive(self) -> None:
        """Take in what comes, all the time: among it is what lets a writer go on. It is a window at most."""
        has_ended = False
        try:
            while (item := await self._stream.next(PortOutput)) is not None:
                record, data = item
                if record.passed_bytes > 0:
                    self._room += record.passed_bytes
                    self._has_room.set()
                if data:
                    self._come.put_nowait(data)
                if record.is_end:
                    has_ended = True
                    self._come.put_nowait(b"")
            if not has_ended:
                self._fail(PlatformError(UNAVAILABLE, f"{self._what}: the connection came to no end"))
        except (PlatformError, ChannelClosed) as error:
            self._fail(PlatformError(UNAVAILABLE, f"{self._what}: {error}"))
        finally:
            self._is_ended = True
            self._has_room.set()

    def _fail(self, error: PlatformError) -> None:
        self._failure = error
        self._come.put_nowait(error)

    async def read(self) -> bytes:
        """See `PortStream`."""
        if self._untold >= WINDOW_BYTES // 4:
            self._tell(PortInput(passed_bytes=self._untold))
            self._untold = 0
        data = await self._come.get()
        if isinstance(data, PlatformError):
            self._come.put_nowait(data)
            raise data
        if not data:
            self._come.put_nowait(data)  # whoever reads on is told again
        self._untold += len(data)
        return data

    async def write(self, data: bytes) -> None:
        """See `PortStream`."""
        place = 0
        while place < len(data):
            while self._room <= 0 and not self._is_ended:
                self._has_room.clear()
                await self._has_room.wait()
            if self._failure is not None or self._is_ended or self._is_closed:
                raise self._failure or PlatformError(UNAVAILABLE, f"{self._what}: the connection has ended")
            piece = data[place : place + self._room] if place or len(data) > self._room else data
            self._room -= len(piece)
            place += len(piece)
            self._tell(PortInput(), piece)

    def write_eof(self) -> None:
        """See `PortStream`."""
        if not self._has_said_end:
            self._has_said_end = True
            self._tell(PortInput(True))

    async def wait_ended(self) -> None:
        """See `PortStream`."""
        await asyncio.wait([self._receiving])
        if self._failure is not None:
            raise self._failure

    def _tell(self, record: PortInput, body: bytes = b"") -> None:
        if not self._is_ended and not self._is_closed:
            self._stream.send(record, body)

    def close(self) -> None:
        """See `PortStream`."""
        if self._is_closed:
            return
        self._is_closed = True
        self._receiving.cancel()
        if not self._is_ended:
            self._stream.cancel()
