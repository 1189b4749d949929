"""A server elsewhere, by WebSocket: binary messages of whole frames."""

from __future__ import annotations

import time


class WebSocketTransport:
    """See `squall.sdk._transport.Transport`."""

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        from websockets.sync.client import connect  # cold start: a server on another machine

        if not url.startswith(("ws://", "wss://")):
            url = "ws" + url.removeprefix("http")
        if not url.rstrip("/").endswith("/ws"):
            url = url.rstrip("/") + "/ws"
        try:
            self._socket = connect(url, open_timeout=timeout_s, max_size=None, compression=None)
        except Exception as error:  # the library's own types; all mean that the server cannot be reached
            raise OSError(f"{type(error).__name__}: {error}") from error

    def write(self, data: bytes, body: bytes | memoryview = b"") -> None:
        """See `Transport`."""
        try:
            self._socket.send(data + bytes(body) if body else data)
        except Exception as error:  # as above
            raise OSError(f"{type(error).__name__}: {error}") from error

    def read(self, deadline: float | None = None) -> bytes | None:
        """See `Transport`."""
        try:
            message = self._socket.recv(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return None
        except Exception:  # noqa: BLE001 - as above
            return b""
        return message if isinstance(message, bytes) else message.encode()

    def close(self) -> None:
        """See `Transport`."""
        self._socket.close()
