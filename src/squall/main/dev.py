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
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from squall.main.config import Config, ConfigError, read_config
from squall.main.data_dir import (
    DataDirError,
    ServerFile,
    ServerLock,
    answers,
    find_owners,
    prepare,
    read_server_file,
    remove_server_file,
    settle_modes,
)
from squall.protocol.errors import ChannelClosed, PlatformError

START_S = 60.0
LOCK_WAIT_S = 30.0
"""How long a new server waits for one that is stopping."""
STOP_S = 60.0
LOG_BYTES_MAX = 10 * 2**20
LOG_FILES = 3
ALREADY = "already"


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
        if arguments.command == "start":
            return _start(config)
        if arguments.command == "stop":
            return _stop(config, is_forced=arguments.force)
        if arguments.command == "status":
            return _status(config, is_json=arguments.json)
        return _serve(config, arguments.ready_fd)
    except (ConfigError, DataDirError, PlatformError) as error:
        print(f"squall: {error}", file=sys.stderr)
        return 1


def _check_root() -> None:
    if os.geteuid() != 0:
        raise DataDirError("the server makes containers, which needs root; start it by sudo")


# start


def _start(config: Config) -> int:
    if _is_serving(config):
        return _say_running(config)
    _check_root()
    prepare(config.data_dir)
    reading, writing = os.pipe()
    with open(config.data_dir / "server.log", "ab") as log:
        argv = [sys.executable, "-m", "squall.main.dev", "serve", "--data-dir", str(config.data_dir)]
        # Its own session: Ctrl-C in the terminal that first needed a server must not end it for all others.
        child = subprocess.Popen(
            [*argv, "--ready-fd", str(writing)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[writing],
            cwd="/",
            start_new_session=True,
        )
    os.close(writing)
    said = _read_until_said(reading, time.monotonic() + START_S)
    if said == ALREADY:
        child.wait(timeout=10)
        return _say_running(config)
    if said.startswith("{"):
        print(f"started Squall (process {child.pid}) at {json.loads(said)['url']}")
        # It outlives us on purpose: nobody waits for it.
        child.returncode = 0
        return 0
    if child.poll() is None and not said:
        raise DataDirError(f"the server did not start within {START_S:.0f} s; see {config.data_dir}/server.log")
    # It lets go of what it had by then: whoever tries again does not find it dying.
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        pass  # its error is told all the same
    raise DataDirError(said or f"the server ended at once; see {config.data_dir}/server.log")


def _read_until_said(descriptor: int, deadline: float) -> str:
    """One line, or what came until the other end was closed or time was up."""
    os.set_blocking(descriptor, False)
    data = b""
    while b"\n" not in data and time.monotonic() < deadline:
        try:
            block = os.read(descriptor, 65_536)
        except BlockingIOError:
            time.sleep(0.005)
            continue
        if not block:
            break
        data += block
    os.close(descriptor)
    return data.decode(errors="replace").strip()


def _is_serving(config: Config) -> bool:
    # The file comes when functions can run, the socket a little before; a killed server leaves both.
    return read_server_file(config.data_dir) is not None and answers(config.socket_path)


def _say_running(config: Config) -> int:
    found = read_server_file(config.data_dir)
    where = f" (process {found.pid}) at {found.url}" if found else ""
    print(f"Squall runs already{where}")
    return 0


# serve


def _serve(config: Config, ready_fd: int | None) -> int:
    say = _teller(ready_fd)
    settle_modes()
    try:
        _check_root()
        prepare(config.data_dir)
        lock = ServerLock(config.data_dir)
        if not _acquire(lock, config):
            say(ALREADY)
            return _say_running(config) if ready_fd is None else 0
        # What a killed one said of itself is true no longer.
        remove_server_file(config.data_dir)
        _set_up_log(config.data_dir / "server.log" if ready_fd is not None else None)
        return _run(config, say)
    except (ConfigError, DataDirError, PlatformError) as error:
        say(str(error))
        raise


# cold start: the whole server; the other commands need none of it. Its spawner starts meanwhile.
def _run(config: Config, say: Callable[[str], None]) -> int:
    spawner = threading.Thread(target=_start_spawner, args=(config.data_dir,))
    spawner.start()
    import asyncio
    import logging

    import uvloop

    from squall.main.serve import serve
    from squall.runtime.errors import RuntimeFailure

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
    return 0


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
        if _is_serving(config):
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


# stop, status


# cold start: asyncio and the records of the wire; `start` does without.
def _stop(config: Config, *, is_forced: bool) -> int:
    lock = ServerLock(config.data_dir)
    if lock.is_free():
        print("Squall does not run")
        return 0
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
            raise DataDirError(f"cannot stop the server: {error}; with --force it ends with all that runs") from error
        _terminate(found)
    deadline = time.monotonic() + STOP_S
    while not lock.is_free():
        if time.monotonic() > deadline:
            raise DataDirError(f"the server has not ended within {STOP_S:.0f} s; see {config.data_dir}/server.log")
        time.sleep(0.02)
    print("stopped Squall")
    return 0


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


# cold start: as in `_stop`.
def _status(config: Config, *, is_json: bool) -> int:
    import asyncio

    from squall.main.ask import ask
    from squall.protocol.server import ServerStatus, ServerStatusRequest

    try:
        status = asyncio.run(ask(config.socket_path, "ServerStatus", ServerStatusRequest(), ServerStatus))
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
