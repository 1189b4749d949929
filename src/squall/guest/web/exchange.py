"""One request in the guest: what ASGI calls its scope, `receive` and `send`.

Nothing of a body is asked for before the application wants it, and no more of a response leaves than a window: what an
application does not take waits in its client.

    receive()   the bytes that came with the head; then what `WebIn` brings, each time with credit for the next
    send()      a response that is whole at once is kept for the output; any other leaves as it comes
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from squall.protocol.web import (
    ACCEPT,
    BYTES,
    CHUNK_BYTES_MAX,
    CLOSE,
    DATA,
    GONE,
    REQUEST_FIELDS,
    START,
    TEXT,
    WINDOW_BYTES,
    WebCredit,
    WebIn,
    WebOut,
    encode_response,
    split_request,
)

if TYPE_CHECKING:
    from squall.guest.inbox import Input
    from squall.guest.link import Link

Scope = dict[str, Any]
Event = dict[str, Any]

_ASGI = {"version": "3.0", "spec_version": "2.3"}
_LOST = 1006
"""Why a WebSocket ended that nobody has closed."""


class Misused(Exception):
    """The application does what ASGI does not allow."""


class Beginnings:
    """Responses that have begun in this turn of the loop: one that is whole when it ends is sent in one piece, for no
    client waits for its head alone."""

    def __init__(self) -> None:
        self._begun: list[Exchange] = []

    def add(self, exchange: Exchange) -> None:
        """Its status and headers are known."""
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._send)
        self._begun.append(exchange)

    def _send(self) -> None:
        begun, self._begun = self._begun, []
        for exchange in begun:
            exchange.send_start()


class Exchange:
    """A request that an application is about to answer."""

    _has_event: asyncio.Event | None = None
    """Of who waits for more."""
    _taken = 0
    """Bytes that the application has received and that the server has not been told of."""
    _is_gone = False
    _room = WINDOW_BYTES
    """How much more may be sent."""
    _has_room: asyncio.Event | None = None
    """Of who waits to send."""
    _status = 0
    _headers: Any = ()
    _is_started = False
    """The client has been told how its response begins."""
    _is_ended = False
    """It has been told, or will be by the output, how it ends."""
    _is_cut = False
    """What was sent may not have come: nothing makes it whole again."""
    _value = b""
    """Of the output: the response, or its end."""

    def __init__(self, one: Input, link: Link, state: dict[str, Any], beginnings: Beginnings) -> None:
        """`state` is the one of the application's lifespan.

        Raises:
            ValueError: the input is no request.
        """
        fields, body = split_request(one.value)
        has_more = bool(fields[12])
        self._one = one
        self._link = link
        self._beginnings = beginnings
        self.scope = scope_of(fields, state)
        self._is_socket = fields[0] != b"http"
        first: Event = {"type": "websocket.connect"}
        if not self._is_socket:
            first = {"type": "http.request", "body": body, "more_body": has_more}
        self._events: deque[Event] = deque((first,))
        """What has come and was not received."""
        self._is_asked = self._is_socket
        """The server knows that more of the request is wanted."""
        self._is_whole = not has_more
        """All of the body has come, or was asked for and never will."""

    def outcome(self) -> bytes:
        """The application has returned: the value of its output.

        Raises:
            Misused: it has not done all that it had to.
        """
        if not self._is_ended and not self._is_gone:
            raise Misused("the application returned before its response was whole")
        return self._value

    # From the server

    def came(self, record: WebIn, body: bytes) -> None:
        """More of the request."""
        if record.kind == GONE:
            self.gone(record.code, record.reason)
        elif self._is_gone:
            return
        elif record.kind == DATA:
            self._is_whole = not record.has_more
            self._put({"type": "http.request", "body": body, "more_body": record.has_more})
        elif record.kind == TEXT:
            self._put({"type": "websocket.receive", "text": body.decode("utf-8", "replace")})
        elif record.kind == BYTES:
            self._put({"type": "websocket.receive", "bytes": body})

    def credited(self, record: WebCredit) -> None:
        """The server has taken so much of the response."""
        self._room += record.byte_count
        if self._room > 0 and self._has_room is not None:
            self._has_room.set()

    def gone(self, code: int = _LOST, reason: str = "", *, is_cut: bool = False) -> None:
        """Nobody waits for the response any more; `is_cut` where that is known from the connection's end."""
        if is_cut and (self._is_started or not self._is_whole):
            self._is_cut = True
        if self._is_gone:
            return
        self._is_gone = True
        if self._has_room is not None:
            self._has_room.set()
        if self._is_socket:
            self._put({"type": "websocket.disconnect", "code": code, "reason": reason})
        else:
            self._put({"type": "http.disconnect"})

    def _put(self, event: Event) -> None:
        self._events.append(event)
        if self._has_event is not None:
            self._has_event.set()

    # The application's side

    async def receive(self) -> Event:
        """See ASGI."""
        if not self._events and self._is_ended and not self._is_socket:
            return {"type": "http.disconnect"}
        while not self._events:
            self._has_event = self._has_event or asyncio.Event()
            self._has_event.clear()
            await self._has_event.wait()
        event = self._events.popleft()
        if event["type"] == "http.disconnect" or event["type"] == "websocket.disconnect":
            self._events.append(event)  # whoever asks again is told again
        elif event["type"] == "websocket.receive":
            self._credit(len(event.get("bytes") or event.get("text", "").encode()))
        elif event.get("more_body"):
            self._credit(len(event["body"]))
        return event

    def _credit(self, byte_count: int) -> None:
        if not self._is_asked:
            # There was no credit before this, and so nothing on its way: whoever never asks is sent nothing.
            self._is_asked, byte_count = True, WINDOW_BYTES
        self._taken += byte_count
        if self._taken >= WINDOW_BYTES // 4 and not self._is_gone:
            self._tell("WebCredit", WebCredit(self._one.call_id, self._one.index, self._taken))
            self._taken = 0

    async def send(self, event: Event) -> None:
        """See ASGI.

        Raises:
            Misused: not now, or not at all.
        """
        kind = event["type"]
        if kind == "http.response.start" or kind == "websocket.http.response.start":
            self._start(event)
        elif kind == "http.response.body" or kind == "websocket.http.response.body":
            data, has_more = event.get("body", b""), event.get("more_body", False)
            if has_more or self._is_started or self._is_ended or not self._status or len(data) > CHUNK_BYTES_MAX:
                await self._body(bytes(data), has_more=has_more)
            else:
                self._end(self._status, lines_of(self._headers), bytes(data))
        elif kind == "websocket.accept" and self._is_socket and not self._is_started:
            self._is_started = True
            headers = _headers(event.get("headers", ()))
            self._out(ACCEPT, headers=headers, subprotocol=event.get("subprotocol") or "")
        elif kind == "websocket.send" and self._is_socket and self._is_started and not self._is_ended:
            await self._message(event)
        elif kind == "websocket.close" and self._is_socket and not self._is_ended:
            self._is_ended = self._is_started = True
            self._out(CLOSE, code=event.get("code") or 1000, reason=event.get("reason") or "")
        elif self._is_gone and self._is_socket:
            return  # it was closed by its client, which the application has yet to see
        else:
            raise Misused(f"the application sent {kind!r} where ASGI does not allow it")

    def _start(self, event: Event) -> None:
        if self._status or self._is_started:
            raise Misused("the application began a second response")
        self._status, self._headers = int(event["status"]), event.get("headers", ())
        self._beginnings.add(self)

    async def _body(self, data: bytes, *, has_more: bool) -> None:
        if not self._status:
            raise Misused("the application sent a body before it began a response")
        if self._is_ended:
            raise Misused("the application sent more after the end of its response")
        for place in range(0, max(len(data), 1), CHUNK_BYTES_MAX):
            chunk = data[place : place + CHUNK_BYTES_MAX]
            is_last = not has_more and place + CHUNK_BYTES_MAX >= len(data)
            if is_last and self._is_started:
                self._end(0, b"", chunk)
                return
            await self._wait_room()
            if self._is_gone:
                self._is_ended = not has_more
                return
            self._room -= len(chunk)
            if not self._is_started:
                self.send_start(chunk)
            elif chunk:
                self._out(DATA, chunk)

    def send_start(self, chunk: bytes = b"") -> None:
        """Tell the client how its response begins, if that is still to be told."""
        if self._is_started or self._is_ended or self._is_gone:
            return
        self._is_started = True
        self._out(START, chunk, status=self._status, headers=_headers(self._headers))

    def _end(self, status: int, lines: bytes, data: bytes) -> None:
        self._is_ended = True
        self._value = b"" if self._is_cut else encode_response(status, lines, data)

    async def _message(self, event: Event) -> None:
        await self._wait_room()
        if self._is_gone:
            return
        text = event.get("text")
        data = event.get("bytes") or b"" if text is None else text.encode()
        self._room -= len(data)
        self._out(BYTES if text is None else TEXT, data)

    async def _wait_room(self) -> None:
        while self._room <= 0 and not self._is_gone:
            self._has_room = self._has_room or asyncio.Event()
            self._has_room.clear()
            await self._has_room.wait()

    def _out(
        self, kind: str, data: bytes = b"", *, status: int = 0, headers: tuple[str, ...] = (), subprotocol: str = "",
        code: int = 1000, reason: str = "",
    ) -> None:  # fmt: skip
        one = self._one
        self._tell("WebOut", WebOut(one.call_id, one.index, kind, status, headers, subprotocol, code, reason), data)

    def _tell(self, method: str, record: WebOut | WebCredit, body: bytes = b"") -> None:
        if not self._is_cut and not self._link.send(method, record, body):
            self._is_cut = True


