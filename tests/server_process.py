"""A real server in a process of its own, without nodes: it needs no root. For tests of what users keep on it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from squall.main.ask import ask
from squall.protocol.errors import ChannelClosed
from squall.protocol.server import ServerStatus, ServerStatusRequest
from squall.sdk import _client, _local_server
from tests.conftest import remove_data_dir

ANSWERS_S = 60.0


class ServerProcess:
    """`python -m squall.main.serverd` with a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("SQUALL_", "SUDO_"))}
        environ |= {name: value for name, value in os.environ.items() if name.startswith("SQUALL_TEST")}
        environ |= {"SQUALL_DATA_DIR": str(self.data_dir), "SQUALL_TOKEN": "for-tests", "SQUALL_HTTP_PORT": "0"}
        with open(self.data_dir / "log", "ab") as log:
            argv = [sys.executable, "-m", "squall.main.serverd"]
            self._process = subprocess.Popen(argv, env=environ, stdout=log, stderr=log)
        deadline = time.monotonic() + ANSWERS_S
        while not self._answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, f"the server does not answer:\n{self.log()}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            asyncio.run(ask(self.data_dir / "server.sock", "ServerStatus", ServerStatusRequest(), ServerStatus))
        except (OSError, ChannelClosed):
            return False
        return True

    def kill(self) -> None:
        """As kill -9 and the kernel do."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        """End it; may be repeated."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)

    def log(self) -> str:
        """What it has printed."""
        return (self.data_dir / "log").read_text(errors="replace")

    def blob_path(self, sha256: str) -> Path:
        """Where it keeps a blob."""
        return self.data_dir / "blobs" / "content" / sha256[:2] / sha256


@contextmanager
def running_server() -> Iterator[ServerProcess]:
    """One for the tests of a module, which do it no harm."""
    server = ServerProcess(Path(tempfile.mkdtemp(prefix="sq-", dir="/tmp")))
    try:
        server.start()
        yield server
    finally:
        server.stop()
        remove_data_dir(server.data_dir)


@contextmanager
def used(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    """Meanwhile the SDK and the command find this server. One that was killed is started again by the test."""
    monkeypatch.setenv("SQUALL_DATA_DIR", str(server.data_dir))
    monkeypatch.delenv("SQUALL_SERVER_URL", raising=False)
    monkeypatch.setattr(_local_server, "start", lambda data_dir: None)
    try:
        yield server
    finally:
        _client.close()
