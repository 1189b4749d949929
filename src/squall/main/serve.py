"""One server and one node in this process, joined by memory channels: what `squall.main.dev` runs.

    up:    stores, control plane ─▶ unix socket ─▶ node ─▶ ready ─▶ HTTP
    down:  socket gone ─▶ containers ended ─▶ node ─▶ HTTP ─▶ control plane, stores

A stop that somebody asked for ends the containers too; a crash does not, and the next server adopts them.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from squall.main.codec import MsgspecCodec
from squall.main.config import Config
from squall.main.data_dir import Owners, ServerFile, find_owners, listen, read_or_make_token, write_server_file
from squall.main.parts import Node, control_plane
from squall.main.tcp import bind, check_exposure, url_of
from squall.protocol.channel import Channel, MemoryChannel, StreamChannel
from squall.protocol.version import VERSION
from squall.server.dispatch import ControlPlane

IDLE_LOOKS = 10
IDLE_PERIOD_S_MAX = 5.0

_log = logging.getLogger("squall.main")


async def serve(config: Config, environ: Mapping[str, str], on_ready: Callable[[ServerFile], None]) -> None:
    """Run until somebody asks for the end, by signal or by method, or nobody has wanted anything for long.

    `on_ready` is called once functions can run.

    Raises:
        PlatformError, RuntimeFailure, OSError: it cannot start; the message says why.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    check_exposure(config.http_host, config.tls_cert, config.tls_key)
    owners = find_owners(environ)
    token = config.token or read_or_make_token(config.data_dir, owners)
    http = bind(config.http_host, config.http_port)
    url = url_of(http, config.http_host, config.tls_cert)
    codec = MsgspecCodec()
    with http:
        async with control_plane(config, codec, url) as control, AsyncExitStack() as stack:
            doors = await stack.enter_async_context(_unix_socket(config, owners, control))
            local = await stack.enter_async_context(_local_node(config, codec, environ, control))
            await local.wait_connected()
            said = ServerFile(os.getpid(), url, VERSION, control.server_id)
            write_server_file(config.data_dir, said)
            on_ready(said)
            await stack.enter_async_context(_http(config, control, http, token))
            # What has been loaded stays: the collector need not look at it again.
            gc.freeze()
            _log.info("serving %s and %s", config.socket_path, url)
            reason = await _wait_for_end(config, control, stop)
            _log.info("stopping: %s", reason)
            doors.close()
            config.socket_path.unlink(missing_ok=True)
            (config.data_dir / "server.json").unlink(missing_ok=True)
            await local.take_down()


@asynccontextmanager
async def _unix_socket(config: Config, owners: Owners, control: ControlPlane) -> AsyncIterator[asyncio.Server]:
    listener = listen(config.socket_path, owners)
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: StreamChannel(control.accept_client), sock=listener
    )
    try:
        yield server
    finally:
        server.close()


def _local_node(config: Config, codec: MsgspecCodec, environ: Mapping[str, str], control: ControlPlane) -> Node:
    async def connect() -> Channel:
        ours, theirs = MemoryChannel.pair()
        control.accept_agent(theirs)
        return ours

    async def connect_container() -> Channel:
        ours, theirs = MemoryChannel.pair()
        control.accept_container(theirs)
        return ours

    return Node(config, codec, environ, connect, connect_container)


@asynccontextmanager
async def _http(config: Config, control: ControlPlane, listener: socket.socket, token: str) -> AsyncIterator[None]:
    """Serve HTTP from the first connection on; it waits in the socket's queue while the code is loaded."""
    stop = asyncio.Event()
    serving = asyncio.ensure_future(_serve_http(config, control, listener, token, stop))
    try:
        yield
    finally:
        stop.set()
        await serving


async def _serve_http(
    config: Config, control: ControlPlane, listener: socket.socket, token: str, stop: asyncio.Event
) -> None:
    if not await _wait_readable(listener, stop):
        return
    # A tenth of the time to start and of the memory, for a door that most users of a laptop never open.
    make_app, serving, loopback_names = await asyncio.to_thread(_load_http)
    app = make_app(control, token, loopback_names | set(config.http_names))
    async with serving(app, listener, config.tls_cert, config.tls_key):
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


def _load_http() -> tuple[Any, Any, frozenset[str]]:
    # cold start: see `_serve_http`.
    from squall.server.api.guard import LOOPBACK_NAMES
    from squall.server.api.http import make_app
    from squall.server.api.listen import serving

    return make_app, serving, LOOPBACK_NAMES


async def _wait_for_end(config: Config, control: ControlPlane, stop: asyncio.Event) -> str:
    reasons = {
        asyncio.ensure_future(stop.wait()): "a signal came",
        asyncio.ensure_future(control.wait_stop()): "somebody asked for it",
        asyncio.ensure_future(_wait_idle(config.idle_exit_s, control)): f"idle for {config.idle_exit_s} s",
    }
    try:
        done, _ = await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
        return reasons[next(iter(done))]
    finally:
        for one in reasons:
            one.cancel()
        await asyncio.gather(*reasons, return_exceptions=True)


async def _wait_idle(idle_exit_s: float | None, control: ControlPlane) -> None:
    if idle_exit_s is None:
        await asyncio.Event().wait()
        return
    loop = asyncio.get_running_loop()
    idle_since: float | None = None
    while idle_since is None or loop.time() - idle_since < idle_exit_s:
        await asyncio.sleep(min(IDLE_PERIOD_S_MAX, idle_exit_s / IDLE_LOOKS))
        if not control.is_idle:
            idle_since = None
        elif idle_since is None:
            idle_since = loop.time()
