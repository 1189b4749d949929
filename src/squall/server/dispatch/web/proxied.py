"""Requests for what listens at a port in a container: carried out here, in the place of its guest.

A connection that was refused has brought nothing: another container is given the request. One that was kept open from
an earlier request, and is closed when the next comes, is made anew. Anything else is told as it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from squall.protocol.call import CANCELLED, FAILED, SUCCEEDED, Failure, OutputBatch, encode_failure
from squall.protocol.errors import PlatformError
from squall.protocol.task_set import TaskSet
from squall.protocol.web import ACCEPT, BYTES, CLOSE, DATA, MESSAGE_BYTES_MAX, START, TEXT, WINDOW_BYTES, WebRequest
from squall.server.dispatch.web.exchange import Exchange
from squall.server.dispatch.web.http_client import BadResponse, HttpConnection, Part, head_of
from squall.server.model.port import PortStream
from squall.server.model.web import Out

if TYPE_CHECKING:
    from squall.server.dispatch.fleet.container import Container
    from squall.server.dispatch.function.input import Input

KEPT_MAX = 64
"""Connections of one container that are kept for requests to come."""
KEPT_S = 4.0
"""For how long: most programs keep theirs for five seconds, or more."""
REFUSALS_MAX = 3
"""Containers in which nothing listened; after them the request fails."""
CLOSE_S = 5.0
"""For how long a program may take to answer that its WebSocket was closed."""
_GONE = frozenset({1005, 1006, 1015})
"""Codes that say how a WebSocket ended and cannot be sent."""

OpenPort = Callable[["Container", int], Awaitable[PortStream]]


class Proxies:
    """Carries out the inputs of calls whose function listens at a port (`Call.proxy`)."""

    def __init__(self, open_port: OpenPort, tasks: TaskSet) -> None:
        self.open_port = open_port
        self._tasks = tasks
        self._kept: dict[Container, list[tuple[HttpConnection, asyncio.TimerHandle]]] = {}
        self._proxied: dict[Input, Proxied] = {}
        self._is_closed = False

    def add(self, one: Input, proxied: Proxied) -> None:
        """A request waits for a container."""
        self._proxied[one] = proxied

    def forget(self, one: Input) -> None:
        """A request has ended."""
        proxied = self._proxied.pop(one, None)
        if proxied is not None and proxied.carrying is not None:
            proxied.carrying.cancel()

    def handed_out(self, container: Container, inputs: list[Input]) -> None:
        """The container is given these."""
        for one in inputs:
            proxied = self._proxied.get(one)
            if proxied is not None:
                proxied.carrying = self._tasks.start(self._carry(container, one, proxied))

    def stop(self, inputs: list[Input]) -> None:
        """These are not to go on: they were cancelled, or ran out of time."""
        for one in inputs:
            proxied = self._proxied.get(one)
            if proxied is not None and proxied.carrying is not None:
                proxied.carrying.cancel()

    async def _carry(self, container: Container, one: Input, proxied: Proxied) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        status, value = SUCCEEDED, b""
        try:
            await proxied.carry(container, self)
        except Refused as error:
            if self._is_given_to_another(container, one, error):
                return
            status, value = _failed("unavailable", str(error), container)
        except (PlatformError, BadResponse) as error:
            status, value = _failed("lost", str(error), container)
        except asyncio.CancelledError:
            if one.container is not container:
                raise  # it has ended already
            status, value = CANCELLED, encode_failure(Failure("cancelled", "the request was cancelled"))
        finally:
            proxied.carrying = None
        if one.container is not container:
            return
        run_us = int((loop.time() - began) * 1e6)
        batch = OutputBatch(
            one.call.call_id, (one.index,), (status,), (len(value),), (one.attempt,), (max(run_us, 1),)
        )  # fmt: skip
        container.dispatcher.put_outputs(container, batch, value)

    def _is_given_to_another(self, container: Container, one: Input, error: Refused) -> bool:
        """Nothing listens in the container: it is ended, and the request waits for another one."""
        if one.container is not container:
            return True
        trouble = one.with_trouble()
        trouble.losses += 1
        dispatcher = container.dispatcher
        is_again = trouble.losses < REFUSALS_MAX and not trouble.cut_short_by
        if is_again:
            dispatcher.returns.to_queue([one])
        container.is_sacrificed = True
        dispatcher.fleet.kill(container, str(error))
        if is_again:
            dispatcher.schedule()
            dispatcher.fleet.changed(dispatcher)
        return is_again

    # Connections

    async def connection(self, container: Container, port: int, *, is_new: bool) -> tuple[HttpConnection, bool]:
        """A connection, and whether it was used before, which a new one was not.

        Raises:
            Refused: nothing listens there.
            PlatformError: the container is gone.
        """
        kept = self._kept.get(container)
        if kept and not is_new:
            connection, timer = kept.pop()
            timer.cancel()
            return connection, True
        return HttpConnection(await self.stream(container, port)), False

    async def stream(self, container: Container, port: int) -> PortStream:
        """A new one, as bytes. Raises as `connection`."""
        try:
            return await self.open_port(container, port)
        except PlatformError as error:
            if error.code == "unavailable" and not container.is_stopped:
                raise Refused(error.message) from error
            raise

    def keep(self, container: Container, connection: HttpConnection) -> None:
        """A connection may be used again."""
        if container.is_stopped or self._is_closed or len(self._kept.get(container, ())) >= KEPT_MAX:
            connection.stream.close()
            return
        if container not in self._kept:
            self._kept[container] = []
            container.on_stopped.append(lambda: self._drop_all(container))
        kept = self._kept[container]
        timer = asyncio.get_running_loop().call_later(KEPT_S, self._drop, container, connection)
        kept.append((connection, timer))

    def _drop(self, container: Container, connection: HttpConnection) -> None:
        kept = self._kept.get(container, [])
        kept[:] = [pair for pair in kept if pair[0] is not connection]
        connection.stream.close()

    def _drop_all(self, container: Container) -> None:
        for connection, timer in self._kept.pop(container, ()):
            timer.cancel()
            connection.stream.close()

    def close(self) -> None:
        """Let go of all connections."""
        self._is_closed = True
        for container in list(self._kept):
            self._drop_all(container)


def _failed(kind: str, message: str, container: Container) -> tuple[int, bytes]:
    return FAILED, encode_failure(Failure(kind, message, container_id=container.container_id))


class Refused(Exception):
    """Nothing listens at the port."""


class Proxied(Exchange):
    """A request that goes to a port."""

    def __init__(self, call_id: str, index: int, request: WebRequest, body: bytes, port: int) -> None:
        super().__init__(call_id, index)
        self._request = request
        self._body = body
        self._port = port
        self._connected = asyncio.Event()
        """More of the request may be sent, or never will be."""
        self._has_room = asyncio.Event()
        self._send: Callable[[bytes, bool, str], Awaitable[None]] | None = None
        self._socket: _Socket | None = None
        self.carrying: asyncio.Future[None] | None = None

    # Carried out

    async def carry(self, container: Container, proxies: Proxies) -> None:
        """Send the request, and take in what comes of it.

        Raises:
            Refused: nothing listens there.
            BadResponse: what listens there does not answer as it should.
            PlatformError: the way to the container is gone.
        """
        try:
            if self._request.type == "websocket":
                await self._carry_socket(container, proxies)
            else:
                await self._carry_http(container, proxies)
        finally:
            self._send = None
            self._connected.set()

    async def _carry_http(self, container: Container, proxies: Proxies) -> None:
        connection, is_used = await proxies.connection(container, self._port, is_new=self._request.has_more)
        is_whole = False
        try:
            try:
                part = await self._first(connection)
            except (PlatformError, BadResponse):
                if not is_used or connection.has_read:
                    raise
                # It was closed while nobody looked.
                connection.stream.close()
                connection, _ = await proxies.connection(container, self._port, is_new=True)
                part = await self._first(connection)
            while part is not None:
                self._passed(Out(DATA if not part.status else START, part.data, part.status, part.headers))
                await self._room()
                part = await connection.next()
            is_whole = self._send is None
        finally:
            if is_whole and connection.is_reusable:
                proxies.keep(container, connection)
            else:
                connection.stream.close()

    async def _first(self, connection: HttpConnection) -> Part | None:
        await connection.begin(self._request, self._body)
        if self._request.has_more:

            async def send(data: bytes, has_more: bool, kind: str) -> None:
                await connection.give(data, has_more=has_more)
                if not has_more:
                    self._send = None

            self._send = send
            self._connected.set()
        return await connection.next()

    async def _carry_socket(self, container: Container, proxies: Proxies) -> None:
        stream = await proxies.stream(container, self._port)
        self._socket = socket = _Socket(stream, self._request)
        try:
            await socket.begin()
            while (out := await socket.next()) is not None:
                if out.kind == ACCEPT:
                    self._send = socket.send
                    self._connected.set()
                self._passed(out)
                await self._room()
        finally:
            stream.close()

    def _passed(self, out: Out) -> None:
        self._is_begun = True
        if not self._is_left:
            self._untaken += len(out.data)
            self._put(out)

    async def _room(self) -> None:
        while self._untaken >= WINDOW_BYTES and not self._is_left:
            self._has_room.clear()
            await self._has_room.wait()

    # The ingress's side

    def taken(self, count: int) -> None:
        """See `model.web.Exchange`."""
        self._untaken -= count
        self._has_room.set()

    async def give(self, data: bytes, *, has_more: bool, kind: str = DATA) -> bool:
        """See `model.web.Exchange`."""
        await self._connected.wait()
        if self._send is None:
            return False
        try:
            await self._send(data, has_more, kind)
        except PlatformError:
            return False  # whoever reads the response is told
        return True

    def leave(self, code: int = 1006, reason: str = "") -> None:
        """See `model.web.Exchange`."""
        super().leave(code, reason)
        self._has_room.set()
        if self.carrying is None:
            return
        if self._socket is None or not self._socket.close(code, reason):
            self.carrying.cancel()
        else:
            # The program may answer that, but nobody waits for long.
            asyncio.get_running_loop().call_later(CLOSE_S, self.carrying.cancel)

    def _tell(self, method: str, record: object, body: bytes = b"") -> None:
        """The guest knows nothing of it."""


class _Socket:
    """The client's side of a WebSocket to a program."""

    def __init__(self, stream: PortStream, request: WebRequest) -> None:
        self._stream = stream
        path = head_of(request).split(b" ", 2)[1].decode("latin-1")
        self._protocol = ClientProtocol(
            parse_uri(f"ws://localhost{path}"),
            subprotocols=[Subprotocol(one) for one in request.subprotocols] or None,
            max_size=MESSAGE_BYTES_MAX,
        )
        self._headers = request.headers
        self._come: deque[Out] = deque()
        self._pieces: list[bytes] = []
        self._kind = BYTES
        self._writing = asyncio.Lock()
        self._is_over = False

    async def begin(self) -> None:
        """Ask for the WebSocket."""
        request = self._protocol.connect()
        for name, value in zip(self._headers[::2], self._headers[1::2], strict=True):
            if name == "host":
                request.headers["Host"] = value
            elif not name.startswith("sec-websocket-") and name not in ("connection", "upgrade"):
                request.headers[name] = value
        self._protocol.send_request(request)
        await self._flush()

    async def next(self) -> Out | None:
        """What comes next; None after the end.

        Raises:
            BadResponse: it is no WebSocket.
            PlatformError: see `PortStream`.
        """
        while not self._come:
            if self._is_over:
                return None
            data = await self._stream.read()
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
                self._is_over = True
            for event in self._protocol.events_received():
                self._received(event)
            self._look()
            await self._flush()
        return self._come.popleft()

    def _received(self, event: object) -> None:
        if isinstance(event, Response):
            if self._protocol.state is State.OPEN:
                self._come.append(Out(ACCEPT, b"", headers=_flat(event), subprotocol=self._protocol.subprotocol or ""))
            else:
                self._come.append(Out(START, bytes(event.body or b""), event.status_code, _flat(event)))
                self._is_over = True
        elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if event.opcode is not Opcode.CONT:
                self._kind = TEXT if event.opcode is Opcode.TEXT else BYTES
            self._pieces.append(bytes(event.data))
            if event.fin:
                self._come.append(Out(self._kind, b"".join(self._pieces)))
                self._pieces = []

    def _look(self) -> None:
        if self._protocol.handshake_exc is not None and not self._come:
            raise BadResponse(f"it is no WebSocket: {self._protocol.handshake_exc}")
        if self._protocol.close_rcvd is not None and not self._is_over:
            code = self._protocol.close_rcvd.code
            self._come.append(Out(CLOSE, b"", code=_sendable(code), reason=self._protocol.close_rcvd.reason))
            self._is_over = True
        elif self._protocol.parser_exc is not None or (self._is_over and self._protocol.close_rcvd is None):
            if not self._come:
                raise BadResponse("the program ended the WebSocket without closing it")
            self._is_over = True

    async def send(self, data: bytes, has_more: bool, kind: str) -> None:
        """A message of the client."""
        if self._protocol.state is not State.OPEN:
            return
        if kind == TEXT:
            self._protocol.send_text(data)
        else:
            self._protocol.send_binary(data)
        await self._flush()

    def close(self, code: int, reason: str) -> bool:
        """The client has closed it: tell the program; False when it has not come so far."""
        if self._protocol.state is not State.OPEN:
            return False
        self._protocol.send_close(_sendable(code), reason)
        self._closing = asyncio.ensure_future(self._flush())
        return True

    async def _flush(self) -> None:
        # One after the other: what is taken out first is written first.
        async with self._writing:
            data = b"".join(self._protocol.data_to_send())
            if data:
                await self._stream.write(data)


def _sendable(code: int) -> int:
    return 1000 if code == 1005 else 1011 if code in _GONE else code


def _flat(response: Response) -> tuple[str, ...]:
    return tuple(
        text
        for name, value in response.headers.raw_items()
        if not name.lower().startswith("sec-websocket-")
        for text in (name.lower(), value)
    )
