"""One server and one node in this process, joined by memory channels: what `squall.main.dev` runs.

    up:    stores, control plane ─▶ unix socket ─▶ node ─▶ ready ─▶ HTTP
    down:  socket gone ─▶ containers ended ─▶ HTTP ─▶ node ─▶ control plane, stores

A stop that somebody asked for ends the containers too; a crash does not, and the next server adopts them.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from squall.main.codec import MsgspecCodec
from squall.main.config import Config
from squall.main.data_dir import ServerFile, find_owners, read_or_make_token, remove_server_file, write_server_file
from squall.main.lifetime import first_of, stop_signals, wait_idle
from squall.main.listeners import http_port, unix_socket
from squall.main.memory import memory_given_back
from squall.main.parts import Node, control_plane
from squall.main.tcp import allow_files, bind, check_exposure, url_of
from squall.protocol.channel.contract import Channel
from squall.protocol.channel.memory import MemoryChannel
from squall.protocol.version import VERSION
from squall.server.dispatch import ControlPlane

_log = logging.getLogger("squall.main")


async def serve(config: Config, environ: Mapping[str, str], on_ready: Callable[[ServerFile], None]) -> None:
    """Run until somebody asks for the end, by signal or by method, or nobody has wanted anything for long.

    `on_ready` is called once functions can run.

    Raises:
        ConfigError, PlatformError, RuntimeFailure, OSError: it cannot start; the message says why.
    """
    stop = stop_signals()
    check_exposure(config)
    allow_files()
    owners = find_owners(environ)
    token = config.token or read_or_make_token(config.data_dir, owners)
    codec = MsgspecCodec()
    with bind(config.http_host, config.http_port) as listener:
        url = url_of(listener, config.http_host, config.tls_cert)
        async with (
            memory_given_back(),
            control_plane(config, environ, codec, url) as control,
            AsyncExitStack() as stack,
        ):
            server = await stack.enter_async_context(unix_socket(config, owners, control))
            node = await stack.enter_async_context(_local_node(config, codec, environ, control))
            await node.wait_connected()
            said = ServerFile(os.getpid(), url, VERSION, control.server_id)
            write_server_file(config.data_dir, said)
            on_ready(said)
            await stack.enter_async_context(http_port(config, control, listener, token))
            # What has been loaded stays: the collector need not look at it again.
            gc.freeze()
            _log.info("serving %s and %s", config.socket_path, url)
            reason = await first_of(
                {
                    "a signal came": stop.wait(),
                    "somebody asked for it": control.wait_stop(),
                    f"idle for {config.idle_exit_s} s": wait_idle(config.idle_exit_s, control),
                }
            )
            _log.info("stopping: %s", reason)
            server.close()
            config.socket_path.unlink(missing_ok=True)
            remove_server_file(config.data_dir)
            await node.take_down()


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
