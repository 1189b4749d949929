"""A server elsewhere, by WebSocket: binary messages of whole frames."""

from __future__ import annotations

import time
from contextlib import ExitStack

from squall.exception import AuthError, PermissionDeniedError
from squall.sdk._pending import Reader
from squall.sdk._turn import SIGNALS_S

CHANNEL_PATH = "/api/v1/channel"


class WebSocketTransport:
    """See `squall.sdk._transport.Transport`."""

    def __init__(self, url: str, token: str, timeout_s: float = 10.0) -> None:
        """Raises:
        OSError: nobody answers there.
        AuthError: the token is not the server's.
        PermissionDeniedError: it does not want to be called by that name.
        """
        from websockets.exceptions import InvalidStatus  # cold start: only for a server on another machine
        from websockets.sync.client import connect  # cold start: as above

        self.reader: Reader | None = None  # not asked: the library reads in a thread of its own
        address = url if url.startswith(("ws://", "wss://")) else "ws" + url.removeprefix("http")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Newer versions of the library want it entered; all versions close it on leaving.
        self._stack = ExitStack()
        try:
            self._socket = self._stack.enter_context(
                connect(
                    address.rstrip("/") + CHANNEL_PATH,
                    open_timeout=timeout_s,
                    additional_headers=headers,
                    max_size=None,
                    compression=None,
                )
            )
        except InvalidStatus as error:
            said = (error.response.body or b"").decode("utf-8", "replace")[:500]
            if error.response.status_code == 401:
                raise AuthError(f"the server at {url} refuses the token in SQUALL_TOKEN: {said}") from error
            if error.response.status_code == 403:
                raise PermissionDeniedError(f"the server at {url} refuses: {said}") from error
            raise OSError(f"HTTP status {error.response.status_code}: {said}") from error
        except Exception as error:  # the library's own types; all mean that the server cannot be reached
            raise OSError(f"{type(error).__name__}: {error}") from error

    def write(self, data: bytes, body: bytes | memoryview = b"") -> None:
        """See `Transport`."""
        try:
            # Its own lock keeps messages whole, and frames of one message together.
            self._socket.send(data + bytes(body) if body else data)
        except Exception as error:  # as above
            raise OSError(f"{type(error).__name__}: {error}") from error

    def read(self, deadline: float | None = None) -> bytes | None:
        """See `Transport`."""
        while True:
            left_s = SIGNALS_S if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                message = self._socket.recv(min(left_s, SIGNALS_S))
            except TimeoutError:
                if deadline is not None and left_s <= SIGNALS_S:
                    return None
                continue
            except Exception:  # noqa: BLE001 - as above
                return b""
            return message if isinstance(message, bytes) else message.encode()

    def close(self) -> None:
        """See `Transport`."""
        self._stack.close()
