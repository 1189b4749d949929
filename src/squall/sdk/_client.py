"""The conversation with a server: requests, streams, calls; taken up again after the connection breaks.

Any thread may use a client. There is no event loop and, on the way of a blocking call, no second thread: the caller
writes to the socket itself, and whoever waits reads it, for all who wait (`_connection.py`). The keeper, a daemon
thread, makes the connection (`_keeper.py`, `_greeting.py`).

After a break the keeper connects again, starting the local server if need be, introduces the client under the same
`client_id`, takes its apps up again, and sends what is unanswered: everything a client asks may be asked twice, but not
over the same connection.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from squall import exception
from squall.protocol import codec as wire
from squall.protocol.app import AppCreate
from squall.protocol.call_id import owner_mark
from squall.protocol.codec import JsonCodec
from squall.protocol.errors import ErrorRecord
from squall.protocol.frames import Frame, FrameTooLarge, check_size
from squall.protocol.function import FunctionCreate
from squall.protocol.ids import new_id
from squall.protocol.server import Welcome
from squall.sdk import _calls, _greeting, _local_server
from squall.sdk._connection import Connection, Line
from squall.sdk._greeting import set_notice as set_notice
from squall.sdk._keeper import Keeper
from squall.sdk._local_server import Endpoint
from squall.sdk._pending import Pending, run
from squall.sdk._refusals import in_words, translate
from squall.sdk._streams import ClientStream as ClientStream
from squall.sdk._streams import ConnectionLost as ConnectionLost
from squall.sdk._unreadable import Unreadable

R = TypeVar("R")
T = TypeVar("T")

CLOSES_MAX = 64
"""Finished calls that the server is told of together with the next call."""


class OpenCall(Protocol):
    """What a client keeps of a call: see `_calls.py`."""

    call_id: str

    def take_outputs(self, params: dict[str, Any], body: bytes) -> None:
        """Outputs came."""

    def take_items(self, params: dict[str, Any], body: bytes) -> None:
        """Items came."""

    def frames(self) -> bytes:
        """What to send after a reconnect."""

    def fail(self, error: BaseException) -> None:
        """Nothing will come."""


class _Request:
    """A question, kept until it is answered."""

    __slots__ = ("body", "header", "method", "pending", "sent_over")

    def __init__(self, method: str, pending: Pending[tuple[Any, bytes]], header: bytes, body: Any) -> None:
        self.method = method
        self.pending = pending
        self.header = header
        self.body = body
        self.sent_over: Line | None = None
        """Where it was, or is just being, sent last."""


class Client:
    """One process's conversation with a server. `connect` is lazy: the first use waits for it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.client_id = new_id("cl")
        self._call_mark = ""
        self.codec = JsonCodec()
        self.welcome: Welcome | None = None
        self._load = json.JSONDecoder().decode
        self._numbers = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        self._choosing = threading.RLock()
        """Who sends a request. A signal handler may ask in the middle of it."""
        self._streams: dict[int, ClientStream] = {}
        self._calls: dict[str, OpenCall] = {}
        self._apps: dict[str, tuple[AppCreate, tuple[FunctionCreate, ...]]] = {}
        self._held: set[str] = set()
        """Ids of ephemeral assets, and of tunnels, which live as long as we do."""
        self._again: dict[str, Callable[[], None]] = {}
        """By the same ids: what the next server must be asked for anew."""
        self._closes: deque[bytes] = deque()
        """Frames that say which calls are over; each waits for a connection."""
        self._has_drops = False
        """Some of those calls may still run: worth a connection of its own."""
        self.spawner: object = None
        """What sends spawns (`_spawn.py`), once there is one."""
        self.connection_count = 0
        """How many connections there have been."""
        self._unreadable = Unreadable()
        self.connection = Connection(self._take, self._lost, self._ensure_connected)
        self._keeper = Keeper(self, self.connection)

    # Using it

    async def connect(self) -> Welcome:
        """Wait until the server has greeted us.

        Raises:
            ConnectionError: it cannot be reached or started.
            VersionError: it is of another version, and busy.
        """
        ready = self.connecting()
        if ready is not None:
            return await ready
        assert self.welcome is not None
        return self.welcome

    def connecting(self) -> Pending[Welcome] | None:
        """What `connect` waits for, for those who wait for something else too; None when the connection is there."""
        return self._keeper.ensure()

    async def request(self, method: str, record: Any, reply: type[R], body: Any = b"") -> R:
        """Ask, and wait for the answer, over reconnects if need be.

        Raises:
            Error: what the server answered, as an exception of `squall.exception`.
            InvalidError: the question is too large; nothing was sent.
        """
        return (await self.request_with_body(method, record, reply, body))[0]

    async def request_with_body(self, method: str, record: Any, reply: type[R], body: Any = b"") -> tuple[R, bytes]:
        """As `request`, with the answer's body."""
        params, reply_body = await self.ask(method, record, body)
        return self.codec.record(reply, params), reply_body

    def ask(self, method: str, record: Any, body: Any = b"") -> Pending[Any]:
        """Ask without waiting; the pending becomes the undecoded answer and its body. Raises as `request`."""
        return self._ask(method, record, body)[1]

    def ask_numbered(self, method: str, record: Any, body: Any = b"") -> tuple[int, Pending[Any]]:
        """As `ask`; with the number of the question, by which it can be withdrawn."""
        return self._ask(method, record, body)

    def withdraw(self, number: int) -> None:
        """Nobody waits for that answer: it is asked no more, and the server is told if it can be."""
        if self._requests.pop(number, None) is not None:
            self.write_frame(wire.CANCEL, number, "", None)

    def ask_soon(self, method: str, record: Any, reply: type[R], timeout_s: float) -> R | None:
        """The answer, if it comes within that time over the connection there is. Else None, and it is asked no more.

        Blocks. For what is looked at again and again, by who has better to do than to wait for a server that is away.

        Raises:
            Error: as `request`.
        """
        if self.connecting() is not None:
            return None
        number, pending = self._ask(method, record, b"")
        if not pending.block(time.monotonic() + timeout_s):
            self.withdraw(number)
            return None
        return self.codec.record(reply, pending.result()[0])

    def _ask(self, method: str, record: Any, body: Any) -> tuple[int, Pending[Any]]:
        number = next(self._numbers)
        header = self._question(number, method, record, len(body))
        pending: Pending[tuple[Any, bytes]] = Pending(self.connection)
        request = self._requests[number] = _Request(method, pending, header, body)
        self._keeper.ensure()
        self._send(request)
        return number, pending

    def stream(self, method: str, record: Any) -> ClientStream:
        """Ask for a stream of items. The connection must be there: `await connect()` first."""
        number = next(self._numbers)
        header = self._question(number, method, record)
        stream = ClientStream(self, number)
        self._streams[number] = stream
        if not self._write_header(header, b""):
            self.forget_stream(number)
            stream.end(ConnectionLost(f"{method}: the connection to the server is gone"))
        return stream

    def _question(self, number: int, method: str, record: Any, body_bytes: int = 0) -> bytes:
        header = self.codec.encode(wire.REQUEST, number, method, record)
        try:
            check_size(len(header), body_bytes)
        except FrameTooLarge as error:
            # The server would end the connection, and with it what others ask over it.
            raise exception.InvalidError(in_words(f"{method}: {error}; send less at a time")) from error
        return header

    def forget_stream(self, number: int) -> None:
        """Its items are no longer wanted."""
        self._streams.pop(number, None)

    @property
    def sending_over(self) -> int:
        """The number of the connection that what is sent now goes over first: the one there is, or the next. What was
        sent over one that is gone may have come to something."""
        return self.connection_count + (self.connection.line is None)

    def new_call_id(self) -> str:
        """An id of a call that nobody else can open, not even with a server that knows no calls yet."""
        self._call_mark = self._call_mark or owner_mark(self.client_id)
        return new_id("fc") + self._call_mark

    def open_call(self, call: OpenCall, frames: bytes) -> None:
        """Begin a call, or send more of it."""
        self._calls[call.call_id] = call
        self._keeper.ensure()
        (self._write_with_closes if self._closes else self.connection.write)(frames)

    def close_call(self, call: OpenCall, *, is_prompt: bool = False) -> None:
        """Forget a call. The server is told with the next frames, or now when it may still have work to drop."""
        self._calls.pop(call.call_id, None)
        self._closes.append(_calls.call_close(call.call_id))
        if is_prompt:
            self._has_drops = True
        if is_prompt or len(self._closes) >= CLOSES_MAX:
            self._write_with_closes(b"")

    def _write_with_closes(self, frames: bytes) -> None:
        """Also say which calls are over; without a connection, the next one is told."""
        line = self.connection.line
        closes = self._take_closes()
        is_out = False
        try:
            is_out = self.connection.write(closes + frames)
        finally:
            if is_out:
                self._has_drops = False
            elif closes:
                self._closes.appendleft(closes)
                self.connection.news.ring()
        if not is_out and self.connection.line not in (None, line):
            self.connection.write(self._take_closes())  # it came while we gave them back

    def _take_closes(self) -> bytes:
        # Other threads append meanwhile: each frame is taken once.
        frames = []
        while self._closes:
            try:
                frames.append(self._closes.popleft())
            except IndexError:
                break
        return b"".join(frames)

    def send_more(self, frames: bytes) -> None:
        """Frames of an open call; lost with the connection, because the call is sent again as a whole."""
        self.connection.write(frames)

    def keep_app(self, app: AppCreate, functions: tuple[FunctionCreate, ...] = ()) -> None:
        """Take this app up again after each reconnect."""
        self._apps[app.app_id] = (app, functions)
        self.connection.news.ring()  # from now on the keeper looks at an idle connection

    def drop_app(self, app_id: str) -> None:
        """Undo `keep_app`."""
        self._apps.pop(app_id, None)

    def hold(self, asset_id: str, again: Callable[[], None] | None = None) -> None:
        """Stay connected as long as this asset is to live; the server knows whose it is.

        `again` is called, in the keeper's thread, when there is a new connection; it must not wait.
        """
        self._held.add(asset_id)
        if again is not None:
            self._again[asset_id] = again
        self.connection.news.ring()

    def let_go(self, asset_id: str) -> None:
        """Undo `hold`."""
        self._held.discard(asset_id)
        self._again.pop(asset_id, None)

    def write_frame(self, kind: str, number: int, method: str, record: Any, body: bytes = b"", count: int = 0) -> None:
        """Send one frame if there is a connection."""
        self._write_header(self.codec.encode(kind, number, method, record, count), body)

    def close(self) -> None:
        """End the conversation; those who wait are told."""
        self._keeper.is_closed = True
        self.connection.write(self._take_closes())
        self.connection.lose("the client was closed")
        self.drop_leases()
        self.fail_waiting(exception.ClientClosed("the client was closed"))
        self._keeper.close()

    def forget(self) -> None:
        """In a forked child: let go of what belongs to the parent."""
        self._keeper.is_closed = True
        self.connection.forget()

    def _ensure_connected(self) -> None:
        self._keeper.ensure()

    def _write_header(self, header: bytes, body: Any, line: Line | None = None) -> bool:
        prefix = len(header).to_bytes(4, "little") + len(body).to_bytes(4, "little")
        return self.connection.write(prefix + header, body, line)

    def _send(self, request: _Request) -> None:
        """Ask over the connection there is, unless that is done: by the keeper for a connection that is new, or by who
        asks. Both may come at the same time; without a connection the next one is the keeper's."""
        line = self.connection.line
        with self._choosing:
            if line is None or request.sent_over is line:
                return
            request.sent_over = line
        self._write_header(request.header, request.body, line)

    # What comes

    def _take(self, frames: list[Frame]) -> None:
        calls, load = self._calls, self._load
        for header, body in frames:
            # Not `codec.decode`: this loop is what a small call's way back costs.
            envelope = load(header.decode())
            if envelope["k"] != wire.EVENT:
                self._answered(envelope["k"], envelope["i"], envelope.get("p"), body)
                continue
            params = envelope["p"]
            call = calls.get(params["call_id"])
            if call is None:
                continue
            if envelope["m"] == "PutOutputs":
                call.take_outputs(params, body)
            elif envelope["m"] == "PutItems":
                call.take_items(params, body)
            elif envelope["m"] == "CallWaits":
                _greeting.tell_wait(params["text"])

    def _answered(self, kind: str, number: int, params: Any, body: bytes) -> None:
        if kind == wire.ITEM:
            stream = self._streams.get(number)
            if stream is not None:
                stream.add(params, body)
            return
        error = None
        if kind == wire.ERROR:
            error = translate(self.codec.record(ErrorRecord, params).to_error())
        elif kind not in (wire.REPLY, wire.END):
            return
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.end(error)
        request = self._requests.get(number)
        if request is not None:
            if error is None:
                request.pending.set((params, body))
            else:
                request.pending.fail(error)
            self._requests.pop(number, None)

    # Connected and lost; the keeper calls these

    def connect_once(self) -> Welcome:
        """See `Kept`."""
        introduction = _greeting.Introduction(
            self.endpoint, self.client_id, self.codec, self._numbers, is_reconnect=self.welcome is not None
        )
        greeted = _greeting.connect(introduction, list(self._apps.values()))
        self.welcome = greeted.welcome
        # The connection becomes visible first and what waits is sent then: a call that begins in between is sent
        # twice, which is harmless; the other way round it would not be sent at all. Of requests see `_send`.
        self.connection.adopt(greeted.transport, greeted.decoder)
        self.connection_count += 1
        self._send_again()
        return greeted.welcome

    def _send_again(self) -> None:
        for request in list(self._requests.values()):
            self._send(request)
        for again in list(self._again.values()):
            again()
        for call in list(self._calls.values()):
            self.connection.write(call.frames())
            if call.call_id not in self._calls:
                self._closes.append(_calls.call_close(call.call_id))  # given up while we sent it
        # The server keeps calls for a client that comes back: of those that ended meanwhile it has not heard.
        self._write_with_closes(b"")

    def has_work(self) -> bool:
        """See `Kept`."""
        return bool(self._requests or self._calls or self.has_leases() or self._has_drops)

    def has_leases(self) -> bool:
        """See `Kept`."""
        return bool(self._apps or self._held)

    def drop_leases(self) -> None:
        """See `Kept`."""
        self._apps.clear()
        self._held.clear()

    def fail_waiting(self, error: BaseException) -> None:
        """See `Kept`."""
        # All of them first: whoever is told may ask anew at once.
        requests, calls = _emptied(self._requests), _emptied(self._calls)
        for request in requests:
            request.pending.fail(error)
        for call in calls:
            call.fail(error)
        self._end_streams(error)

    def _lost(self, reason: str, is_unreadable: bool) -> None:
        # Streams only: requests and calls are asked again on the next connection.
        self._end_streams(ConnectionLost(f"the connection to the server broke: {reason}"))
        if is_unreadable:
            self._give_up_unreadable(reason)

    def _give_up_unreadable(self, reason: str) -> None:
        """Ask no more what is answered again and again by what cannot be read."""
        self._unreadable.note(self._requests, self._calls)
        for number in self._unreadable.hopeless(self._requests):
            request = self._requests.pop(number, None)
            if request is not None:
                request.pending.fail(self._unreadable.error(in_words(f"{request.method}: "), reason))
        for call_id in self._unreadable.hopeless(self._calls):
            call = self._calls.pop(call_id, None)
            if call is not None:
                call.fail(self._unreadable.error(f"cannot get the outputs of call {call_id}: ", reason))

    def _end_streams(self, error: BaseException) -> None:
        for stream in _emptied(self._streams):
            stream.end(error)


def _emptied(table: dict[Any, T]) -> list[T]:
    """Everything in it, which is in it no more; other threads put more in meanwhile."""
    taken: list[T] = []
    while table:
        try:
            taken.append(table.popitem()[1])
        except KeyError:
            break
    return taken


_current: Client | None = None
_current_lock = threading.Lock()


def current() -> Client:
    """This process's client; made on first use."""
    global _current
    client = _current
    if client is None:
        with _current_lock:
            if _current is None:
                _current = Client(_local_server.find_endpoint())
            client = _current
    return client


def close() -> None:
    """Close this process's client, if there is one; the next use makes another."""
    global _current
    with _current_lock:
        client, _current = _current, None
    if client is not None:
        client.close()


def connect() -> Welcome:
    """Connect this process's client and wait for it; for programs that want to fail early."""
    return run(current().connect())


def _forked() -> None:
    """The connection, its threads and its locks are the parent's: the child makes its own when it needs them."""
    global _current, _current_lock
    client, _current = _current, None
    _current_lock = threading.Lock()
    if client is not None:
        client.forget()


os.register_at_fork(after_in_child=_forked)
