"""Serve the application on a socket: limits, timeouts, TLS.

Beyond loopback nothing is served without TLS: the token would travel in the clear.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.frames import BODY_BYTES_MAX, HEADER_BYTES_MAX

HEAD_BYTES_MAX = 64 * 1024
HEAD_S = 20.0
"""From the first byte of a connection or request to the end of its headers."""
CONNECTIONS_MAX = 2_000
KEEP_ALIVE_S = 30
SHUTDOWN_S = 3
MESSAGE_BYTES_MAX = 4 * (HEADER_BYTES_MAX + BODY_BYTES_MAX)
"""Of one WebSocket message: frames that were sent in one turn of the loop travel together."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with an end to headers: it keeps all that come, for as long as they come."""

    _head_bytes = 0
    _is_in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Called by the loop."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
                self.transport.close()

    def on_message_begin(self) -> None:
        """Called by the parser."""
        super().on_message_begin()
        self._is_in_head = True
        self._head_bytes = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._is_in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


def bind(host: str, port: int, *, fallback: bool) -> socket.socket:
    """A listening TCP socket; with `fallback`, on any free port when that one is taken.

    Raises:
        PlatformError: `invalid`, with the reason, when it cannot be.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (port, 0) if fallback and port else (port,):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(512)
        except OSError as error:
            listener.close()
            reason = error
        else:
            listener.setblocking(False)
            return listener
    raise PlatformError(INVALID, f"cannot listen at {host}:{port}: {reason}; choose another by SQUALL_HTTP_PORT")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(host: str, tls_cert: str | None, tls_key: str | None) -> None:
    """Refuse to be reachable from elsewhere without TLS.

    Raises:
        PlatformError: `invalid`, with what to do.
    """
    if bool(tls_cert) != bool(tls_key):
        raise PlatformError(INVALID, "set both SQUALL_TLS_CERT and SQUALL_TLS_KEY, or neither")
    if not is_loopback(host) and not tls_cert:
        raise PlatformError(
            INVALID,
            f"cannot listen at {host} without TLS: its token would travel in the clear; set SQUALL_TLS_CERT and"
            " SQUALL_TLS_KEY to the paths of a certificate and its key, or listen at 127.0.0.1",
        )


@asynccontextmanager
async def serving(
    app: ASGIApp, listener: socket.socket, tls_cert: str | None = None, tls_key: str | None = None
) -> AsyncIterator[None]:
    """Serve while the context is open; leaving lets answers finish for some seconds."""
    config = uvicorn.Config(
        app,
        http=LimitedHttpProtocol,
        ws="websockets-sansio",
        ws_max_size=MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
    )
    config.load()
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


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=SHUTDOWN_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
