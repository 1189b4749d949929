"""A control plane that answers what these tests ask, and the application around it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from typing import Any

from squall.protocol.app import AppGet, AppInfo, AppList, AppListing
from squall.protocol.blob import BlobChunk, BlobGet, BlobPut
from squall.protocol.channel.contract import Channel
from squall.protocol.codec import JsonCodec
from squall.protocol.container import ContainerExec, TerminalOutput
from squall.protocol.empty import Empty
from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.protocol.log import LogBatch, LogEntry, LogRead
from squall.protocol.peer import Peer
from squall.protocol.request import Request


class EchoControl:
    """See `server.api.http.Control`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, bytes]] = []
        self.stream_ended = asyncio.Event()
        self.peers: list[Peer] = []

    async def answer(self, method: str, record: Any, body: bytes) -> tuple[Any, bytes]:
        """Answer by the record's type."""
        self.asked.append((method, record, body))
        if isinstance(record, AppGet):
            if record.app == "explode":
                raise RuntimeError("a secret of the server")
            if record.app == "fill":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/secret/path")
            if record.app != "hello":
                raise PlatformError(NOT_FOUND, f"no app {record.app}")
            return AppInfo("ap-1", "hello", "deployed", 1.5, functions={"square": "fu-1"}), b""
        if isinstance(record, AppList):
            return AppListing(()), b""
        if isinstance(record, BlobGet):
            return BlobChunk(3, record.offset), b"\x00\xff\x01"
        assert isinstance(record, BlobPut | Empty) or method == "CallClose", record
        return Empty(), b""

    async def stream(self, method: str, record: Any, body: bytes) -> AsyncIterator[tuple[Any, bytes]]:
        """Answer by the record's type."""
        try:
            if isinstance(record, LogRead):
                if record.app == "missing":
                    raise PlatformError(NOT_FOUND, "no app missing")
                for number in range(3):
                    yield LogBatch((LogEntry(float(number), "stdout", f"line {number}"),)), b""
                if record.app == "breaks":
                    raise PlatformError("unavailable", "the node is gone")
                if record.is_following:
                    await asyncio.Event().wait()
            if isinstance(record, ContainerExec):
                yield TerminalOutput(), b"\xffout"
                yield TerminalOutput(exit_code=3), b""
        finally:
            self.stream_ended.set()

    def accept_client(self, channel: Channel) -> None:
        """Answer over frames too."""
        peer = Peer(channel, JsonCodec(), _Service(self))
        self.peers.append(peer)
        peer.start()


class _Service:
    def __init__(self, control: EchoControl) -> None:
        self._control = control

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        """See `Service`."""
        return await self._control.answer(request.method, request.record(AppGet), request.body)

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `Service`."""

    def closed(self, reason: str) -> None:
        """See `Service`."""
