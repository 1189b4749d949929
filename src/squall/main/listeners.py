"""How a control plane is reached: the unix socket of this machine, and the TCP port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from squall.main.config import Config
from squall.main.data_dir import Owners, listen
from squall.protocol.channel.stream import StreamChannel
from squall.server.dispatch import ControlPlane

AGENT_PATH = "/api/v1/agent"
CONTAINER_PATH = "/api/v1/container"


@asynccontextmanager
async def unix_socket(config: Config, owners: Owners, control: ControlPlane) -> AsyncIterator[asyncio.Server]:
    """Clients of this machine."""
    listener = listen(config.socket_path, owners)
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: StreamChannel(control.accept_client), sock=listener
    )
    try:
        yield server
    finally:
        server.close()


@asynccontextmanager
async def http_port(
    config: Config, control: ControlPlane, listener: socket.socket, token: str, *, has_agents: bool = False
) -> AsyncIterator[None]:
    """HTTP and WebSocket, from the first connection on: it waits in the socket's queue while the code is loaded.

    With `has_agents`, nodes of other machines connect here too.
    """
    stop = asyncio.Event()
    serving = asyncio.ensure_future(_serve(config, control, listener, token, has_agents, stop))
    try:
        yield
    finally:
        stop.set()
        await serving


async def _serve(
    config: Config,
    control: ControlPlane,
    listener: socket.socket,
    token: str,
    has_agents: bool,
    stop: asyncio.Event,
) -> None:
    if not await _wait_readable(listener, stop):
        return
    # A tenth of the time to start and of the memory, for a listener that most users of a laptop never open.
    http, ingress, serving, loopback_names = await asyncio.to_thread(_load)
    extras: tuple[Any, ...] = ()
    if has_agents:
        extras = (
            http.Extra(AGENT_PATH, control.accept_agent),
            http.Extra(CONTAINER_PATH, control.accept_container),
        )
    names = loopback_names | set(config.http_names)
    app = ingress(http.make_app(control, token, names, extras), control.web, names)
    async with serving(app, listener, config.tls_cert, config.tls_key, app.is_for_api, app.lane):
        await stop.wait()


async def _wait_readable(listener: socket.socket, stop: asyncio.Event) -> bool:
    loop = asyncio.get_running_loop()
    has_connection = asyncio.Event()
    loop.add_reader(listener.fileno(), has_connection.set)
    waits = [asyncio.ensure_future(has_connection.wait()), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(listener.fileno())
        for wait in waits:
            wait.cancel()
    return not stop.is_set()


def _load() -> tuple[Any, Any, Any, frozenset[str]]:
    # cold start: see `_serve`.
    from squall.server.api import http
    from squall.server.api.guard import LOOPBACK_NAMES
    from squall.server.api.listen import serving
    from squall.server.ingress.ingress import Ingress

    return http, Ingress, serving, LOOPBACK_NAMES
