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
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from squall.protocol.web import PROXIES, halves, joined_request
from squall.server.ingress.answers import Answer, busy
from squall.server.ingress.headers import HOP, OURS
from squall.server.model.web import Busy, Exchange, Route, Web

PATH_BYTES_MAX = 16 * 1024
LOOK_S = 5.0
"""Between two looks at requests that wait long."""
KNOWN_MAX = 1_000
"""Heads of responses, and names of hosts, that are not looked at again; when there are more, all are forgotten."""
KNOWN_BYTES_MAX = 1_000
"""Of one of them."""

_OF_CLIENT = frozenset({b"connection", b"content-length", b"transfer-encoding", b"expect", b"host", *HOP, *OURS}) | {
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
_OWN = "/"
"""In the place of a label: the label is in the path."""


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}


class Connection(Protocol):
    """What the short way needs of the HTTP protocol that a request has come over."""

    cycle: Any
    parser: Any
    transport: Any
    url: bytes
    headers: list[tuple[bytes, bytes]]
    scheme: Any
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    connections: Any
    limit_concurrency: int | None
    on_lost: Callable[[], None] | None
    of_lane: Any
    """What is kept of it here."""

    def short_is_complete(self) -> None:
        """The response of a request that came over it is written."""


class Long(Protocol):
    """The long way."""

    def go_on(self, passing: Passing) -> None:
        """Give the response of a request to its client, whatever it is."""


class Head(NamedTuple):
    """The head of a response that may be passed on."""

    data: bytes
    """As it goes to the client, without its end, and without the length of the body if the application left it out."""
    length: int
    """What it says of that: -1 where it says nothing, -2 where a length is not to be said."""
    has_body: bool


class OfConnection(NamedTuple):
    """What requests that come over one connection have in common, as pieces of their values."""

    scheme: bytes
    ends: bytes
    """From `client_host` to `has_more`, see `protocol.web.encode_request`."""
    forwarded: bytes
    """Up to the name of the header whose value is the host."""


class Lane:
    """Of one port."""

    def __init__(self, web: Web, own_names: frozenset[str], long: Long, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._web = web
        self._own_names = own_names
        self._long = long
        self._passing: dict[Passing, int] = {}
        """In which round they have come, the oldest first."""
        self._round = 0
        """Of looks at them."""
        self._timer: asyncio.TimerHandle | None = None
        self._hosts: dict[bytes, str] = {}
        """Labels, _OWN, or a dot and what may be a custom domain, by what clients call the host."""
        self._heads: dict[bytes, Head | None] = {}

    def takes(self, protocol: Connection) -> bool:
        """Whether the request whose head has come goes this way: it is on it then."""
        before: Any = protocol.cycle
        parser = protocol.parser
        if parser.should_upgrade() or (before is not None and not before.response_complete):
            return False
        host = b""
        fields: list[bytes] = []
        for name, value in protocol.headers:
            if name not in _OF_CLIENT:
                fields += (name, value)
            elif name == b"host":
                if host:
                    return False
                host = value
                fields += (name, value)
            elif name != b"connection" or value.lower() not in _PLAIN:
                return False
        url = protocol.url
        path, _, query = url.partition(b"?")
        if not path.startswith(b"/") or b"#" in url or len(url) > PATH_BYTES_MAX or b"__squall_request" in query:
            return False
        label, root_path = self._label(host, path)
        route = self._web.find_domain(label[1:]) if label.startswith(".") else self._web.find(label)
        if route is None or route.web.kind in PROXIES or route.web.is_proxy_auth_required:
            return False
        if parser.get_http_version() != "1.1" or len(protocol.connections) >= (protocol.limit_concurrency or 0):
            return False
        of_connection = protocol.of_lane
        if of_connection is None:
            of_connection = protocol.of_lane = _of_connection(protocol)
        method = parser.get_method()
        head = [b"http", method, of_connection.scheme, b"1.1", path, query, root_path, of_connection.ends]
        if root_path:
            fields += (of_connection.forwarded, host, b"x-forwarded-prefix", root_path)
        else:
            fields += (of_connection.forwarded, host)
        passing = Passing(self, protocol, route, method)
        try:
            passing.exchange = self._web.begin_whole(route, joined_request([*head, *fields]), passing)
        except Busy as error:
            passing.say(busy(error))
        else:
            self._passing[passing] = self._round
            protocol.on_lost = passing.lost
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._look_s, self._look)
        protocol.cycle = passing  # as much of one as uvicorn's protocol looks at
        return True

    def _label(self, host: bytes, path: bytes) -> tuple[str, bytes]:
        """The label, or a dot and a domain, and what of the path stands for it; the label is empty where there is
        none."""
        label = self._hosts.get(host)
        if label is None:
            label = self._host(host)
        if label is not _OWN:
            return label, b""
        if not path.startswith(b"/w/"):
            return "", b""
        found = path[3:].partition(b"/")[0]
        return found.decode("latin-1").lower(), b"/w/" + found

    def _host(self, host: bytes) -> str:
        name = host.decode("latin-1").strip().lower()
        head, colon, port = name.rpartition(":")
        if colon and port.isdigit():
            name = head
        label = "." + name
        if name.endswith(self._web.host_suffix):
            label = name[: -len(self._web.host_suffix)]
        elif name in self._own_names:
            label = _OWN
        _keep(self._hosts, host, label)
        return label

    def head(self, data: bytes) -> Head | None:
        """The head of a response that begins like this, as of `protocol.web.split_response`; None if it is not to be
        passed on as it is."""
        try:
            return self._heads[data]
        except KeyError:
            found = _head(data)
            _keep(self._heads, data, found)
            return found

    def over(self, passing: Passing) -> None:
        """It goes the long way, or has its response."""
        self._passing.pop(passing, None)

    def _look(self) -> None:
        """Whoever waits for long may be sent elsewhere: that is the long way's."""
        self._timer = None
        for passing, since in list(self._passing.items()):
            if since == self._round:
                break
            passing.other()
        self._round += 1
        if self._passing:
            self._timer = asyncio.get_running_loop().call_later(self._look_s, self._look)

    def go_on(self, passing: Passing) -> None:
        """By the long way."""
        self.over(passing)
        self._long.go_on(passing)

    def leave(self, passing: Passing) -> None:
        """Its client has gone."""
        self.over(passing)
        if passing.exchange is not None:
            self._web.leave(passing.exchange)


