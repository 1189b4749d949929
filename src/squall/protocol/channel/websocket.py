"""A channel over WebSocket messages, whichever library carries them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from typing import Protocol

from squall.protocol.channel.contract import HIGH_WATER_BYTES, Receiver
from squall.protocol.channel.inbox import Inbox
from squall.protocol.channel.outbox import Outbox
from squall.protocol.frames import Frame, FrameDecoder, encode_into

MESSAGE_BYTES_MAX = 16 * 2**20
"""What a message is cut at: a sender that does not drain must not pass the other's limit."""
_CLOSED = "the connection was closed"


class MessageSocket(Protocol):
    """What a WebSocket library must offer to carry a channel; both sides adapt theirs to it."""

    async def send_bytes(self, data: bytes) -> None:
        """Send one binary message; raises any exception when the connection is gone."""

    async def receive_bytes(self) -> bytes | None:
        """The next binary message, or None when the connection has ended."""

    async def close(self) -> None:
        """End the connection."""

    def abort(self) -> None:
        """End it without a word, also when the other side does not read."""


class WebSocketChannel:
    """A channel over binary messages that hold frames end to end. `run` must be awaited by its owner."""

    def __init__(self, socket: MessageSocket) -> None:
        self._socket = socket
        self._inbox = Inbox()
        self._chunks: list[bytes] = []
        self._chunk_bytes = 0
        self._has_chunks = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._is_ending = False
        self._is_aborted = asyncio.Event()
        self._outbox = Outbox()

    @property
    def is_closed(self) -> bool:
        """See `Channel`."""
        return self._outbox.is_closed

    @property
    def is_full(self) -> bool:
        """See `Channel`."""
        return self._outbox.is_blocked

    def start(self, receiver: Receiver) -> None:
        """See `Channel`."""
        self._inbox.start(receiver)

    def send(self, frame: Frame) -> None:
        """See `Channel`."""
        if self._outbox.is_closed:
            return
        self._chunk_bytes += encode_into(frame, self._chunks)
        if self._chunk_bytes > HIGH_WATER_BYTES:
            self._outbox.block()
        self._has_chunks.set()

    def send_now(self, frames: Sequence[Frame]) -> None:
        """See `Channel`."""
        for frame in frames:
            self.send(frame)

    async def drain(self) -> None:
        """See `Channel`."""
        await self._outbox.wait()

    def pause(self) -> None:
        """See `Channel`."""
        self._may_read.clear()

    def resume(self) -> None:
        """See `Channel`."""
        self._may_read.set()

    def close(self) -> None:
        """See `Channel`."""
        self._is_ending = True
        self._outbox.close()
        self._has_chunks.set()
        self._may_read.set()

    def abort(self) -> None:
        """See `Channel`."""
        self._chunks.clear()
        self.close()
        self._is_aborted.set()

    async def run(self) -> None:
        """Carry frames both ways until either side ends; returns then, and does not raise for a lost connection."""
        tasks = [asyncio.ensure_future(one) for one in (self._write_all(), self._read_all(), self._wait_aborted())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            reasons = await asyncio.gather(*tasks, return_exceptions=True)
            self._outbox.close()
            if self._is_aborted.is_set():
                self._socket.abort()
            else:
                await _ignore_errors(self._socket.close())
            self._inbox.end(next((reason for reason in reasons if isinstance(reason, str)), _CLOSED))

    async def _write_all(self) -> str:
        """Returns why it ended."""
        while True:
            await self._has_chunks.wait()
            self._has_chunks.clear()
            chunks, self._chunks, self._chunk_bytes = self._chunks, [], 0
            if chunks:
                try:
                    for message in _messages(chunks):
                        await self._socket.send_bytes(message)
                except Exception as error:  # noqa: BLE001 - the library's own types; all mean the connection is gone
                    return str(error) or type(error).__name__
                if not self._outbox.is_closed:
                    self._outbox.unblock()
            if self._is_ending and not self._chunks:
                return _CLOSED

    async def _wait_aborted(self) -> str:
        """Returns why it ended."""
        await self._is_aborted.wait()
        return "the connection was given up"

    async def _read_all(self) -> str:
        """Returns why it ended."""
        decoder = FrameDecoder()
        while True:
            await self._may_read.wait()
            try:
                data = await self._socket.receive_bytes()
                frames = decoder.feed(data) if data is not None else []
            except Exception as error:  # noqa: BLE001 - as above, or bytes that are no frames
                return str(error) or type(error).__name__
            if data is None:
                return _CLOSED
            if frames:
                self._inbox.deliver(frames)


def _messages(chunks: list[bytes]) -> Iterator[bytes]:
    """The chunks end to end, in pieces; the other side's decoder does not mind where they are cut."""
    data = b"".join(chunks)
    if len(data) <= MESSAGE_BYTES_MAX:
        yield data
        return
    for start in range(0, len(data), MESSAGE_BYTES_MAX):
        yield data[start : start + MESSAGE_BYTES_MAX]


async def _ignore_errors(awaitable: Awaitable[None]) -> None:
    try:
        await awaitable
    except Exception:  # noqa: BLE001 - closing what is broken already
        return
