"""Frames over WebSocket: the server's end of `GET /api/v1/channel` and of the agents' paths."""

from __future__ import annotations

from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from squall.protocol.channel.contract import Channel
from squall.protocol.channel.websocket import WebSocketChannel


class StarletteSocket:
    """A Starlette WebSocket as `protocol.channel.websocket.MessageSocket`."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def send_bytes(self, data: bytes) -> None:
        """See `MessageSocket`."""
        await self._socket.send_bytes(data)

    async def receive_bytes(self) -> bytes | None:
        """See `MessageSocket`."""
        try:
            message = await self._socket.receive()
        except (WebSocketDisconnect, RuntimeError):
            return None
        if message["type"] != "websocket.receive":
            return None
        # A text message carries no frames: the other side speaks something else.
        data: bytes | None = message.get("bytes")
        return data

    async def close(self) -> None:
        """See `MessageSocket`."""
        await self._socket.close()

    def abort(self) -> None:
        """See `MessageSocket`: the connection ends as `serve_channel` returns."""


async def serve_channel(socket: WebSocket, accept: Callable[[Channel], None]) -> None:
    """Take a connection, hand its channel to `accept`, and carry frames until it ends."""
    await socket.accept()
    channel = WebSocketChannel(StarletteSocket(socket))
    accept(channel)
    await channel.run()
