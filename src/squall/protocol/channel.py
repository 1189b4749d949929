"""Two ends that exchange frames: in memory, over a stream socket, over WebSocket messages.

All three behave the same (tests/protocol/test_channel.py runs one suite over them):
  * `send` never blocks and keeps order; what one turn of the loop sends leaves in one write, `send_now` at once
  * frames arrive in batches, by a call to the receiver: no queue and no switch between them
  * `drain` waits while the other side is slower than we are: a sender of much must call it
  * an end that closes, or dies, makes the other's `closed` be called exactly once, after the last frame
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, cast

from squall.protocol.errors import ChannelClosed
from squall.protocol.frames import Frame, FrameDecoder, FrameError, encode_into

MESSAGE_BYTES_MAX = 16 * 2**20
"""What a WebSocket message is cut at: a sender that does not drain must not pass the other's limit."""
HIGH_WATER_BYTES = 4 * 2**20
LOW_WATER_BYTES = 1 * 2**20


class Receiver(Protocol):
    """What a channel calls. Neither method may raise or block."""

    def frames_received(self, frames: list[Frame]) -> None:
        """One batch, in order."""

    def closed(self, reason: str) -> None:
        """No more frames will come; called once."""


class Channel(Protocol):
    """One end. Used from its event loop's thread only."""

    def start(self, receiver: Receiver) -> None:
        """Begin to deliver; frames that came earlier are delivered first."""

    def send(self, frame: Frame) -> None:
        """Queue a frame. On a closed channel it does nothing: the receiver has been, or will be, told."""

    def send_now(self, frames: Sequence[Frame]) -> None:
        """As `send` of each, but without waiting for the end of the turn: for who knows that this is all of it."""

    async def drain(self) -> None:
        """Wait until little is queued.

        Raises:
            ChannelClosed: it never will be sent.
        """

    def pause(self) -> None:
        """Stop delivering until `resume`: the other side's `drain` will wait."""

    def resume(self) -> None:
        """Undo `pause`."""

    def close(self) -> None:
        """Send what is queued, then end. Repeating it is harmless."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent any more."""


class _Outbox:
    """Waiters for a full send queue."""

    def __init__(self) -> None:
        self._can_send = asyncio.Event()
        self._can_send.set()
        self.is_closed = False

    def block(self) -> None:
        self._can_send.clear()

    def unblock(self) -> None:
        self._can_send.set()

    def close(self) -> None:
        self.is_closed = True
        self._can_send.set()

    async def wait(self) -> None:
        await self._can_send.wait()
        if self.is_closed:
            raise ChannelClosed()


