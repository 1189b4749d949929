"""The server alone, for many machines: `python -m squall.main.serverd`. Its nodes are `squall.main.agentd` elsewhere.

It needs no root. It listens at SQUALL_HTTP_HOST with TLS, keeps its state where SQUALL_DATABASE_URL and SQUALL_BLOB_URL
say, and is opened by SQUALL_TOKEN.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

import uvloop

from squall.main.codec import MsgspecCodec
from squall.main.config import Config, ConfigError, read_config
from squall.main.data_dir import (
    DataDirError,
    ServerFile,
    ServerLock,
    find_owners,
    prepare,
    read_or_make_token,
    write_server_file,
)
from squall.main.lifetime import first_of, stop_signals
from squall.main.listeners import http_port, unix_socket
from squall.main.parts import control_plane
from squall.main.tcp import bind, check_exposure, url_of
from squall.protocol.errors import PlatformError
from squall.protocol.version import VERSION

_log = logging.getLogger("squall.main")


async def serve_alone(config: Config, environ: Mapping[str, str], on_ready: Callable[[ServerFile], None]) -> None:
    """Run until a signal or a request to stop; nodes and their containers go on.

    Raises:
        ConfigError, PlatformError, OSError: it cannot start; the message says why.
    """
    stop = stop_signals()
    check_exposure(config.http_host, config.tls_cert, config.tls_key)
    owners = find_owners(environ)
    token = config.token or read_or_make_token(config.data_dir, owners)
    with bind(config.http_host, config.http_port) as listener:
        url = url_of(listener, config.http_host, config.tls_cert)
        async with control_plane(config, MsgspecCodec(), url) as control, AsyncExitStack() as stack:
            await stack.enter_async_context(unix_socket(config, owners, control))
            await stack.enter_async_context(http_port(config, control, listener, token, has_agents=True))
            said = ServerFile(os.getpid(), url, VERSION, control.server_id)
            write_server_file(config.data_dir, said)
            on_ready(said)
            _log.info("serving %s", url)
            reason = await first_of({"a signal came": stop.wait(), "somebody asked for it": control.wait_stop()})
            _log.info("stopping: %s", reason)
            config.socket_path.unlink(missing_ok=True)
            (config.data_dir / "server.json").unlink(missing_ok=True)


def main() -> int:
    """Run in the foreground; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = read_config(os.environ)
        prepare(config.data_dir)
        lock = ServerLock(config.data_dir)
        if not lock.acquire():
            raise DataDirError(f"a server runs in {config.data_dir} already")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve_alone(config, os.environ, lambda said: None))
    except (ConfigError, DataDirError, PlatformError, OSError) as error:
        print(f"squall: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
