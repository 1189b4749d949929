"""The server alone, for many machines: `python -m squall.main.serverd`. Its nodes are `squall.main.agentd` elsewhere.

It needs no root. It listens at SQUALL_HTTP_HOST, with TLS, keeps its state where SQUALL_DATABASE_URL and
SQUALL_BLOB_URL say, and is opened by SQUALL_TOKEN.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from squall.main.codec import MsgspecCodec
from squall.main.config import Config
from squall.main.data_dir import ServerFile, find_owners, read_or_make_token, remove_server_file, write_server_file
from squall.main.foreground import run_in_foreground
from squall.main.lifetime import first_of, stop_signals
from squall.main.listeners import http_port, unix_socket
from squall.main.parts import control_plane
from squall.main.tcp import bind, check_exposure, url_of
from squall.protocol.version import VERSION

_log = logging.getLogger("squall.main")


async def serve_alone(config: Config, environ: Mapping[str, str], on_ready: Callable[[ServerFile], None]) -> None:
    """Run until a signal or a request to stop; nodes and their containers go on.

    Raises:
        ConfigError, PlatformError, OSError: it cannot start; the message says why.
    """
    stop = stop_signals()
    check_exposure(config)
    owners = find_owners(environ)
    token = config.token or read_or_make_token(config.data_dir, owners)
    with bind(config.http_host, config.http_port) as listener:
        url = url_of(listener, config.http_host, config.tls_cert)
        async with control_plane(config, environ, MsgspecCodec(), url) as control, AsyncExitStack() as stack:
            await stack.enter_async_context(unix_socket(config, owners, control))
            await stack.enter_async_context(http_port(config, control, listener, token, has_agents=True))
            said = ServerFile(os.getpid(), url, VERSION, control.server_id)
            write_server_file(config.data_dir, said)
            on_ready(said)
            _log.info("serving %s", url)
            reason = await first_of({"a signal came": stop.wait(), "somebody asked for it": control.wait_stop()})
            _log.info("stopping: %s", reason)
            config.socket_path.unlink(missing_ok=True)
            remove_server_file(config.data_dir)


def main() -> None:
    """Run in the foreground until it is told to stop."""
    run_in_foreground(lambda config: serve_alone(config, os.environ, lambda said: None))


if __name__ == "__main__":
    main()
