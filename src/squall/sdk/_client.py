"""The connection to a server: requests, streams, calls; found again after it breaks.

Any thread may use a client. There is no event loop and, on the way of a blocking call, no second thread: the caller
writes to the socket itself, and whoever waits reads it, for all who wait. At any moment one thread at most holds
`_reading`; when it has what it waited for, it wakes another one to go on. The keeper, a daemon thread, reads only
while somebody waits who cannot (an event loop, a background thread) and nobody else does; it also connects.

After a break the keeper connects again, starting the local server if need be, introduces the client under the same
`client_id`, takes its apps up again, and sends what is unanswered: everything a client asks may be asked twice.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol, TypeVar

from squall import exception
from squall.protocol import codec as wire
from squall.protocol.app import AppCreate, AppCreated
from squall.protocol.codec import JsonCodec
from squall.protocol.errors import ErrorRecord, PlatformError
from squall.protocol.frames import FrameDecoder, FrameError
from squall.protocol.function import FunctionCreate, FunctionCreated
from squall.protocol.guest import ROLE_CLIENT, GuestHello
from squall.protocol.ids import new_id
from squall.protocol.peer import STREAM_WINDOW
from squall.protocol.server import Hello, ServerStop, Welcome
from squall.protocol.version import PROTOCOL_VERSION, VERSION
from squall.sdk import _calls, _local_server
from squall.sdk._local_server import Endpoint
from squall.sdk._pending import Pending, run
from squall.sdk._transport import Transport, UnixTransport

R = TypeVar("R")

CONNECT_S = 90.0
"""How long a lost or first connection is tried before those who wait are told."""
FIRST_CONNECT_S = 10.0
"""The same for a server elsewhere that has never been reached."""
BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
TAKE_OVER_S = 0.003
"""How long the keeper lets the gap between two blocking calls be before it reads itself."""
LONG_LEAD_S = 0.02
"""The keeper looks rarely while one thread reads on; after that long it is told when the thread stops."""
LOOK_S = 1.0
"""How often the connection is looked at while nobody waits for anything."""
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

    __slots__ = ("body", "header", "is_repeatable", "pending")

    def __init__(self, pending: Pending[tuple[Any, bytes]], header: bytes, body: Any, is_repeatable: bool) -> None:
        self.pending = pending
        self.header = header
        self.body = body
        self.is_repeatable = is_repeatable


class ConnectionLost(exception.ServiceError):
    """The connection broke before the end of a stream."""


class ClientStream:
    """Items of a streaming request; `send` to it, `cancel` it, iterate it."""

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self._number = number
        self._items: deque[tuple[Any, bytes]] = deque()
        self._error: BaseException | None = None
        self._is_ended = False
        self._signal: Pending[None] | None = None
        self._unacknowledged = 0

    def send(self, record: Any, body: bytes = b"") -> None:
        """Send more to the running request; None says that was all."""
        self._client.write_frame(wire.UP, self._number, "", record, body)

    def cancel(self) -> None:
        """Give it up."""
        if not self._is_ended:
            self._client.forget_stream(self._number)
            self._client.write_frame(wire.CANCEL, self._number, "", None)
            self.end(None)

    def add(self, params: Any, body: bytes) -> None:
        """An item came."""
        self._items.append((params, body))
        self._wake()

    def end(self, error: BaseException | None) -> None:
        """No more items."""
        self._error = error
        self._is_ended = True
        self._wake()

    def _wake(self) -> None:
        signal = self._signal
        if signal is not None:
            signal.set(None)

    async def items(self, cls: type[R]) -> AsyncGenerator[tuple[R, bytes], None]:
        """All items. Leaving early gives the request up.

        Raises:
            ConnectionLost: the connection broke before the end.
            Error: what the server answered.
        """
        try:
            while True:
                while self._items:
                    params, body = self._items.popleft()
                    self._acknowledge()
                    yield self._client.codec.record(cls, params), body
                if self._is_ended:
                    if self._error is not None:
                        raise self._error
                    return
                signal: Pending[None] = Pending(self._client)
                self._signal = signal
                if not self._items and not self._is_ended:
                    await signal
        finally:
            self.cancel()

    def _acknowledge(self) -> None:
        self._unacknowledged += 1
        if self._unacknowledged >= STREAM_WINDOW // 2 and not self._is_ended:
            self._client.write_frame(wire.CREDIT, self._number, "", None, b"", self._unacknowledged)
            self._unacknowledged = 0


class Client:
    """One process's conversation with a server. `connect` is lazy: the first use waits for it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.client_id = new_id("cl")
        self.codec = JsonCodec()
        self._load = json.JSONDecoder().decode
        self.welcome: Welcome | None = None
        self._transport: Transport | None = None
        self._decoder = FrameDecoder()
        self._next_number = 1
        self._requests: dict[int, _Request] = {}
        self._streams: dict[int, ClientStream] = {}
        self._calls: dict[str, OpenCall] = {}
        self._apps: dict[str, tuple[AppCreate, FunctionCreate | None]] = {}
        self._closes: deque[bytes] = deque()
        """Frames that say which calls are over; each waits for a connection."""
        self._has_drops = False
        """Some of those calls may still run: worth a connection of its own."""
        self._reading = threading.Lock()
        self._followers: deque[Pending[Any]] = deque()
        self._lead_count = 0
        self._need_count = 0
        self._turn = threading.Event()
        self._state_lock = threading.Lock()
        self._keeper: threading.Thread | None = None
        self._ready: Pending[Welcome] | None = None
        self._is_closed = False

    # Using it

    async def connect(self) -> Welcome:
        """Wait until the server has greeted us.

        Raises:
            ConnectionError: it cannot be reached or started.
            VersionError: it is of another version, and busy.
        """
        if self._transport is not None and self.welcome is not None:
            return self.welcome
        ready = self._ensure_connecting()
        if ready is not None:
            return await ready
        assert self.welcome is not None
        return self.welcome

    async def request(
        self, method: str, record: Any, reply: type[R], body: Any = b"", *, is_repeatable: bool = True
    ) -> R:
        """Ask, and wait for the answer, over reconnects if need be.

        Raises:
            Error: what the server answered, as an exception of `squall.exception`.
        """
        return (await self.request_with_body(method, record, reply, body, is_repeatable=is_repeatable))[0]

    async def request_with_body(
        self, method: str, record: Any, reply: type[R], body: Any = b"", *, is_repeatable: bool = True
    ) -> tuple[R, bytes]:
        """As `request`, with the answer's body."""
        params, reply_body = await self.ask(method, record, body, is_repeatable=is_repeatable)
        return self.codec.record(reply, params), reply_body

    def ask(self, method: str, record: Any, body: Any = b"", *, is_repeatable: bool = True) -> Pending[Any]:
        """Ask without waiting; the pending becomes the undecoded answer and its body."""
        number = self._take_number()
        pending: Pending[tuple[Any, bytes]] = Pending(self)
        header = self.codec.encode(wire.REQUEST, number, method, record)
        self._requests[number] = _Request(pending, header, body, is_repeatable)
        self._ensure_connecting()
        self._write_header(header, body)
        return pending

    def stream(self, method: str, record: Any) -> ClientStream:
        """Ask for a stream of items. The connection must be there: `await connect()` first."""
        number = self._take_number()
        stream = ClientStream(self, number)
        self._streams[number] = stream
        if not self._write_header(self.codec.encode(wire.REQUEST, number, method, record), b""):
            self.forget_stream(number)
            stream.end(ConnectionLost(f"{method}: the connection to the server is gone"))
        return stream

    def forget_stream(self, number: int) -> None:
        """Its items are no longer wanted."""
        self._streams.pop(number, None)

    def open_call(self, call: OpenCall, frames: bytes) -> None:
        """Begin a call, or send more of it."""
        self._calls[call.call_id] = call
        self._ensure_connecting()
        (self._write_with_closes if self._closes else self._write)(frames)

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
        transport = self._transport
        closes = self._take_closes()
        is_out = False
        try:
            is_out = self._write(closes + frames)
        finally:
            if is_out:
                self._has_drops = False
            elif closes:
                self._closes.appendleft(closes)
                self._turn.set()
        if not is_out and self._transport not in (None, transport):
            self._write(self._take_closes())  # it came while we gave them back

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
        self._write(frames)

    def keep_app(self, app: AppCreate, functions: FunctionCreate | None) -> None:
        """Take this app up again after each reconnect."""
        self._apps[app.app_id] = (app, functions)
        self._turn.set()  # from now on the keeper looks at an idle connection

    def drop_app(self, app_id: str) -> None:
        """Undo `keep_app`."""
        self._apps.pop(app_id, None)

    def write_frame(self, kind: str, number: int, method: str, record: Any, body: bytes = b"", count: int = 0) -> None:
        """Send one frame if there is a connection."""
        self._write_header(self.codec.encode(kind, number, method, record, count), body)

    def close(self) -> None:
        """End the conversation; those who wait are told."""
        self._is_closed = True
        self._write(self._take_closes())
        self._lose("the client was closed")
        self._fail_all(exception.ClientClosed("the client was closed"))
        self._turn.set()
        keeper = self._keeper
        if keeper is not None and keeper is not threading.current_thread():
            keeper.join(5.0)

    def forget(self) -> None:
        """In a forked child: let go of what belongs to the parent."""
        self._is_closed = True
        transport, self._transport = self._transport, None
        if isinstance(transport, UnixTransport):
            transport.forget()

    # Reading: the thread that waits does it

    def wait(self, pending: Pending[Any], deadline: float | None = None) -> bool:
        """See `Reader`."""
        try:
            while not pending.is_done:
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                if self._transport is not None and self._reading.acquire(False):
                    self._lead_or_release(pending, deadline)
                else:
                    self._follow(pending, deadline)
            return True
        finally:
            # Whether done, late or interrupted: if it was our turn to read on, it is another's now.
            if self._followers and not self._reading.locked():
                self._nudge_follower()

    def _lead_or_release(self, pending: Pending[Any], deadline: float | None) -> None:
        try:
            self._lead(pending, deadline)
        finally:
            self._reading.release()
            if self._followers:
                self._nudge_follower()

    def _follow(self, pending: Pending[Any], deadline: float | None) -> None:
        """Sleep until it is done, or nobody reads."""
        try:
            pending.prepare()
            self._followers.append(pending)
            # Looked at again after we can be found: whoever stops reading later will wake us.
            if self._transport is None or self._reading.locked():
                pending.sleep(deadline)
        finally:
            # After Ctrl-C, too: the one nudge there is would go to somebody who has left.
            try:
                self._followers.remove(pending)
            except ValueError:
                pass  # we were woken to read on

    def poll(self) -> None:
        """Take in what has arrived already, if nobody else is reading."""
        if self._transport is not None and self._reading.acquire(False):
            try:
                self._read_once(0.0)
            finally:
                self._reading.release()
                if self._followers:
                    self._nudge_follower()

    def need(self) -> None:
        """See `Reader`."""
        with self._state_lock:
            self._need_count += 1
        self._ensure_connecting()
        self._turn.set()

    def unneed(self) -> None:
        """See `Reader`."""
        with self._state_lock:
            self._need_count -= 1

    def _nudge_follower(self) -> None:
        try:
            self._followers.popleft().nudge()
        except IndexError:
            return  # it gave up meanwhile

    def _lead(self, pending: Pending[Any], deadline: float | None) -> None:
        self._lead_count += 1
        started = time.monotonic() if self._need_count else 0.0
        while not pending.is_done:
            if not self._read_once(deadline):
                return
        if self._need_count and time.monotonic() - started > LONG_LEAD_S:
            self._turn.set()

    def _read_once(self, deadline: float | None) -> bool:
        """Read and hand out one piece; False when nothing came before the deadline, or the connection is gone."""
        transport = self._transport
        if transport is None:
            return False
        try:
            data = transport.read(deadline)
            if data is None:
                return False
            if not data:
                self._lose("the server closed the connection", transport)
                return False
            self._received(data)
        except FrameError as error:
            self._lose(str(error), transport)
            return False
        except BaseException:
            # Ctrl-C between reading bytes and handing them out loses them: only a new connection is whole again.
            self._lose("reading was interrupted", transport)
            raise
        return True

    def _received(self, data: bytes) -> None:
        calls, load = self._calls, self._load
        for header, body in self._decoder.feed(data):
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

    # Writing

    def _write_header(self, header: bytes, body: Any) -> bool:
        prefix = len(header).to_bytes(4, "little") + len(body).to_bytes(4, "little")
        return self._write(prefix + header, body)

    def _write(self, data: bytes, body: Any = b"") -> bool:
        transport = self._transport
        if transport is None:
            return False  # what matters is kept, and sent when there is a connection
        try:
            transport.write(data, body)
        except OSError as error:
            self._lose(str(error), transport)
            return False
        except BaseException:
            self._lose("writing was interrupted", transport)  # half a frame may be out
            raise
        return True

    def _take_number(self) -> int:
        with self._state_lock:
            number = self._next_number
            self._next_number = number + 1
        return number

    # Connecting: the keeper does it

    def _ensure_connecting(self) -> Pending[Welcome] | None:
        """Have the keeper connect if nothing is connected; what becomes the greeting, or None if all is well."""
        if self._transport is not None:
            return None
        with self._state_lock:
            if self._is_closed:
                raise exception.ClientClosed("the client was closed")
            if self._ready is None or self._ready.is_done:
                self._ready = Pending()
            ready = self._ready
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="squall-client", daemon=True)
                self._keeper.start()
        self._turn.set()
        return ready

    def _keep(self) -> None:
        delay = TAKE_OVER_S
        seen = -1
        while not self._is_closed:
            if self._transport is None:
                if self._is_wanted():
                    self._connect_or_fail()
                else:
                    self._turn.wait()
                    self._turn.clear()
            elif not self._need_count:
                # An app's lease is lost with its server: that must be seen while the program is busy elsewhere.
                if not self._turn.wait(LOOK_S if self._apps else None):
                    self.poll()
                self._turn.clear()
            elif seen == self._lead_count and self._reading.acquire(False):
                delay = TAKE_OVER_S
                self._read_for_others()
            else:
                # Somebody reads, or did a moment ago: between two blocking calls we keep out of the way.
                delay = TAKE_OVER_S if seen != self._lead_count else min(0.05, delay * 2)
                seen = self._lead_count
                self._turn.wait(delay)
                self._turn.clear()

    def _is_wanted(self) -> bool:
        ready = self._ready
        is_asked = ready is not None and not ready.is_done
        return bool(is_asked or self._requests or self._calls or self._apps or self._need_count or self._has_drops)

    def _read_for_others(self) -> None:
        try:
            while self._need_count and not self._followers and not self._is_closed:
                if not self._read_once(None):
                    break
        finally:
            self._reading.release()
            if self._followers:
                self._lead_count += 1
                self._nudge_follower()

    def _connect_or_fail(self) -> None:
        # A server elsewhere that never answered is more likely misspelt than restarting.
        is_first = self.welcome is None and bool(self.endpoint.url)
        deadline = time.monotonic() + (FIRST_CONNECT_S if is_first else CONNECT_S)
        attempt = 0
        while not self._is_closed:
            try:
                self._connect_once()
            except (OSError, _NotYet) as error:
                if time.monotonic() > deadline:
                    where = self.endpoint.url or self.endpoint.socket_path
                    self._give_up(exception.ConnectionError(f"cannot reach the Squall server at {where}: {error}"))
                    return
                time.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
                attempt += 1
            except exception.Error as error:
                self._give_up(error)
                return
            except Exception as error:  # noqa: BLE001 - top of the thread: those who wait must hear of it
                self._give_up(exception.ConnectionError(f"cannot connect to the Squall server: {error!r}"))
                return
            else:
                return

    def _connect_once(self) -> None:
        transport = self._open_transport()
        try:
            decoder = FrameDecoder()
            self._introduce(transport)
            welcome = self._greet(transport, decoder)
            for app, functions in list(self._apps.values()):
                self._exchange(transport, decoder, "AppCreate", app, AppCreated)
                if functions is not None:
                    self._exchange(transport, decoder, "FunctionCreate", functions, FunctionCreated)
        except BaseException:
            transport.close()
            raise
        self._adopt(transport, decoder, welcome)

    def _open_transport(self) -> Transport:
        endpoint = self.endpoint
        if endpoint.url:
            from squall.sdk._websocket_transport import WebSocketTransport  # cold start: only for a server elsewhere

            return WebSocketTransport(endpoint.url, endpoint.token)
        try:
            return UnixTransport(endpoint.socket_path)
        except PermissionError as error:
            raise exception.PermissionDeniedError(
                f"may not connect to {endpoint.socket_path}: {error.strerror}; use sudo, or join the group 'squall' "
                "(which is as good as root)"
            ) from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if not endpoint.data_dir:
                raise
            _notice("starting the local server")
            _local_server.start(endpoint.data_dir)
            raise _NotYet(str(error)) from error

    def _introduce(self, transport: Transport) -> None:
        endpoint = self.endpoint
        if not endpoint.container_token:
            return
        hello = GuestHello(
            endpoint.container_token,
            ROLE_CLIENT,
            endpoint.container_id,
            VERSION,
            PROTOCOL_VERSION,
            client_id=self.client_id,
            pid=os.getpid(),
            is_reconnect=self.welcome is not None,
        )
        header = self.codec.encode(wire.EVENT, 0, "GuestHello", hello)
        transport.write(len(header).to_bytes(4, "little") + b"\0\0\0\0" + header)

    def _greet(self, transport: Transport, decoder: FrameDecoder) -> Welcome:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        hello = Hello(VERSION, PROTOCOL_VERSION, self.client_id, version, self.endpoint.token)
        welcome = self._exchange(transport, decoder, "Hello", hello, Welcome)
        if welcome.version == VERSION:
            return welcome
        if self.endpoint.data_dir and welcome.is_idle:
            _notice(f"replacing the idle server of version {welcome.version}")
            self._exchange(transport, decoder, "ServerStop", ServerStop(), dict)
            raise _NotYet(f"the server of version {welcome.version} is being replaced")
        if abs(welcome.protocol_version - PROTOCOL_VERSION) > 1 or self.endpoint.data_dir:
            raise exception.VersionError(
                f"this is Squall {VERSION} and the server is {welcome.version}, which is busy; let its apps end, or "
                "stop it by `squall server stop --force`, and the next command starts it in this version"
                if self.endpoint.data_dir
                else f"this is Squall {VERSION} and the server is {welcome.version}; install that version here"
            )
        return welcome

    def _exchange(self, transport: Transport, decoder: FrameDecoder, method: str, record: Any, reply: type[R]) -> R:
        """Ask and read until the answer is there: before the connection is everybody's."""
        number = self._take_number()
        header = self.codec.encode(wire.REQUEST, number, method, record)
        transport.write(len(header).to_bytes(4, "little") + b"\0\0\0\0" + header)
        deadline = time.monotonic() + 30.0
        while True:
            data = transport.read(deadline)
            if not data:
                raise _NotYet(
                    f"{method}: " + ("no answer within 30 s" if data is None else "the connection was closed")
                )
            for frame in decoder.feed(data):
                envelope = self.codec.decode(frame.header)
                if envelope.number != number:
                    continue
                if envelope.kind == wire.ERROR:
                    raise translate(self.codec.record(ErrorRecord, envelope.params).to_error())
                if reply is dict:
                    return reply()
                return self.codec.record(reply, envelope.params)

    def _adopt(self, transport: Transport, decoder: FrameDecoder, welcome: Welcome) -> None:
        # The connection becomes visible first and what waits is sent then: a call that begins in between is sent
        # twice, which is harmless; the other way round it would not be sent at all.
        transport.reader = self
        with self._reading:
            self._decoder = decoder
            self.welcome = welcome
            self._transport = transport
        for request in list(self._requests.values()):
            if request.is_repeatable:
                self._write_header(request.header, request.body)
        for call in list(self._calls.values()):
            self._write(call.frames())
            if call.call_id not in self._calls:
                self._closes.append(_calls.call_close(call.call_id))  # given up while we sent it
        # The server keeps calls for a client that comes back: of those that ended meanwhile it has not heard.
        self._write_with_closes(b"")
        ready = self._ready
        if ready is not None:
            ready.set(welcome)
        for pending in list(self._followers):
            pending.nudge()
        self._turn.set()

    def _lose(self, reason: str, transport: Transport | None = None) -> None:
        with self._state_lock:
            if self._transport is None or (transport is not None and transport is not self._transport):
                return
            lost, self._transport = self._transport, None
        lost.close()
        error = ConnectionLost(f"the connection to the server broke: {reason}")
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.end(error)
        for number, request in list(self._requests.items()):
            if not request.is_repeatable:
                self._requests.pop(number, None)
                request.pending.fail(error)
        self._turn.set()

    def _give_up(self, error: BaseException) -> None:
        ready = self._ready
        self._fail_all(error)
        if ready is not None:
            ready.fail(error)

    def _fail_all(self, error: BaseException) -> None:
        requests, self._requests = self._requests, {}
        for request in requests.values():
            request.pending.fail(error)
        for call in list(self._calls.values()):
            call.fail(error)
        self._calls.clear()
        self._apps.clear()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.end(error)


class _NotYet(Exception):
    """Try to connect again."""


_BY_CODE: dict[str, type[exception.Error]] = {
    "invalid": exception.InvalidError,
    "not_found": exception.NotFoundError,
    "conflict": exception.ConflictError,
    "unauthenticated": exception.AuthError,
    "forbidden": exception.PermissionDeniedError,
    "exhausted": exception.ResourceExhaustedError,
    "timed_out": exception.ServiceError,
    "unavailable": exception.ServiceError,
    "unsupported": exception.UnimplementedError,
    "internal": exception.InternalError,
}


def translate(error: PlatformError) -> exception.Error:
    """The exception of `squall.exception` that an error of the wire is raised as."""
    return _BY_CODE.get(error.code, exception.ServiceError)(error.message)


def _silent(text: str) -> None:
    """Nobody wants to know."""


_notice: Callable[[str], None] = _silent


def set_notice(tell: Callable[[str], None] | None) -> None:
    """Who is told, in a few words, what takes long: that a server is started or replaced."""
    global _notice
    _notice = tell or _silent


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
