"""The answering side of a request: what was asked, and the stream of items that may be its answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeVar

from squall.protocol import codec as wire
from squall.protocol.codec import STREAM_WINDOW
from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.ids import new_id

if TYPE_CHECKING:
    from squall.protocol.peer import Peer

R = TypeVar("R")

UNREAD_BYTES_MAX = 16 * 2**20
"""What may be sent after a request that does not read it (yet); more ends the conversation."""


class Request:
    """One request being answered. Its `reply`, or the items of its stream, go back to the peer that asked."""

    def __init__(self, peer: Peer, number: int, method: str, params: Any, body: bytes) -> None:
        self._peer = peer
        self.number = number
        self.method = method
        self._params = params
        self.body = body
        self.request_id = new_id("rq")
        self._credit = STREAM_WINDOW
        self._has_credit = asyncio.Event()
        self._uploads: deque[tuple[Any, bytes]] = deque()
        self._has_upload = asyncio.Event()
        self._is_upload_ended = False
        self._is_reading = False
        self._unread_bytes = 0

    def record(self, cls: type[R]) -> R:
        """The parameters as a record.

        Raises:
            PlatformError: `invalid`, with the reason.
        """
        try:
            return self._peer.codec.record(cls, self._params)
        except ValueError as error:
            raise PlatformError(INVALID, f"{self.method}: {error}") from error

    async def send_item(self, record: Any, body: bytes = b"") -> None:
        """Send one item of a stream; waits while the reader is behind.

        Raises:
            ChannelClosed: nobody reads any more.
        """
        while self._credit <= 0:
            self._has_credit.clear()
            await self._has_credit.wait()
        self._credit -= 1
        self._peer.send(wire.ITEM, self.number, "", record, body)
        await self._peer.channel.drain()

    async def uploads(self, cls: type[R]) -> AsyncIterator[tuple[R, bytes]]:
        """What the other side sends after the request, until it says that was all."""
        self._is_reading = True
        while True:
            while self._uploads:
                params, body = self._uploads.popleft()
                yield self._peer.codec.record(cls, params), body
            if self._is_upload_ended:
                return
            self._has_upload.clear()
            await self._has_upload.wait()

    def add_credit(self, count: int) -> None:
        """The reader has read that many items."""
        self._credit += count
        self._has_credit.set()

    def add_upload(self, params: Any, body: bytes) -> None:
        """More came; parameters of None mean that was all.

        Raises:
            ValueError: nobody reads it, and it is too much to keep.
        """
        if not self._is_reading:
            self._unread_bytes += len(body) + 1_000
            if self._unread_bytes > UNREAD_BYTES_MAX:
                self._peer.channel.close()
                raise ValueError(f"{self.method} does not read what is sent after it: {self._unread_bytes} bytes")
        if params is None:
            self._is_upload_ended = True
        else:
            self._uploads.append((params, body))
        self._has_upload.set()
