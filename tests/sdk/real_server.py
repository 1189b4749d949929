"""A server without nodes in a thread of this process: its real methods and stores, on disk, for the SDK to ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from squall.main.codec import MsgspecCodec
from squall.main.secret_keys import FileSecretKeys
from squall.protocol.channel.stream import StreamChannel
from squall.server.dispatch import ControlPlane, SystemClock
from squall.server.model.config import ServerConfig
from squall.server.store.blob import ObjectBlobStore
from squall.server.store.log import FileLogStore
from squall.server.store.migration import upgrade
from squall.server.store.sql import SqlStore

TURNS = 10
URL = "http://127.0.0.1:1"
"""Where it says it is; nothing listens there."""


class RealServer:
    """Entering starts it; it can be restarted, as after its death."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._parts = AsyncExitStack()
        self.plane: ControlPlane

    def __enter__(self) -> Self:
        self._thread.start()
        self.do(self._start())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something where the server runs."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def restart(self) -> None:
        """Connections break, what is not on disk is lost, and the next server begins."""
        self.do(self._stop())
        self.do(self._start())

    def break_connections(self) -> None:
        """Clients have to connect again."""

        async def close() -> None:
            for peer in list(self.plane._peers):
                peer.channel.close()

        self.do(close())

    async def _start(self) -> None:
        enter = self._parts.enter_async_context
        clock = SystemClock()
        store = await enter(SqlStore(f"sqlite:///{self._data_dir}/squall.db", upgrade))
        blobs = await enter(ObjectBlobStore(str(self._data_dir / "blobs"), clock.now))
        logs = await enter(FileLogStore(str(self._data_dir / "logs"), 2**20))
        keys = FileSecretKeys(self._data_dir, ())
        self.plane = await enter(ControlPlane(store, blobs, logs, keys, MsgspecCodec(), ServerConfig(url=URL), clock))
        path = self._data_dir / "server.sock"
        server = await self._loop.create_unix_server(lambda: StreamChannel(self.plane.accept_client), str(path))
        self._parts.push_async_callback(_close, server, path)

    async def _stop(self) -> None:
        await self._parts.aclose()
        for _ in range(TURNS):
            await asyncio.sleep(0)


async def _close(server: asyncio.Server, path: Path) -> None:
    # What is accepted is a connection some turns later, if the server still is one; the control plane closes it then.
    path.unlink()
    for _ in range(TURNS):
        await asyncio.sleep(0)
    server.close()