class MemoryChannel:
    """One end of a pair inside one process; speaks the same frames as the wire, without copying them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._peer: MemoryChannel | None = None
        self._receiver: Receiver | None = None
        self._inbox: list[Frame] = []
        self._inbox_bytes = 0
        self._is_scheduled = False
        self._is_delivering = False
        self._is_paused = False
        self._is_ending = False
        self._is_told = False
        self._outbox = _Outbox()

    @classmethod
    def pair(cls) -> tuple[MemoryChannel, MemoryChannel]:
        """Two connected ends."""
        one, other = cls(), cls()
        one._peer, other._peer = other, one
        return one, other

    @property
    def is_closed(self) -> bool:
        """See `Channel`."""
        return self._outbox.is_closed

    def start(self, receiver: Receiver) -> None:
        """See `Channel`."""
        self._receiver = receiver
        self._schedule()

    def send(self, frame: Frame) -> None:
        """See `Channel`."""
        peer = self._peer
        if self._outbox.is_closed or peer is None:
            return
        self._queue(peer, frame)
        peer._schedule()

    def send_now(self, frames: Sequence[Frame]) -> None:
        """See `Channel`."""
        peer = self._peer
        if self._outbox.is_closed or peer is None:
            return
        for frame in frames:
            self._queue(peer, frame)
        # A receiver that is being called is not called again before it returns.
        if peer._is_scheduled or peer._is_delivering:
            peer._schedule()
        else:
            peer._deliver()

    def _queue(self, peer: MemoryChannel, frame: Frame) -> None:
        peer._inbox.append(frame)
        peer._inbox_bytes += len(frame.header) + len(frame.body)
        if peer._inbox_bytes > HIGH_WATER_BYTES:
            self._outbox.block()

    async def drain(self) -> None:
        """See `Channel`."""
        await self._outbox.wait()

    def pause(self) -> None:
        """See `Channel`."""
        self._is_paused = True

    def resume(self) -> None:
        """See `Channel`."""
        self._is_paused = False
        self._schedule()

    def close(self) -> None:
        """See `Channel`."""
        for end in (self, self._peer):
            if end is not None and not end._is_ending:
                end._is_ending = True
                end._outbox.close()
                end._schedule()

    def _schedule(self) -> None:
        if self._receiver is not None and not self._is_scheduled and not self._loop.is_closed():
            self._is_scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._is_scheduled = False
        receiver = self._receiver
        if receiver is None or (self._is_paused and not self._is_ending):
            return
        frames, self._inbox, self._inbox_bytes = self._inbox, [], 0
        if self._peer is not None and not self._peer._outbox.is_closed:
            self._peer._outbox.unblock()
        if frames:
            self._is_delivering = True
            receiver.frames_received(frames)
            self._is_delivering = False
        if self._is_ending and not self._inbox and not self._is_told:
            self._is_told = True
            receiver.closed("the other end was closed")


class StreamChannel(asyncio.Protocol):
    """A connected stream socket (unix or TCP) as a channel: from `connect_unix`, or as the factory of a server."""

    def __init__(self, on_connect: Callable[[StreamChannel], None] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_connect = on_connect
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder()
        self._receiver: Receiver | None = None
        self._early: list[Frame] = []
        self._chunks: list[bytes] = []
        self._is_flushing = False
        self._is_told = False
        self._close_reason: str | None = None
        self._outbox = _Outbox()

    @property
    def is_closed(self) -> bool:
        """See `Channel`."""
        return self._outbox.is_closed

    def extra_info(self, name: str) -> Any:
        """What the transport knows of itself (`socket`, `peername`), or None."""
        return None if self._transport is None else self._transport.get_extra_info(name)

    def start(self, receiver: Receiver) -> None:
        """See `Channel`."""
        self._receiver = receiver
        if self._early:
            early, self._early = self._early, []
            receiver.frames_received(early)
        if self._close_reason is not None:
            self._tell_closed()

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
        """End at once; what is queued is lost."""
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

    def _tell_closed(self) -> None:
        if self._receiver is not None and not self._is_told:
            self._is_told = True
            self._receiver.closed(self._close_reason or "the connection was closed")

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
            self._close_reason = str(error)
            self.abort()
            return
        if not frames:
            return
        if self._receiver is None:
            self._early.extend(frames)
        else:
            self._receiver.frames_received(frames)

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._outbox.block()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._outbox.unblock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._outbox.close()
        if self._close_reason is None:
            self._close_reason = str(exc) if exc is not None else "the connection was closed"
        self._tell_closed()


async def connect_unix(path: str) -> StreamChannel:
    """Connect to a unix socket.

    Raises:
        OSError: nobody listens there, or it may not be used.
    """
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_unix_connection(StreamChannel, path)
    return channel


class MessageSocket(Protocol):
    """What a WebSocket library must offer to carry a channel; both sides adapt theirs to it."""

    async def send_bytes(self, data: bytes) -> None:
        """Send one binary message; raises any exception when the connection is gone."""

    async def receive_bytes(self) -> bytes | None:
        """The next binary message, or None when the connection has ended."""

    async def close(self) -> None:
        """End the connection."""


class WebSocketChannel:
    """A channel over binary messages that hold frames end to end. `run` must be awaited by its owner."""

    def __init__(self, socket: MessageSocket) -> None:
        self._socket = socket
        self._receiver: Receiver | None = None
        self._early: list[Frame] = []
        self._chunks: list[bytes] = []
        self._chunk_bytes = 0
        self._has_chunks = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._is_ending = False
        self._close_reason: str | None = None
        self._is_told = False
        self._outbox = _Outbox()

    @property
    def is_closed(self) -> bool:
        """See `Channel`."""
        return self._outbox.is_closed

    def start(self, receiver: Receiver) -> None:
        """See `Channel`."""
        self._receiver = receiver
        if self._early:
            early, self._early = self._early, []
            receiver.frames_received(early)
        if self._close_reason is not None:
            self._tell_closed()

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

    async def run(self) -> None:
        """Carry frames both ways until either side ends; returns then, and does not raise for a lost connection."""
        tasks: list[asyncio.Future[None]] = [
            asyncio.ensure_future(self._write_all()),
            asyncio.ensure_future(self._read_all()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._outbox.close()
            await _ignore_errors(self._socket.close())
            if self._close_reason is None:
                self._close_reason = "the connection was closed"
            self._tell_closed()

    async def _write_all(self) -> None:
        while True:
            await self._has_chunks.wait()
            self._has_chunks.clear()
            chunks, self._chunks, self._chunk_bytes = self._chunks, [], 0
            if chunks:
                try:
                    for message in _messages(chunks):
                        await self._socket.send_bytes(message)
                except Exception as error:  # noqa: BLE001 - the library's own types; all mean the connection is gone
                    self._close_reason = str(error) or type(error).__name__
                    return
                if not self._outbox.is_closed:
                    self._outbox.unblock()
            if self._is_ending and not self._chunks:
                return

    async def _read_all(self) -> None:
        decoder = FrameDecoder()
        while True:
            await self._may_read.wait()
            try:
                data = await self._socket.receive_bytes()
                frames = decoder.feed(data) if data is not None else []
            except FrameError as error:
                self._close_reason = str(error)
                return
            except Exception as error:  # noqa: BLE001 - as above
                self._close_reason = str(error) or type(error).__name__
                return
            if data is None:
                return
            if self._receiver is None:
                self._early.extend(frames)
            elif frames:
                self._receiver.frames_received(frames)

    def _tell_closed(self) -> None:
        if self._receiver is not None and not self._is_told:
            self._is_told = True
            self._receiver.closed(self._close_reason or "the connection was closed")


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
