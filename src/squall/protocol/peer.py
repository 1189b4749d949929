"""Requests, streams and events over a channel; the same class on both ends.

A peer answers what its `Service` can do and asks what the other one can. Requests are pipelined and answered in any
order. Streams carry credit: the sender of items waits once `STREAM_WINDOW` of them are unread.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol, TypeVar

from squall.protocol import codec as wire
from squall.protocol.channel.contract import Channel
from squall.protocol.codec import Codec, Envelope
from squall.protocol.errors import (
    EXHAUSTED,
    INTERNAL,
    INVALID,
    TIMED_OUT,
    ChannelClosed,
    ErrorRecord,
    PlatformError,
    disk_full,
    is_disk_full,
)
from squall.protocol.frames import Frame, FrameTooLarge, check_size
from squall.protocol.request import Request
from squall.protocol.stream import Stream
from squall.protocol.task_set import TaskSet

R = TypeVar("R")

REQUESTS_MAX = 4_096
"""Requests one peer may have running on the other; more are refused, so that a flood costs its sender only."""
ANSWERING_BYTES_MAX = 256 * 2**20
"""Of the frames of those requests, all together."""
REFUSALS_MAX = 10_000
"""Requests that may be refused for that; after them the conversation ends: the other side does not listen."""
BAD_FRAMES_MAX = 100
"""Frames that could not be handled before the conversation ends: each is logged with its cause."""

MESSAGE_CHARS_MAX = 100_000
"""Of an error: one that names all of many things must not be what cannot be sent."""

_LESS = "ask for fewer at a time, or for one of them"

_log = logging.getLogger("squall.protocol.peer")


class Service(Protocol):
    """What one end can do for the other."""

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        """Answer with a record (or None) and a body; for a stream, send items and return None.

        A `PlatformError` becomes the error the other side sees; anything else becomes `internal` and is logged.
        """

    def event(self, method: str, params: Any, body: bytes) -> None:
        """An event came. Must not block; what it raises is logged."""

    def closed(self, reason: str) -> None:
        """The other end is gone; running requests have been cancelled."""


class Peer:
    """One end of a conversation. Create it, `start` it; `close` it at the end.

    What a service needs its peer for, it can be given when it is made: such a service comes with `start`.
    """

    def __init__(self, channel: Channel, codec: Codec, service: Service | None = None) -> None:
        self.channel = channel
        self.codec = codec
        self._service = service
        self._next_id = 1
        self._waiting: dict[int, asyncio.Future[tuple[Any, bytes]]] = {}
        self._streams: dict[int, Stream] = {}
        self._answering: dict[int, tuple[Request, asyncio.Future[Any]]] = {}
        self._answering_bytes = 0
        self._bad_frames = 0
        self._refused = 0
        self._tasks = TaskSet()
        self._closed = asyncio.Event()

    def start(self, service: Service | None = None) -> None:
        """Begin to receive; `service`, if one is given, does what the other side asks."""
        if service is not None:
            self._service = service
        self.channel.start(self)

    @property
    def is_closed(self) -> bool:
        """Whether the other end is gone."""
        return self._closed.is_set() or self.channel.is_closed

    async def wait_closed(self) -> None:
        """Return when the other end is gone."""
        await self._closed.wait()

    async def close(self) -> None:
        """End the conversation and what was running for it."""
        self.channel.close()
        await self._tasks.close()

    def send(self, kind: str, number: int, method: str, record: Any, body: bytes = b"", count: int = 0) -> None:
        """Queue one frame.

        Raises:
            FrameTooLarge: it would be over the limits, and end the connection for all; it is not sent.
        """
        self.channel.send(self._frame(kind, number, method, record, body, count))

    def event(self, method: str, record: Any, body: bytes = b"") -> None:
        """Tell the other side something, without an answer. Raises as `send`."""
        self.channel.send(self._frame(wire.EVENT, 0, method, record, body))

    def event_now(self, method: str, record: Any, body: bytes = b"") -> None:
        """As `event`, but sent before this returns: for who knows that nothing else follows in this turn."""
        self.channel.send_now((self._frame(wire.EVENT, 0, method, record, body),))

    async def request(
        self, method: str, record: Any, reply: type[R], body: bytes = b"", timeout_s: float | None = 60.0
    ) -> R:
        """Ask, and wait for the answer.

        Raises:
            PlatformError: what the other side answered; `timed_out` after `timeout_s`; `invalid`, and nothing was
                sent, when the question is too large; `internal` when the answer is no record of that kind.
            ChannelClosed: no answer came; whether it was carried out is unknown.
        """
        return (await self.request_with_body(method, record, reply, body, timeout_s))[0]

    async def request_with_body(
        self, method: str, record: Any, reply: type[R], body: bytes = b"", timeout_s: float | None = 60.0
    ) -> tuple[R, bytes]:
        """As `request`, with the body of the answer."""
        if self.is_closed:
            raise ChannelClosed(f"{method}: the connection was closed")
        number = self._take_id()
        self._ask(number, method, record, body)
        # Known before anything can come: nothing is received within this turn of the loop.
        future: asyncio.Future[tuple[Any, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            params, reply_body = await asyncio.wait_for(future, timeout_s)
        except asyncio.TimeoutError:
            self.give_up(number)
            raise PlatformError(TIMED_OUT, f"{method}: no answer within {timeout_s} s") from None
        except asyncio.CancelledError:
            self.give_up(number)
            raise
        finally:
            self._waiting.pop(number, None)
        try:
            return self.codec.record(reply, params), reply_body
        except ValueError as error:
            raise PlatformError(INTERNAL, f"{method}: the answer cannot be read: {error}") from error

    def stream(self, method: str, record: Any, body: bytes = b"") -> Stream:
        """Ask for a stream of items.

        Raises:
            ChannelClosed: the other end is gone.
            PlatformError: `invalid`: the question is too large.
        """
        if self.is_closed:
            raise ChannelClosed(f"{method}: the connection was closed")
        number = self._take_id()
        self._ask(number, method, record, body)
        stream = Stream(self, number)
        self._streams[number] = stream
        return stream

    def give_up(self, number: int) -> None:
        """Tell the other side that nobody waits for this answer."""
        self._streams.pop(number, None)
        if not self.is_closed:
            self.send(wire.CANCEL, number, "", None)

    def _frame(self, kind: str, number: int, method: str, record: Any, body: bytes, count: int = 0) -> Frame:
        frame = Frame(self.codec.encode(kind, number, method, record, count), body)
        check_size(len(frame.header), len(body))
        return frame

    def _ask(self, number: int, method: str, record: Any, body: bytes) -> None:
        try:
            self.send(wire.REQUEST, number, method, record, body)
        except FrameTooLarge as error:
            raise PlatformError(INVALID, f"{method}: {error}; send less at a time") from error

    def _take_id(self) -> int:
        number = self._next_id
        self._next_id += 1
        return number

    # Receiver

    def frames_received(self, frames: list[Frame]) -> None:
        """Called by the channel."""
        for frame in frames:
            try:
                self._received(self.codec.decode(frame.header), frame.body, len(frame.header))
            except Exception:  # noqa: BLE001 - top of the receive loop; one bad frame must not end the others
                if self._bad_frames < BAD_FRAMES_MAX:
                    _log.exception("a frame could not be handled: %.200r", frame.header)
                self._bad_frames += 1
                if self._bad_frames == BAD_FRAMES_MAX:
                    _log.error("%d frames could not be handled; the connection is closed", BAD_FRAMES_MAX)
                    self.channel.close()

    def _received(self, envelope: Envelope, body: bytes, header_bytes: int) -> None:
        kind, number = envelope.kind, envelope.number
        if kind == wire.EVENT:
            if self._service is not None:
                self._service.event(envelope.method, envelope.params, body)
        elif kind == wire.REQUEST:
            self._begin(envelope, body, header_bytes)
        elif kind == wire.REPLY:
            future = self._waiting.get(number)
            if future is not None and not future.done():
                future.set_result((envelope.params, body))
        elif kind == wire.ERROR:
            self._failed(number, self.codec.record(ErrorRecord, envelope.params).to_error())
        elif kind == wire.ITEM:
            stream = self._streams.get(number)
            if stream is not None:
                stream.add(envelope.params, body)
        elif kind == wire.END:
            stream = self._streams.pop(number, None)
            if stream is not None:
                stream.end(None)
        else:
            self._received_for_request(kind, number, envelope, body)

    def _received_for_request(self, kind: str, number: int, envelope: Envelope, body: bytes) -> None:
        running = self._answering.get(number)
        if running is None:
            return
        request, task = running
        if kind == wire.CANCEL:
            task.cancel()
        elif kind == wire.CREDIT:
            request.add_credit(envelope.amount)
        elif kind == wire.UP:
            request.add_upload(envelope.params, body)

    def _failed(self, number: int, error: PlatformError) -> None:
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_exception(error)
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.end(error)

    def _begin(self, envelope: Envelope, body: bytes, header_bytes: int) -> None:
        if envelope.number in self._answering:
            # Not counted twice, it would be a way around the limits below.
            raise ValueError(f"{envelope.method}: request {envelope.number} is running already")
        size_bytes = header_bytes + len(body)
        if len(self._answering) >= REQUESTS_MAX or self._answering_bytes + size_bytes > ANSWERING_BYTES_MAX:
            what = f"{len(self._answering)} requests with {self._answering_bytes >> 20} MiB are running already"
            self.send(wire.ERROR, envelope.number, "", ErrorRecord("exhausted", f"{envelope.method}: {what}"))
            self._refused += 1
            if self._refused >= REFUSALS_MAX:
                _log.error("%d requests were refused; the connection is closed", REFUSALS_MAX)
                self.channel.close()
            return
        request = Request(self, envelope.number, envelope.method, envelope.params, body)
        self._answering_bytes += size_bytes
        task = self._tasks.start(self._answer(request))
        # Not in `_answer`: one cancelled before its first step never runs.
        task.add_done_callback(lambda _: self._answered(envelope.number, size_bytes))
        self._answering[envelope.number] = (request, task)

    def _answered(self, number: int, size_bytes: int) -> None:
        self._answering.pop(number, None)
        self._answering_bytes -= size_bytes

    async def _answer(self, request: Request) -> None:
        try:
            if self._service is None:
                raise PlatformError(INVALID, f"{request.method}: this end answers no requests")
            # Whoever asks and does not read gets no more answers: they would wait in our memory.
            await self.channel.drain()
            answer = await self._service.answer(request)
            if answer is None:
                self.send(wire.END, request.number, "", None)
            else:
                self.send(wire.REPLY, request.number, "", answer[0], answer[1])
        except PlatformError as error:
            self._refuse(request, error)
        except FrameTooLarge as error:
            # Not sent: the other end would end the connection, make another one, and ask the same again.
            self._refuse(request, PlatformError(EXHAUSTED, f"{request.method}: the answer has {error}; {_LESS}"))
        except Exception as error:  # noqa: BLE001 - top of a request
            _log.exception("%s failed (request %s)", request.method, request.request_id)
            if is_disk_full(error):
                self._refuse(request, disk_full(request.method, error))
                return
            message = f"{request.method}: internal error (request {request.request_id}); the server's log has the cause"
            self._refuse(request, PlatformError(INTERNAL, message))

    def _refuse(self, request: Request, error: PlatformError) -> None:
        message = error.message
        if len(message) > MESSAGE_CHARS_MAX:
            message = f"{message[:MESSAGE_CHARS_MAX]}… ({len(message):,} characters)"
        self.send(wire.ERROR, request.number, "", ErrorRecord(error.code, message))

    def closed(self, reason: str) -> None:
        """Called by the channel."""
        error = ChannelClosed(f"the connection was closed: {reason}")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
        for stream in self._streams.values():
            stream.end(error)
        self._streams.clear()
        self._tasks.cancel()
        self._closed.set()
        if self._service is not None:
            self._service.closed(reason)
