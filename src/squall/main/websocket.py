"""Channels to a server elsewhere, over WebSocket: what an agent of its own machine opens."""

from __future__ import annotations

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from squall.protocol.channel.websocket import WebSocketChannel
from squall.protocol.errors import FORBIDDEN, INVALID, UNAUTHENTICATED, UNAVAILABLE, PlatformError
from squall.protocol.task_set import TaskSet

OPEN_S = 15.0
MESSAGE_BYTES_MAX = 512 * 2**20
PING_S = 15.0


class WebsocketsSocket:
    """A connection of the websockets library as `protocol.channel.websocket.MessageSocket`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send_bytes(self, data: bytes) -> None:
        """See `MessageSocket`."""
        await self._connection.send(data)

    async def receive_bytes(self) -> bytes | None:
        """See `MessageSocket`."""
        try:
            message = await self._connection.recv()
        except ConnectionClosed:
            return None
        return message if isinstance(message, bytes) else None

    async def close(self) -> None:
        """See `MessageSocket`."""
        await self._connection.close()

    def abort(self) -> None:
        """See `MessageSocket`."""
        self._connection.transport.abort()


class Dialer:
    """Opens channels to one server and owns what carries them; leaving ends them all."""

    def __init__(self, url: str, token: str) -> None:
        """`url` as http(s)://name:port, without a path."""
        self._url = url.rstrip("/")
        self._token = token
        self._tasks = TaskSet()

    async def __aenter__(self) -> Dialer:
        """Nothing to open yet."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._tasks.close()

    async def open(self, path: str) -> WebSocketChannel:
        """A channel to a path of the server.

        Raises:
            PlatformError: `unavailable` when nobody answers, `unauthenticated` or `forbidden` when we may not.
        """
        address = "ws" + self._url.removeprefix("http") + path
        try:
            connection = await connect(
                address,
                additional_headers={"Authorization": f"Bearer {self._token}"},
                compression=None,
                max_size=MESSAGE_BYTES_MAX,
                open_timeout=OPEN_S,
                ping_interval=PING_S,
                ping_timeout=PING_S,
                # Two servers of ours talk; what proxies the environment names are for the programs of users.
                proxy=None,
            )
        except InvalidHandshake as error:
            response = getattr(error, "response", None)
            code = {401: UNAUTHENTICATED, 403: FORBIDDEN}.get(getattr(response, "status_code", 0), UNAVAILABLE)
            raise PlatformError(code, f"cannot connect to {self._url}: {error}; see SQUALL_TOKEN") from error
        except InvalidURI as error:
            raise PlatformError(INVALID, f"cannot connect to {self._url}: not an http or https address") from error
        except (TimeoutError, OSError) as error:
            raise PlatformError(UNAVAILABLE, f"cannot connect to {self._url}: {error or 'no answer'}") from error
        channel = WebSocketChannel(WebsocketsSocket(connection))
        self._tasks.start(channel.run())
        return channel