def scope_of(fields: list[bytes], state: dict[str, Any]) -> Scope:
    """A request as an application sees it."""
    kind, method, scheme, version, raw_path, query, root_path, host, port, server_host, server_port, protocols, _ = (
        fields[:REQUEST_FIELDS]
    )
    path = raw_path.decode("latin-1")
    scope: Scope = {
        "type": kind.decode(),
        "asgi": _ASGI,
        "http_version": version.decode(),
        "scheme": scheme.decode(),
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": root_path.decode("latin-1"),
        "headers": list(zip(fields[REQUEST_FIELDS::2], fields[REQUEST_FIELDS + 1 :: 2], strict=True)),
        "client": (host.decode(), int(port)) if host else None,
        "server": (server_host.decode(), int(server_port)) if server_host else None,
        "state": state.copy(),
    }
    if kind == b"http":
        scope["method"] = method.decode()
        scope["extensions"] = {}
    else:
        scope["subprotocols"] = protocols.decode("latin-1").split(",") if protocols else []
        scope["extensions"] = {"websocket.http.response": {}}
    return scope


def lines_of(pairs: Any) -> bytes:
    """Headers as HTTP/1.1 writes them.

    Raises:
        Misused: one of them would be two.
    """
    pieces: list[bytes] = []
    for name, value in pairs:
        pieces += (name, b": ", value, b"\r\n")
    lines = b"".join(pieces)
    if lines.count(b"\n") * 4 != len(pieces) or lines.count(b"\r") * 4 != len(pieces):
        raise Misused("the application sent a header with a line break in it")
    return lines


def _headers(pairs: Any) -> tuple[str, ...]:
    flat: list[str] = []
    for name, value in pairs:
        flat.append(bytes(name).decode("latin-1"))
        flat.append(bytes(value).decode("latin-1"))
    return tuple(flat)


Application = Callable[[Scope, Callable[[], Any], Callable[[Event], Any]], Any]
