"""One program of ours in the foreground, in a data directory that is its alone."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine

import uvloop

from squall.main.config import Config, ConfigError, read_config
from squall.main.data_dir import DataDirError, ServerLock, prepare, settle_modes
from squall.protocol.errors import PlatformError
from squall.runtime.errors import RuntimeFailure


def run_in_foreground(serve: Callable[[Config], Coroutine[None, None, None]], *, needs_root: bool = False) -> None:
    """Run `serve` by the environment's configuration until it ends.

    Raises:
        SystemExit: it cannot start; says why in one line.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settle_modes()
    try:
        config = read_config(os.environ)
        if needs_root and os.geteuid() != 0:
            raise DataDirError("an agent makes containers, which needs root; start it by sudo")
        prepare(config.data_dir)
        lock = ServerLock(config.data_dir)
        if not lock.acquire():
            raise DataDirError(f"a server or an agent runs in {config.data_dir} already")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(config))
    except (ConfigError, DataDirError, PlatformError, RuntimeFailure, OSError) as error:
        sys.exit(f"squall: {error}")
