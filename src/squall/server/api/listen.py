"""Serve the application on a socket: limits of sizes and times, TLS."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from squall.protocol import web
from squall.protocol.frames import BODY_BYTES_MAX, HEADER_BYTES_MAX
from squall.server.model.web import CONNECTION

HEAD_BYTES_MAX = 64 * 1024
HEAD_S = 20.0
"""From the first byte of a connection or request to the end of its headers."""
CONNECTIONS_MAX = 10_000
"""And half of the files that this process may have open: one that may open no more can do nothing at all."""
KEEP_ALIVE_S = 30
SHUTDOWN_S = 3
FRAMES_BYTES_MAX = 4 * (HEADER_BYTES_MAX + BODY_BYTES_MAX)
"""Of one WebSocket message: frames that were sent in one turn of the loop travel together."""

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 21\r\nretry-after: 5\r\n"
    b"connection: close\r\n\r\ntoo many connections\n"
)

_log = logging.getLogger("squall.server.api.listen")


class Lane(Protocol):
    """A shorter way than by an application."""

    def takes(self, protocol: LimitedHttpProtocol) -> bool:
        """Whether the request whose head has come goes that way: nothing else is made of it then."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with an end to headers: it keeps all that come, for as long as they come."""

    _head_bytes = 0
    _is_in_head = True
    _is_in_body = False
    _has_body_come = False
    """With what has come last."""
    _head_timer: asyncio.TimerHandle | None = None
    _idle_since = 0.0
    """Since when it has nothing to answer; 0.0: it has."""
    _idle_timer: asyncio.TimerHandle | None = None
    of_lane: Any = None
    """What the shorter way keeps of this connection."""
    _is_short = False
    """Whether the last request went the shorter way."""
    on_lost: Callable[[], None] | None = None
    """Called once when the connection is gone: whoever waits for a response need not ask all the time."""

    def connection_made(self, transport: Any) -> None:
        """Called by the loop."""
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            # The newest one, so that those who are here go on. Kept open it would take a file all the same.
            transport.write(_FULL)
            transport.close()
            return
        self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._stop_head_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._has_body_come = False
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
                self.transport.close()
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)
        elif self._is_in_body:
            # Without any of the body come trailers, of which the parser keeps one that does not end. Its response may
            # have begun, so that there is nothing to say.
            self._head_bytes = 0 if self._has_body_come else self._head_bytes + len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        """Called when a WebSocket is asked for: its messages are frames of ours, or somebody's."""
        config: Any = self.config
        scope: Any = self.scope
        scope["path"] = self.url.decode("latin-1")
        if not config.is_for_api(scope):
            self.config = config.of_others
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._idle_since = 0.0
        self._is_short = False
        self._is_in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._idle_since = 0.0
        self._is_in_head = False
        self._is_in_body = True
        if self._head_timer is not None:
            self._stop_head_timer()
        config: Any = self.config
        if config.lane is not None and self._is_taken(config.lane):
            self._is_short = True
            return
        if self.parser.should_upgrade() and not self._should_upgrade() and _has_body(self.headers):
            # The parser would skip the body, and read on in the middle of it as if a request began there.
            self._is_short = True
            self.send_400_response("A request with a body cannot ask for another protocol.")
            return
        # The parser tells trailers as headers that come late: the request has those that it has now.
        self.scope = self.scope_of(self.url, list(self.headers))
        super().on_headers_complete()

    def scope_of(self, url: bytes, headers: list[tuple[bytes, bytes]]) -> Any:
        """The scope of a request of this connection, as far as uvicorn makes it when one begins. Those that go the
        shorter way need none; and behind one of them the next may have begun."""
        kept = self.url, self.headers, self.expect_100_continue, self.scope
        super().on_message_begin()
        scope: Any = self.scope
        self.url, self.headers, self.expect_100_continue, self.scope = kept
        scope["headers"] = headers
        scope[CONNECTION] = self  # ASGI leaves room for what servers add
        return scope

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._has_body_come = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._is_in_body = False
        if not self._is_short:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Called when the response of a request is written."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
            self._has_become_idle()

    def short_is_complete(self) -> None:
        """The same of a request that went the shorter way."""
        if self.pipeline or self.flow.read_paused:
            self.on_response_complete()
        else:
            self._has_become_idle()

    def _is_taken(self, lane: Lane) -> bool:
        try:
            return lane.takes(self)
        except Exception:  # noqa: BLE001  # the parser would say that the request is malformed
            _log.exception("the shorter way failed for a request, which goes the other")
            return False

    def _has_become_idle(self) -> None:
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            # One for many requests: it looks again when it rings.
            self._idle_timer = self.loop.call_later(KEEP_ALIVE_S, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        self._idle_timer = None
        if not self._idle_since:
            return
        left_s = self._idle_since + KEEP_ALIVE_S - self.loop.time()
        if left_s > 0:
            self._idle_timer = self.loop.call_later(left_s, self._look_whether_idle)
        else:
            self.timeout_keep_alive_handler()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


@asynccontextmanager
async def serving(
    app: ASGIApp,
    listener: socket.socket,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    is_for_api: Callable[[Scope], bool] = lambda scope: True,
    lane: Lane | None = None,
) -> AsyncIterator[None]:
    """Serve while the context is open; leaving lets answers finish for some seconds.

    Args:
        is_for_api: of a WebSocket that is asked for: whether it will carry frames of ours, which may be large.
        lane: a shorter way for some requests.
    """
    config = _Config(app, FRAMES_BYTES_MAX, tls_cert, tls_key)
    config.is_for_api, config.of_others = is_for_api, _Config(app, web.MESSAGE_BYTES_MAX, tls_cert, tls_key)
    config.lane = lane
    config.load()
    config.of_others.load()
    # Uvicorn's protocols without its `Server`, which takes over the signals and wakes up ten times a second.
    state = ServerState()

    def make_protocol() -> asyncio.Protocol:
        return LimitedHttpProtocol(config=config, server_state=state, app_state={})

    server = await asyncio.get_running_loop().create_server(make_protocol, sock=listener, ssl=config.ssl)
    try:
        yield
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        await _end(list(state.tasks))


class _Config(uvicorn.Config):
    """Uvicorn's, with what both kinds of WebSockets have in common."""

    is_for_api: Callable[[Scope], bool]
    of_others: uvicorn.Config
    lane: Lane | None = None

    def __init__(self, app: ASGIApp, message_bytes_max: int, tls_cert: str | None, tls_key: str | None) -> None:
        super().__init__(
            app,
            interface="asgi3",
            http=LimitedHttpProtocol,
            ws="websockets-sansio",
            ws_max_size=message_bytes_max,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            # Of those that are open: one that is one too many is not kept, see `connection_made`.
            limit_concurrency=min(CONNECTIONS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2) + 1,
            timeout_keep_alive=KEEP_ALIVE_S,
            ssl_certfile=tls_cert,
            ssl_keyfile=tls_key,
        )


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=SHUTDOWN_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
