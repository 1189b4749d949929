"""A real server in a process of its own, without nodes: it needs no root. For tests of what users keep on it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from squall.main.ask import ask
from squall.protocol.errors import ChannelClosed
from squall.protocol.server import ServerStatus, ServerStatusRequest

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
