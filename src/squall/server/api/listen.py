"""Serve the application on a socket: limits of sizes and times, TLS."""

from __future__ import annotations

import asyncio
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
KEEP_ALIVE_S = 30
SHUTDOWN_S = 3
FRAMES_BYTES_MAX = 4 * (HEADER_BYTES_MAX + BODY_BYTES_MAX)
"""Of one WebSocket message: frames that were sent in one turn of the loop travel together."""


class Lane(Protocol):
    """A shorter way than by an application."""

    def takes(self, protocol: HttpToolsProtocol) -> bool:
        """Whether the request whose head has come goes that way: nothing else is made of it then."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with an end to headers: it keeps all that come, for as long as they come."""

    _head_bytes = 0
    _is_in_head = True
    _head_timer: asyncio.TimerHandle | None = None
    on_lost: Callable[[], None] | None = None
    """Called once when the connection is gone: whoever waits for a response need not ask all the time."""

    def connection_made(self, transport: Any) -> None:
        """Called by the loop."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._stop_timer()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
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
        super().on_message_begin()
        scope: Any = self.scope  # ASGI leaves room for what servers add
        scope[CONNECTION] = self
        self._is_in_head = True
        self._head_bytes = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._is_in_head = False
        self._stop_timer()
        config: Any = self.config
        if config.lane is None or not config.lane.takes(self):
            super().on_headers_complete()

    def _stop_timer(self) -> None:
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
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            ssl_certfile=tls_cert,
            ssl_keyfile=tls_key,
        )


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=SHUTDOWN_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
