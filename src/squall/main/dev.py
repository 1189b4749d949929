"""The local server as a program: server and node of one machine in one process.

    python -m squall.main.dev start|stop|status|serve [--data-dir D]

`start` returns once functions can run, `serve` stays in the foreground. Exit codes: 0 done (or done already), 1 failed,
2 wrong arguments, 3 (status) not running.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from squall.main.become import become
from squall.main.config import Config, ConfigError, read_config
from squall.main.data_dir import (
    DataDirError,
    ServerFile,
    ServerLock,
    answers,
    read_server_file,
)
from squall.main.start import start
from squall.protocol.errors import CONFLICT, ChannelClosed, PlatformError

STOP_S = 60.0


def main(argv: list[str] | None = None) -> int:
    """Run one of the commands; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m squall.main.dev", description="Squall on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("start", "start the server in the background"),
        ("stop", "stop the server"),
        ("status", "how the server is"),
        ("serve", "be the server, in the foreground"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--data-dir", help="default: SQUALL_DATA_DIR, or /var/lib/squall")
        if name == "stop":
            command.add_argument("--force", action="store_true", help="also when apps run, or it does not answer")
        if name == "status":
            command.add_argument("--json", action="store_true", help="for programs")
        if name == "serve":
            command.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    try:
        config = read_config(os.environ, arguments.data_dir)
        if arguments.command == "status":
            return _status(config, is_json=arguments.json)
        if arguments.command == "start":
            print(start(config))
        elif arguments.command == "stop":
            print(_stop(config, is_forced=arguments.force))
        elif (who := become(config, arguments.ready_fd)) and arguments.ready_fd is None:
            print(who)
        return 0
    except PermissionError as error:
        what = error.filename or "the data directory"
        advice = "use sudo, or join the group 'squall' (which is as good as root)"
        print(f"squall: may not use {what}: {error.strerror}; {advice}", file=sys.stderr)
        return 1
    except (ConfigError, DataDirError, PlatformError) as error:
        print(f"squall: {error}", file=sys.stderr)
        return 1


# cold start: asyncio and the records of the wire; `start` does without.
def _stop(config: Config, *, is_forced: bool) -> str:
    lock = ServerLock(config.data_dir)
    if not _runs(lock, config):
        return "Squall does not run"
    found = read_server_file(config.data_dir)
    try:
        import asyncio

        from squall.main.ask import ask
        from squall.protocol.empty import Empty
        from squall.protocol.server import ServerStop

        asyncio.run(ask(config.socket_path, "ServerStop", ServerStop(is_forced), Empty))
    except ChannelClosed:
        if is_forced:
            _terminate(found)
        # Else it was faster than its answer.
    except (OSError, PlatformError) as error:
        if found is None and isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            raise DataDirError("cannot stop the server: it is still starting; try again in a moment") from error
        if not is_forced:
            raise DataDirError(f"cannot stop the server: {_why_not(error)}") from error
        _terminate(found)
    deadline = time.monotonic() + STOP_S
    while _runs(lock, config):
        if time.monotonic() > deadline:
            raise DataDirError(f"the server has not ended within {STOP_S:.0f} s; see {config.data_dir}/server.log")
        time.sleep(0.02)
    return "stopped Squall"


def _runs(lock: ServerLock, config: Config) -> bool:
    """Whether there is a server.

    Raises:
        PermissionError: that is not for us to know.
    """
    try:
        return not lock.is_free()
    except PermissionError:
        # The lock is root's; the socket is its group's, too, and is gone before the server is.
        if answers(config.socket_path):
            return True
        if config.socket_path.exists():
            raise
        return False


def _terminate(found: ServerFile | None) -> None:
    """Signal the process that server.json names, if it still is one of ours."""
    if found is None:
        raise DataDirError("the server does not answer, and does not say which process it is")
    try:
        command = Path(f"/proc/{found.pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return
    if b"squall" not in command:
        raise DataDirError(f"process {found.pid} is no Squall server; not stopping it")
    os.kill(found.pid, signal.SIGTERM)


def _why_not(error: Exception) -> str:
    if isinstance(error, PlatformError) and error.code == CONFLICT:
        return error.message.removeprefix("ServerStop: ")  # it says itself how to
    return f"{error}; with --force it ends with all that runs"


# cold start: as in `_stop`.
def _status(config: Config, *, is_json: bool) -> int:
    import asyncio

    from squall.main.ask import ask
    from squall.protocol.server import ServerStatus, ServerStatusRequest

    try:
        status = asyncio.run(ask(config.socket_path, "ServerStatus", ServerStatusRequest(), ServerStatus))
    except PermissionError:
        raise
    except OSError:
        value: dict[str, Any] = {"is_running": False}
        print(json.dumps(value) if is_json else "Squall does not run")
        return 3
    if is_json:
        print(json.dumps({"is_running": True, **asdict(status)}))
    else:
        print(
            f"Squall {status.version} runs (process {status.pid}) at {status.url}: {status.app_count} apps,"
            f" {status.container_count} containers, {status.client_count} clients, up {status.uptime_s:.0f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
