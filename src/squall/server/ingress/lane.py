"""The short way of most requests: without a body, and with a response that comes whole.

    parser ─▶ Lane.takes ─▶ value of an input ─▶ …container… ─▶ value of its output ─▶ Passing.whole ─▶ connection

Nothing is a task here, and nothing of it is decoded twice. Whatever is not so plain (a body, an upgrade, a response
that streams, fails or is late, a request behind another one) goes the long way, by uvicorn's cycle and `ingress.py`,
from the beginning or from where it turns out.
"""

from __future__ import annotations

import asyncio
import http
import re
from typing import TYPE_CHECKING, Any, Protocol

from squall.protocol.web import PROXIES, joined_request, split_response
from squall.server.ingress.answers import Answer, busy
from squall.server.ingress.headers import HOP
from squall.server.model.web import Busy, Exchange, Route, Web

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

PATH_BYTES_MAX = 16 * 1024
LOOK_S = 5.0
"""Between two looks at requests that wait long."""

_OF_CLIENT = frozenset({b"connection", b"content-length", b"transfer-encoding", b"expect", b"host", *HOP}) | {
    b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix",
}  # fmt: skip
"""Headers of a request that are not simply passed on."""
_PLAIN = frozenset({b"keep-alive", b"close"})
_TOKEN = rb"[!#$%&'*+.^_`|~0-9a-z-]+"
_LINES = re.compile(rb"(?:" + _TOKEN + rb": [^\x00-\x08\x0a-\x1f\x7f]*\r\n)*")
"""Headers of a response that may be passed on as they are, if none of them is one of those below."""
_HOP_LINE = re.compile(rb"(?:^|\n)(?:" + b"|".join(sorted(re.escape(name) for name in HOP)) + rb"): ")
_LENGTH_LINE = re.compile(rb"(?:^|\n)content-length: ([0-9]{1,18})\r\n")
_NO_LENGTH = frozenset({204, 304})


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}


class Long(Protocol):
    """The long way."""

    def go_on(self, passing: Passing) -> None:
        """Give the response of a request to its client, whatever it is."""


