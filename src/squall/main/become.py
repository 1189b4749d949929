"""Becomes the local server: takes the lock, sets up the log, starts the spawner beside the imports, serves."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from squall.main.config import Config, ConfigError
from squall.main.data_dir import (
    DataDirError,
    ServerFile,
    ServerLock,
    find_owners,
    prepare,
    read_server_file,
    remove_server_file,
    settle_modes,
)
from squall.main.start import ALREADY, check_root, is_serving, runs_already
from squall.protocol.errors import PlatformError

LOCK_WAIT_S = 30.0
"""How long a new server waits for one that is stopping."""
LOG_BYTES_MAX = 10 * 2**20
LOG_FILES = 3


def become(config: Config, ready_fd: int | None) -> str | None:
    """Be the server of this data directory until it ends; if there is one already, returns who that is.

    With `ready_fd` somebody waits there to read one line: the server's own file as JSON, `ALREADY`, or why it cannot
    start.
    """
    say = _teller(ready_fd)
    settle_modes()
    try:
        check_root()
        prepare(config.data_dir)
        lock = ServerLock(config.data_dir)
        if not _acquire(lock, config):
            say(ALREADY)
            return runs_already(config)
        # What a killed one said of itself is true no longer.
        remove_server_file(config.data_dir)
        _set_up_log(config.data_dir / "server.log" if ready_fd is not None else None)
        _run(config, say)
        return None
    except (ConfigError, DataDirError, PlatformError) as error:
        say(str(error))
        raise


# cold start: the whole server; the other commands need none of it. Its spawner starts meanwhile.
def _run(config: Config, say: Callable[[str], None]) -> None:
    spawner = threading.Thread(target=_start_spawner, args=(config.data_dir,))
    spawner.start()
    # Nothing of what is loaded is garbage, and the collector would look through it some twenty times.
    gc.disable()
    import asyncio
    import logging

    import uvloop

    from squall.main.serve import serve
    from squall.runtime.errors import RuntimeFailure

    gc.enable()
    spawner.join()

    def on_ready(said: ServerFile) -> None:
        say(json.dumps(asdict(said)))

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(config, os.environ, on_ready))
    except (RuntimeFailure, OSError) as error:
        raise DataDirError(f"cannot start the server: {error}; see `squall doctor`") from error
    except BaseExceptionGroup:
        logging.getLogger("squall.main").exception("the server failed")
        raise


# cold start: see `_run`.
def _start_spawner(data_dir: Path) -> None:
    import asyncio

    from squall.main.spawner import start_spawner
    from squall.runtime.errors import RuntimeFailure

    try:
        asyncio.run(start_spawner(data_dir))
    except (RuntimeFailure, OSError):
        return  # the server finds the same and says so


def _acquire(lock: ServerLock, config: Config) -> bool:
    """Become the server, unless there is one that answers; one that is stopping is waited for."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while not lock.acquire():
        if is_serving(config):
            return False
        if time.monotonic() > deadline:
            found = read_server_file(config.data_dir)
            who = f"process {found.pid}" if found else "another process"
            raise DataDirError(
                f"{who} holds {config.data_dir}/server.lock but does not answer; stop it: squall server stop --force"
            )
        time.sleep(0.02)
    return True


def _teller(ready_fd: int | None) -> Callable[[str], None]:
    """Says one line to whoever started us, once."""
    told: list[str] = []

    def say(text: str) -> None:
        if ready_fd is not None and not told:
            told.append(text)
            os.write(ready_fd, text.replace("\n", " ").encode() + b"\n")
            os.close(ready_fd)

    return say


def _set_up_log(path: Path | None) -> None:
    """To a file that is rotated, or to the terminal."""
    # cold start: `start` logs nothing.
    import logging
    import logging.handlers

    owners = find_owners(os.environ)

    class OwnersFile(logging.handlers.RotatingFileHandler):
        """It names apps and shows what came over the wire: for those who may use the server, after a rotation too."""

        def _open(self) -> Any:
            stream = super()._open()
            owners.give_file(Path(self.baseFilename))
            return stream

    handler: logging.Handler = logging.StreamHandler()
    if path is not None:
        handler = OwnersFile(path, maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=[handler]
    )
    # One line for each thing it sets up is more than there is to say.
    logging.getLogger("alembic").setLevel(logging.WARNING)
