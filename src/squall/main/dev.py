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

NOTHING_RUNS = "Squall does not run"
STOP_S = 60.0
KILL_S = 10.0
WAYS_ON = "end them: squall server stop --force, or let a server take them over: squall server start"


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
            command.add_argument(
                "--force", action="store_true", help="also while apps run: they end; also when it does not answer"
            )
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
        print(f"Error: may not use {what}: {error.strerror}; {advice}", file=sys.stderr)
        return 1
    except (ConfigError, DataDirError, PlatformError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


# cold start: asyncio and the records of the wire; `start` does without.
def _stop(config: Config, *, is_forced: bool) -> str:
    lock = ServerLock(config.data_dir)
    if not _runs(lock, config):
        return _clear(lock, config, is_forced=is_forced)
    found = read_server_file(config.data_dir)
    try:
        import asyncio

        from squall.main.ask import ask
        from squall.protocol.empty import Empty
        from squall.protocol.server import ServerStop

        asyncio.run(ask(config.socket_path, "ServerStop", ServerStop(is_forced), Empty))
    except ChannelClosed:
        if is_forced:
            _signal(lock, config, found, signal.SIGTERM)
        # Else it was faster than its answer.
    except (OSError, PlatformError) as error:
        if found is None and isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return _stop_without_address(lock, config, is_forced=is_forced)
        if not is_forced:
            raise DataDirError(f"cannot stop the server: {_why_not(error)}") from error
        _signal(lock, config, found, signal.SIGTERM)
    if _ends(lock, config, STOP_S):
        # What it could not take away itself, as on a machine where all takes too long.
        is_clear = not is_forced or os.geteuid() != 0 or _clear(lock, config, is_forced=True) == NOTHING_RUNS
        return "stopped Squall" if is_clear else "stopped Squall, and removed what it had left"
    if is_forced:
        return _kill(lock, config, found)
    raise DataDirError(f"the server has not ended within {STOP_S:.0f} s; see {config.data_dir}/server.log")


def _stop_without_address(lock: ServerLock, config: Config, *, is_forced: bool) -> str:
    """It begins, or is ending already: it takes its address away first, and then its containers and templates."""
    if _ends(lock, config, STOP_S, or_begins=True):
        return "stopped Squall"
    if read_server_file(config.data_dir) is not None:
        return _stop(config, is_forced=is_forced)
    if is_forced:
        return _kill(lock, config, None)
    raise DataDirError(
        f"cannot stop the server: it has neither begun nor ended within {STOP_S:g} s; see {config.data_dir}/server.log;"
        " with --force it ends with all that runs"
    )


def _kill(lock: ServerLock, config: Config, found: ServerFile | None) -> str:
    """End one that does not end, and what it leaves."""
    _signal(lock, config, found, signal.SIGKILL)
    if _ends(lock, config, KILL_S):
        return _clear(lock, config, is_forced=True)
    raise DataDirError(
        f"the server was killed, and has not ended within {KILL_S:g} s; see {config.data_dir}/server.log"
    )


def _ends(lock: ServerLock, config: Config, timeout_s: float, *, or_begins: bool = False) -> bool:
    """Wait for the end of the server, or until it can be asked; whether it has ended."""
    deadline = time.monotonic() + timeout_s
    while _runs(lock, config):
        if time.monotonic() > deadline or (or_begins and read_server_file(config.data_dir) is not None):
            return False
        time.sleep(0.02)
    return True


# cold start: as in `_stop`.
def _clear(lock: ServerLock, config: Config, *, is_forced: bool) -> str:
    """Take away what an earlier server left, one that was killed as a rule; what still runs only by force."""
    from squall.main.leftovers import find, running_containers, take_away

    data_dir = config.data_dir
    if (count := running_containers(data_dir)) and not is_forced:
        who = "1 container of an earlier one does" if count == 1 else f"{count} containers of an earlier one do"
        raise DataDirError(f"no server runs, but {who}; {WAYS_ON}")
    # What there is besides containers is root's to see.
    if not data_dir.is_dir() or (os.geteuid() != 0 and not count) or not find(data_dir):
        return NOTHING_RUNS
    if not lock.acquire():
        raise DataDirError("another server has started meanwhile; stop it, too")
    try:
        found = find(data_dir)
        failures = take_away(data_dir)
        if left := find(data_dir):
            raise DataDirError(f"an earlier server left more than can be removed ({left}): {'; '.join(failures)}")
    finally:
        lock.release()
    return f"Squall did not run; removed what an earlier one left: {found}"


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
        return lock.holder() is not None


def _signal(lock: ServerLock, config: Config, found: ServerFile | None, number: int) -> None:
    """Signal the process that server.json names, or the one that has the lock, if it still is one of ours."""
    pid = found.pid if found is not None else lock.holder()
    if pid is None:
        if not _runs(lock, config):
            return
        raise DataDirError(
            "the server does not answer, and does not say which process it is: "
            "look for `squall.main.dev serve` in `ps ax`, and end it by its number"
        )
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return
    if b"squall" not in command:
        raise DataDirError(f"process {pid} is no Squall server; not stopping it")
    os.kill(pid, number)


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