class Lane:
    """Of one port."""

    def __init__(self, web: Web, own_names: frozenset[str], long: Long, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._web = web
        self._own_names = own_names
        self._long = long
        self._passing: dict[Passing, float] = {}
        """Since when, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    def takes(self, protocol: HttpToolsProtocol) -> bool:
        """Whether the request whose head has come goes this way: it is on it then."""
        before: Any = protocol.cycle
        if protocol.parser.should_upgrade() or protocol.expect_100_continue:
            return False
        if before is not None and not before.response_complete:
            return False
        host = b""
        fields: list[bytes] = []
        for name, value in protocol.headers:
            if name in _OF_CLIENT:
                if name == b"host" and not host:
                    host = value
                elif name != b"connection" or value.lower() not in _PLAIN:
                    return False
                else:
                    continue
            fields.append(name)
            fields.append(value)
        path, _, query = protocol.url.partition(b"?")
        if not path.startswith(b"/") or b"#" in protocol.url or len(protocol.url) > PATH_BYTES_MAX:
            return False
        found = self._route(host, path)
        if found is None or b"__squall_request" in query or protocol.parser.get_http_version() != "1.1":
            return False
        if len(protocol.connections) >= (protocol.limit_concurrency or 0):
            return False
        route, root_path = found
        method = protocol.parser.get_method()
        value = joined_request(
            [*self._fields(protocol, method, path, query, root_path), *fields, *_told(protocol, host, root_path)]
        )
        passing = Passing(self, protocol, route, method == b"HEAD", root_path)
        protocol.cycle = passing  # type: ignore[assignment]  # as much of one as uvicorn's protocol looks at
        try:
            passing.exchange = self._web.begin_whole(route, value, passing)
        except Busy as error:
            passing.say(busy(str(error)))
        return True

    def _route(self, host: bytes, path: bytes) -> tuple[Route, bytes] | None:
        name = host.decode("latin-1").strip().lower()
        head, colon, port = name.rpartition(":")
        if colon and port.isdigit():
            name = head
        root_path = b""
        if name.endswith(self._web.host_suffix):
            route = self._web.find(name[: -len(self._web.host_suffix)])
        elif name in self._own_names:
            if not path.startswith(b"/w/"):
                return None
            label = path[3:].partition(b"/")[0]
            root_path = b"/w/" + label
            route = self._web.find(label.decode("latin-1").lower())
        else:
            route = self._web.find_domain(name)
        if route is None or route.web.kind in PROXIES or route.web.is_proxy_auth_required:
            return None
        return route, root_path

    def _fields(
        self, protocol: HttpToolsProtocol, method: bytes, path: bytes, query: bytes, root_path: bytes
    ) -> tuple[bytes, ...]:
        # In the order of `encode_request`.
        client, server = protocol.client, protocol.server
        scheme = (protocol.scheme or "http").encode()
        return (
            b"http", method, scheme, b"1.1", path, query, root_path,
            client[0].encode() if client else b"", b"%d" % client[1] if client else b"0",
            server[0].encode() if server else b"", b"%d" % (server[1] or 0) if server else b"0",
            b"", b"",
        )  # fmt: skip

    def began(self, passing: Passing) -> None:
        """A request is on its way."""
        loop = asyncio.get_running_loop()
        self._passing[passing] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._look_s, self._look)

    def over(self, passing: Passing) -> None:
        """It goes the long way, or has its response."""
        self._passing.pop(passing, None)

    def _look(self) -> None:
        """Whoever waits for long may be sent elsewhere: that is the long way's."""
        self._timer = None
        loop = asyncio.get_running_loop()
        for passing, since in list(self._passing.items()):
            if loop.time() - since < self._look_s:
                break
            passing.other()
        if self._passing:
            self._timer = loop.call_later(self._look_s, self._look)

    def go_on(self, passing: Passing) -> None:
        """By the long way."""
        self.over(passing)
        self._long.go_on(passing)

    def leave(self, passing: Passing) -> None:
        """Its client has gone."""
        self.over(passing)
        if passing.exchange is not None:
            self._web.leave(passing.exchange)


def _told(protocol: HttpToolsProtocol, host: bytes, root_path: bytes) -> tuple[bytes, ...]:
    """What the application hears of the way the request has come."""
    client = protocol.client
    scheme = (protocol.scheme or "http").encode()
    said: tuple[bytes, ...] = (b"x-forwarded-proto", scheme, b"x-forwarded-host", host)
    if root_path:
        said += (b"x-forwarded-prefix", root_path)
    return (b"x-forwarded-for", client[0].encode(), *said) if client else said


class _Unheard:
    """In the place of an event that nobody waits for."""

    def set(self) -> None: ...


_UNHEARD = _Unheard()


class Passing:
    """A request on the short way; in the place of uvicorn's cycle, as far as its protocol looks at that."""

    __slots__ = (
        "_lane", "_protocol", "body", "disconnected", "exchange", "is_head", "keep_alive", "message_event", "more_body",
        "response_complete", "root_path", "route",
    )  # fmt: skip

    def __init__(self, lane: Lane, protocol: HttpToolsProtocol, route: Route, is_head: bool, root_path: bytes) -> None:
        self._lane = lane
        self._protocol = protocol
        self.route = route
        self.is_head = is_head
        self.root_path = root_path
        self.exchange: Exchange | None = None
        self.response_complete = self.disconnected = False
        self.more_body = False
        self.body = b""
        self.message_event = _UNHEARD
        self.keep_alive = protocol.parser.should_keep_alive()
        own: Any = protocol
        own.on_lost = self._lost
        lane.began(self)

    @property
    def protocol(self) -> HttpToolsProtocol:
        """Its connection."""
        return self._protocol

    def _lost(self) -> None:
        if not self.response_complete:
            self._lane.leave(self)

    # What `model.web.Whole` says

    def whole(self, value: bytes) -> bool:
        """See `model.web.Whole`."""
        try:
            status, lines, body = split_response(value)
        except ValueError:
            return False
        first = _STATUS_LINES.get(status)
        if first is None or _LINES.fullmatch(lines) is None or _HOP_LINE.search(lines) is not None:
            return False
        lengths = _LENGTH_LINE.findall(lines)
        if lengths:
            if len(lengths) > 1 or (int(lengths[0]) != len(body) and not self.is_head):
                return False
        elif status not in _NO_LENGTH:
            lines = b"%bcontent-length: %d\r\n" % (lines, len(body))
        if self.is_head or status in _NO_LENGTH:
            body = b""
        self._write(b"%b%b%b\r\n%b" % (first, lines, b"" if self.keep_alive else b"connection: close\r\n", body))
        return True

    def other(self) -> None:
        """See `model.web.Whole`."""
        if not self.response_complete and not self.disconnected and self in self._lane._passing:
            self._lane.go_on(self)

    def say(self, answer: Answer) -> None:
        """An answer of our own."""
        lines = b"".join([b"%b: %b\r\n" % pair for pair in answer.pairs])
        body = b"" if self.is_head else answer.body
        self._write(_STATUS_LINES[answer.status] + lines + b"\r\n" + body)

    def _write(self, data: bytes) -> None:
        self._lane.over(self)
        self.response_complete = True
        protocol: Any = self._protocol
        protocol.on_lost = None
        if self.disconnected or protocol.transport.is_closing():
            return
        protocol.transport.write(data)
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()
