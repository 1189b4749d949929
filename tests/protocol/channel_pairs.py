"""Connected pairs of every kind of channel, and a receiver that keeps what it is given."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from squall.main.websocket import Dialer
from squall.protocol.channel.contract import Channel
from squall.protocol.channel.memory import MemoryChannel
from squall.protocol.channel.stream import StreamChannel, connect_unix
from squall.protocol.frames import Frame
from squall.server.api.http import make_app
from squall.server.api.listen import serving

KINDS = ("memory", "unix", "websocket")
TOKEN = "for-tests"


class Kept:
    """A receiver."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.batches = 0
        self.reasons: list[str] = []
        self.changed = asyncio.Event()

    def frames_received(self, frames: list[Frame]) -> None:
        """See `Receiver`."""
        assert not self.reasons, "frames came after the end"
        self.frames += frames
        self.batches += 1
        self.changed.set()

    def closed(self, reason: str) -> None:
        """See `Receiver`."""
        self.reasons.append(reason)
        self.changed.set()

    async def wait(self, is_enough: Callable[[Kept], Any]) -> None:
        """Return when it is so."""
        async with asyncio.timeout(20):
            while not is_enough(self):
                self.changed.clear()
                await self.changed.wait()


class AcceptOnly:
    """A control plane that takes channels and answers nothing."""

    def __init__(self, accept: Callable[[Channel], None]) -> None:
        self.accept_client = accept

    async def answer(self, method: str, record: Any, body: bytes) -> tuple[Any, bytes]:
        """See `Control`."""
        raise AssertionError("nobody asks here")

    def stream(self, method: str, record: Any, body: bytes) -> AsyncIterator[tuple[Any, bytes]]:
        """See `Control`."""
        raise AssertionError("nobody asks here")


@asynccontextmanager
async def channel_pair(kind: str, folder: Path) -> AsyncIterator[tuple[Channel, Channel]]:
    """Two ends of one channel: the client's and the server's."""
    if kind == "memory":
        yield MemoryChannel.pair()
        return
    accepted: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
    if kind == "unix":
        path = str(folder / "s")
        server = await asyncio.get_running_loop().create_unix_server(lambda: StreamChannel(accepted.set_result), path)
        client: Channel = await connect_unix(path)
        try:
            yield client, await accepted
        finally:
            client.close()
            (await accepted).close()
            await asyncio.sleep(0)
            server.close()
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with serving(make_app(AcceptOnly(accepted.set_result), TOKEN), listener), Dialer(url, TOKEN) as dialer:
            client = await dialer.open("/api/v1/channel")
            yield client, await accepted
