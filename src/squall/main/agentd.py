"""A node alone: `python -m squall.main.agentd`, as root, with SQUALL_SERVER_URL and SQUALL_TOKEN.

Its containers outlive it: whoever starts it again adopts them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping

from squall.main.codec import MsgspecCodec
from squall.main.config import Config, ConfigError
from squall.main.foreground import run_in_foreground
from squall.main.lifetime import stop_signals
from squall.main.listeners import AGENT_PATH, CONTAINER_PATH
from squall.main.parts import Node
from squall.main.websocket import Dialer
from squall.protocol.channel.contract import Channel

_log = logging.getLogger("squall.main")


async def serve_node(config: Config, environ: Mapping[str, str], on_ready: Callable[[], None]) -> None:
    """Be a node of the configured server until a signal comes; while the server is away, wait for it.

    `on_ready` is called when the server knows the node.

    Raises:
        ConfigError, RuntimeFailure, OSError: it cannot start; the message says why.
    """
    if not config.server_url or not config.token:
        raise ConfigError("an agent needs SQUALL_SERVER_URL (https://name:port) and SQUALL_TOKEN, its server's token")
    stop = stop_signals()
    async with Dialer(config.server_url, config.token) as dialer:

        async def connect() -> Channel:
            return await dialer.open(AGENT_PATH)

        async def connect_container() -> Channel:
            return await dialer.open(CONTAINER_PATH)

        async with Node(config, MsgspecCodec(), environ, connect, connect_container) as node:
            connecting = asyncio.ensure_future(node.wait_connected())
            connecting.add_done_callback(lambda done: None if done.cancelled() else on_ready())
            await stop.wait()
            connecting.cancel()
            _log.info("stopping; containers run on")


def main() -> None:
    """Run in the foreground until it is told to stop."""
    run_in_foreground(
        lambda config: serve_node(config, os.environ, lambda: _log.info("connected to %s", config.server_url)),
        needs_root=True,
    )


if __name__ == "__main__":
    main()
