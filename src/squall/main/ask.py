"""One request to a running server, from a program that wants nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from squall.protocol.channel.stream import connect_unix
from squall.protocol.codec import JsonCodec
from squall.protocol.ids import new_id
from squall.protocol.peer import Peer
from squall.protocol.server import Hello, Welcome
from squall.protocol.version import PROTOCOL_VERSION, VERSION

R = TypeVar("R")

ANSWER_S = 20.0


async def ask(socket_path: Path, method: str, record: Any, reply: type[R]) -> R:
    """Connect, introduce ourselves, ask.

    Raises:
        OSError: nobody listens there, or it may not be used.
        PlatformError: what the server answered, or that it did not within 20 s.
    """
    peer = Peer(await connect_unix(str(socket_path)), JsonCodec())
    peer.start()
    try:
        await peer.request("Hello", Hello(VERSION, PROTOCOL_VERSION, new_id("cl")), Welcome, timeout_s=ANSWER_S)
        return await peer.request(method, record, reply, timeout_s=ANSWER_S)
    finally:
        await peer.close()
