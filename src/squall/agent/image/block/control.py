"""How the agent talks to the daemon that serves layers: a line of JSON each way, over a socket of root's."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = "squall.agent.image.block.daemon"
LINE_BYTES_MAX = 2**20
_CREDENTIALS = struct.Struct("3i")

_log = logging.getLogger("squall.agent.image.block.control")

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def socket_path(data_dir: Path) -> Path:
    """Where the daemon of a data directory listens."""
    return data_dir / "lazy.sock"


def peer_pid(connection: socket.socket) -> int:
    """The process at the other end, by the kernel's word."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(packed)[0])


def ask(data_dir: Path, request: dict[str, Any], timeout_s: float = 5.0) -> dict[str, Any] | None:
    """Ask the daemon of a data directory; None when there is none. Blocks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, contextlib.suppress(OSError, ValueError):
        connection.settimeout(timeout_s)
        connection.connect(str(socket_path(data_dir)))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            answer: dict[str, Any] = json.loads(lines.readline(LINE_BYTES_MAX))
            return answer
    return None


class ControlSocket:
    """The daemon's end."""

    def __init__(self, data_dir: Path, answer: Answer) -> None:
        """Whoever starts the daemon sees to it that there is one at a time."""
        self._answer = answer
        self._path = socket_path(data_dir)
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        os.chmod(self._path, 0o600)
        self._listener.listen(8)
        self._lock = threading.Lock()
        self.connections = 0

    def serve(self) -> None:
        """Answer everybody, for ever. For a thread of its own."""
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def close(self) -> None:
        """Let nobody else in."""
        self._path.unlink(missing_ok=True)

    def _converse(self, connection: socket.socket) -> None:
        with self._lock:
            self.connections += 1
        try:
            with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError, ValueError):
                while line := lines.readline(LINE_BYTES_MAX):
                    connection.sendall(json.dumps(self._answer(json.loads(line))).encode() + b"\n")
        finally:
            with self._lock:
                self.connections -= 1
