"""A channel over a stream socket, unix or TCP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from squall.protocol.channel.contract import HIGH_WATER_BYTES, LOW_WATER_BYTES, Receiver
from squall.protocol.channel.inbox import Inbox
from squall.protocol.channel.outbox import Outbox
from squall.protocol.frames import Frame, FrameDecoder, FrameError, encode_into


class StreamChannel(asyncio.Protocol):
    """A connected stream socket (unix or TCP) as a channel: from `connect_unix`, or as the factory of a server."""

    def __init__(self, on_connect: Callable[[StreamChannel], None] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_connect = on_connect
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder()
        self._fault: str | None = None
        self._inbox = Inbox()
        self._chunks: list[bytes] = []
        self._is_flushing = False
        self._outbox = Outbox()

    @property
    def is_closed(self) -> bool:
        """See `Channel`."""
        return self._outbox.is_closed

    @property
    def is_full(self) -> bool:
        """See `Channel`."""
        return self._outbox.is_blocked

    def extra_info(self, name: str) -> Any:
        """What the transport knows of itself (`socket`, `peername`), or None."""
        return None if self._transport is None else self._transport.get_extra_info(name)

    def start(self, receiver: Receiver) -> None:
        """See `Channel`."""
        self._inbox.start(receiver)

    def send(self, frame: Frame) -> None:
        """See `Channel`."""
        if self._outbox.is_closed:
            return
        encode_into(frame, self._chunks)
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def send_now(self, frames: Sequence[Frame]) -> None:
        """See `Channel`."""
        if self._outbox.is_closed:
            return
        for frame in frames:
            encode_into(frame, self._chunks)
        self._flush()

    async def drain(self) -> None:
        """See `Channel`."""
        self._flush()
        await self._outbox.wait()

    @property
    def held_bytes(self) -> int:
        """What has come of a frame that is not whole yet, and waits in memory."""
        return self._decoder.held_bytes

    def pause(self) -> None:
        """See `Channel`."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """See `Channel`."""
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """See `Channel`."""
        if self._outbox.is_closed:
            return
        self._flush()
        self._outbox.close()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """See `Channel`."""
        self._outbox.close()
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        self._is_flushing = False
        if not self._chunks or self._transport is None:
            return
        chunks, self._chunks = self._chunks, []
        # A transport that is closing refuses bytes, uvloop's by raising; `connection_lost` is on its way then.
        if not self._transport.is_closing():
            self._transport.write(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # Not asserted: the transports of uvloop have the methods without being of the class.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)
        if self._on_connect is not None:
            self._on_connect(self)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            frames = self._decoder.feed(data)
        except FrameError as error:
            self._fault = str(error)
            self.abort()
            return
        if frames:
            self._inbox.deliver(frames)

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._outbox.block()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._outbox.unblock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._outbox.close()
        self._inbox.end(self._fault or str(exc or "") or "the connection was closed")


async def connect_unix(path: str) -> StreamChannel:
    """Connect to a unix socket.

    Raises:
        OSError: nobody listens there, or it may not be used.
    """
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_unix_connection(StreamChannel, path)
    return channel
