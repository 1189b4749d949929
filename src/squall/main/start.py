"""Starts the local server in the background. The same command may be given by many at once: one becomes the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from squall.main.config import Config
from squall.main.data_dir import DataDirError, answers, prepare, read_server_file

START_S = 60.0
ALREADY = "already"
"""What a server says that is not the first."""


def start(config: Config) -> str:
    """Run the server in the background, and return once functions can run there; returns what there is to say.

    Raises:
        DataDirError: it did not start; the message is its own where it could say one.
    """
    if is_serving(config):
        return runs_already(config)
    check_root()
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
        return runs_already(config)
    if said.startswith("{"):
        # It outlives us on purpose: nobody waits for it.
        child.returncode = 0
        return f"started Squall (process {child.pid}) at {json.loads(said)['url']}"
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


def is_serving(config: Config) -> bool:
    """Whether functions can run here now."""
    # The file comes when functions can run, the socket a little before; a killed server leaves both.
    return read_server_file(config.data_dir) is not None and answers(config.socket_path)


def runs_already(config: Config) -> str:
    """Says who does."""
    found = read_server_file(config.data_dir)
    where = f" (process {found.pid}) at {found.url}" if found else ""
    return f"Squall runs already{where}"


def check_root() -> None:
    """Raises DataDirError unless we are root."""
    if os.geteuid() != 0:
        raise DataDirError("the server makes containers, which needs root; start it by sudo")
