"""The asking side of a request that is answered by many items."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeVar

from squall.protocol import codec as wire
from squall.protocol.codec import STREAM_WINDOW
from squall.protocol.errors import PlatformError

if TYPE_CHECKING:
    from squall.protocol.peer import Peer

R = TypeVar("R")


class Stream:
    """The asking side of a streaming request: iterate it for items, `send` to it, `cancel` it."""

    def __init__(self, peer: Peer, number: int) -> None:
        self._peer = peer
        self.number = number
        self._items: deque[tuple[Any, bytes]] = deque()
        self._error: PlatformError | None = None
        self._is_ended = False
        self._changed = asyncio.Event()
        self._unacknowledged = 0

    def send(self, record: Any, body: bytes = b"") -> None:
        """Send more to the running request; a record of None says that was all."""
        self._peer.send(wire.UP, self.number, "", record, body)

    def cancel(self) -> None:
        """Give the request up."""
        self._peer.give_up(self.number)
        self.end(None)

    async def next(self, cls: type[R]) -> tuple[R, bytes] | None:
        """The next item, or None at the end.

        Raises:
            PlatformError: the stream ended with an error, after its last item.
        """
        while not self._items:
            if self._is_ended:
                if self._error is not None:
                    raise self._error
                return None
            self._changed.clear()
            await self._changed.wait()
        params, body = self._items.popleft()
        self._unacknowledged += 1
        if self._unacknowledged >= STREAM_WINDOW // 2 and not self._is_ended:
            self._peer.send(wire.CREDIT, self.number, "", None, b"", self._unacknowledged)
            self._unacknowledged = 0
        return self._peer.codec.record(cls, params), body

    async def items(self, cls: type[R]) -> AsyncIterator[tuple[R, bytes]]:
        """All items; leaving the loop early gives the request up."""
        try:
            while (item := await self.next(cls)) is not None:
                yield item
        finally:
            if not self._is_ended:
                self.cancel()

    def add(self, params: Any, body: bytes) -> None:
        """An item came."""
        self._items.append((params, body))
        self._changed.set()

    def end(self, error: PlatformError | None) -> None:
        """The last item has come."""
        self._is_ended = True
        self._error = error
        self._changed.set()
