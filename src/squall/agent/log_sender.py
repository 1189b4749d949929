"""Log lines on their way to the server, and how they stay ahead of what their container says after them.

Lines travel over the node's control channel, outputs over the container's own. So before frames of a container pass,
what it has printed is sent, and a `PrintedBefore` goes ahead of the frames: how many lines of this node the server
must have by then. It waits for them a moment if it has fewer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from squall.agent.logs import Logs
from squall.protocol import codec as wire
from squall.protocol.codec import Codec
from squall.protocol.errors import PlatformError
from squall.protocol.frames import Frame
from squall.protocol.node import PrintedBefore
from squall.protocol.peer import Peer


class LogSender:
    """Sends what `Logs` has read. `run` must be awaited by its owner."""

    def __init__(self, logs: Logs, codec: Codec) -> None:
        self._logs = logs
        self._codec = codec
        self._peer: Peer | None = None
        self._has_peer = asyncio.Event()
        self._line_count = 0
        """Sent since the server knows this node."""

    def begin(self, peer: Peer) -> None:
        """The server has taken this node in: send what waits, and what comes."""
        self._peer = peer
        self._line_count = 0
        self._has_peer.set()
        self.flush()

    def pause(self) -> None:
        """There is no server; lines wait."""
        self._peer = None
        self._has_peer.clear()

    def flush(self) -> None:
        """Send all that waits, if there is a server."""
        peer = self._peer
        while peer is not None and (batch := self._logs.take()) is not None:
            self._line_count += len(batch.entries)
            peer.event("Logs", batch)

    async def run(self) -> None:
        """Send lines for ever, no faster than the server takes them."""
        while True:
            await self._logs.wait()
            await self._has_peer.wait()
            peer = self._peer
            if peer is None:
                continue
            try:
                await peer.channel.drain()
            except PlatformError:
                if self._peer is peer:
                    self.pause()
                continue
            batch = self._logs.take() if self._peer is peer else None
            if batch is not None:
                self._line_count += len(batch.entries)
                peer.event("Logs", batch)

    def ahead(self, catch_up: Callable[[], bool]) -> Frame | None:
        """Send what a container has printed, before frames of it pass.

        Args:
            catch_up: the container's, from `Logs.add`.

        Returns:
            What to pass first; None when it has printed nothing since the last time.
        """
        peer = self._peer
        if not catch_up() or peer is None:
            return None
        # Lines that a full channel keeps back come when they can: their order is lost, not the outputs' time.
        while not peer.channel.is_full and (batch := self._logs.take()) is not None:
            self._line_count += len(batch.entries)
            peer.event_now("Logs", batch)
        return Frame(self._codec.encode(wire.EVENT, 0, "PrintedBefore", PrintedBefore(self._line_count)), b"")