def _keep(known: dict[bytes, Any], key: bytes, value: Any) -> None:
    if len(key) <= KNOWN_BYTES_MAX:
        if len(known) >= KNOWN_MAX:
            known.clear()
        known[key] = value


def _of_connection(protocol: Connection) -> OfConnection:
    client, server = protocol.client, protocol.server
    scheme = (protocol.scheme or "http").encode()
    client_host = client[0].encode() if client else b""
    ends = (
        client_host, b"%d" % client[1] if client else b"0",
        server[0].encode() if server else b"", b"%d" % (server[1] or 0) if server else b"0", b"", b"",
    )  # fmt: skip
    forwarded = (b"x-forwarded-proto", scheme, b"x-forwarded-host")
    if client:
        forwarded = (b"x-forwarded-for", client_host, *forwarded)  # type: ignore[assignment]
    return OfConnection(scheme, b"\0".join(ends), b"\0".join(forwarded))


def _head(data: bytes) -> Head | None:
    status_text, _, lines = data.partition(b"\r\n")
    status = int(status_text) if status_text.isdigit() and len(status_text) == 3 else 0
    first = _STATUS_LINES.get(status)
    if first is None or _LINES.fullmatch(lines) is None or _HOP_LINE.search(lines) is not None:
        return None
    lengths = _LENGTH_LINE.findall(lines)
    if len(lengths) > 1:
        return None
    has_body = status not in _NO_LENGTH
    unsaid = -1 if has_body else -2
    return Head(first + lines, int(lengths[0]) if lengths else unsaid, has_body)


class _Unheard:
    """In the place of an event that nobody waits for."""

    def set(self) -> None: ...


_UNHEARD = _Unheard()


class Passing:
    """A request on the short way; in the place of uvicorn's cycle, as far as its protocol looks at that."""

    exchange: Exchange | None = None
    response_complete = False
    disconnected = False
    more_body = False
    body = b""
    message_event = _UNHEARD

    def __init__(self, lane: Lane, protocol: Connection, route: Route, method: bytes) -> None:
        self._lane = lane
        self.protocol = protocol
        """Its connection."""
        self.route = route
        self.method = method
        # The connection may have begun with the next request when these are asked for.
        self.url = protocol.url
        self.headers = protocol.headers
        self.keep_alive = protocol.parser.should_keep_alive()

    def lost(self) -> None:
        """Its client has gone."""
        if not self.response_complete:
            self._lane.leave(self)

    # What `model.web.Whole` says

    def whole(self, value: bytes) -> bool:
        """See `model.web.Whole`."""
        try:
            data, body = halves(value)
        except ValueError:
            return False
        head = self._lane.head(data)
        if head is None:
            return False
        if head.length == -1:
            length = b"content-length: %d\r\n" % len(body)
        elif 0 <= head.length != len(body) and self.method != b"HEAD":
            return False
        else:
            length = b""
        if not head.has_body or self.method == b"HEAD":
            body = b""
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self._write(b"".join((head.data, length, end, body)))
        return True

    def other(self) -> None:
        """See `model.web.Whole`."""
        if not self.response_complete and not self.disconnected and self in self._lane._passing:
            self._lane.go_on(self)

    def say(self, answer: Answer) -> None:
        """An answer of our own."""
        lines = b"".join([b"%b: %b\r\n" % pair for pair in answer.pairs])
        body = b"" if self.method == b"HEAD" else answer.body
        self._write(_STATUS_LINES[answer.status] + lines + b"\r\n" + body)

    def _write(self, data: bytes) -> None:
        self._lane.over(self)
        self.response_complete = True
        protocol = self.protocol
        protocol.on_lost = None
        transport = protocol.transport
        if self.disconnected or transport.is_closing():
            return
        transport.write(data)
        if self.keep_alive:
            protocol.short_is_complete()
        else:
            transport.close()
