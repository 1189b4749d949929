"""Connections to ports, from the server's end to a real program over the real wire; the network is this machine's."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from squall.agent.port import Ports
from squall.main.codec import MsgspecCodec
from squall.protocol.channel.memory import MemoryChannel
from squall.protocol.errors import PlatformError
from squall.protocol.function import GVISOR, NAMESPACES
from squall.protocol.peer import Peer
from squall.protocol.port import WINDOW_BYTES
from squall.protocol.request import Request
from squall.runtime.spec import NetworkSlot
from squall.server.dispatch.web.ports import NodeStream, open_port

SLOT = NetworkSlot("0", "/nowhere", "127.0.0.1", "", "")
CONTAINER = "ct-0123456789ABCDEFGHabcd"
Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def local_sockets(slot: NetworkSlot) -> list[tuple[socket.socket, str]]:
    return [(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), "127.0.0.1")]


class _Slots:
    def __init__(self, slot: NetworkSlot) -> None:
        self._slot = slot

    def slot_of(self, container_id: str) -> NetworkSlot | None:
        return self._slot


class _Agent:
    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def answer(self, request: Request) -> None:
        await self._ports.serve(request)

    def event(self, method: str, params: Any, body: bytes) -> None:
        raise AssertionError(method)

    def closed(self, reason: str) -> None:
        pass


class Wire:
    """A server and an agent, and a container of its."""

    def __init__(self, pid: int, isolation: str = NAMESPACES, slot: NetworkSlot = SLOT) -> None:
        here, there = MemoryChannel.pair()
        codec = MsgspecCodec()
        found = {CONTAINER: (CONTAINER, isolation, pid)}
        self.ports = Ports(_Slots(slot), found.get, local_sockets)
        self.agent = Peer(there, codec, _Agent(self.ports))
        self.server = Peer(here, codec)
        self.agent.start()
        self.server.start()
        self.node: Any = SimpleNamespace(peer=self.server)
        self.container: Any = SimpleNamespace(container_id=CONTAINER, node=self.node, is_stopped=False)

    async def open(self, port: int) -> NodeStream:
        return await open_port(self.container, port)

    async def close(self) -> None:
        await self.server.close()
        await self.agent.close()
        await asyncio.sleep(0.02)  # transports are closed a turn later


@asynccontextmanager
async def wire(speak: Speak) -> AsyncIterator[tuple[Wire, int]]:
    """A program that speaks so, and its port."""
    joined = Wire(os.getpid())
    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    try:
        async with server:
            yield joined, server.sockets[0].getsockname()[1]
    finally:
        await joined.close()


async def read_all(stream: NodeStream) -> bytes:
    pieces = []
    while data := await stream.read():
        pieces.append(data)
    return b"".join(pieces)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write(b"end")
    writer.close()
    await writer.wait_closed()


async def test_bytes_go_both_ways_and_each_side_ends_by_itself() -> None:
    async with wire(echo) as (joined, port):
        stream = await joined.open(port)
        await stream.write(b"hello ")
        assert await stream.read() == b"hello "
        await stream.write(b"again ")
        stream.write_eof()

        assert await read_all(stream) == b"again end"
        assert await stream.read() == b""
        stream.close()


async def test_more_than_a_window_goes_both_ways_at_once() -> None:
    data = bytes(range(256)) * 4_096 * 8
    async with wire(echo) as (joined, port):
        stream = await joined.open(port)

        async def write() -> None:
            await stream.write(data)
            stream.write_eof()

        writing = asyncio.ensure_future(write())
        assert await asyncio.wait_for(read_all(stream), 20) == data + b"end"
        await writing
        stream.close()


async def test_what_nobody_reads_waits_in_the_program() -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < 64 * 2**20:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536
        writer.close()

    async with wire(endless) as (joined, port):
        stream = await joined.open(port)
        await asyncio.sleep(0.3)
        assert sent < 16 * 2**20
        assert stream._come.qsize() * 65_536 <= 8 * WINDOW_BYTES
        assert len(await asyncio.wait_for(read_all(stream), 20)) == 64 * 2**20
        stream.close()


async def test_what_the_program_does_not_read_waits_here() -> None:
    gate = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await echo(reader, writer)

    async with wire(late) as (joined, port):
        stream = await joined.open(port)
        writing = asyncio.ensure_future(stream.write(b"x" * 32 * 2**20))
        await asyncio.sleep(0.3)
        assert not writing.done()
        gate.set()
        reading = asyncio.ensure_future(read_all(stream))
        await asyncio.wait_for(writing, 20)
        stream.write_eof()
        assert len(await asyncio.wait_for(reading, 20)) == 32 * 2**20 + 3
        stream.close()


async def test_reset_is_no_end() -> None:
    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half")
        await writer.drain()
        await reader.read(1)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with wire(resets) as (joined, port):
        stream = await joined.open(port)
        assert await stream.read() == b"half"
        await stream.write(b"xy" * 100)
        with pytest.raises(PlatformError, match=r"reset|no end"):
            await read_all(stream)
        stream.close()


SPEAKING = """
import os, signal, socket, sys
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    one = listener.accept()[0]
    one.sendall(b"half")
    if sys.argv[1] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    one.close()
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["dies", "ends"])
async def test_what_a_killed_program_has_said_is_not_all_of_it(how: str) -> None:
    speaking = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SPEAKING, how, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert speaking.stdin is not None
    assert speaking.stdout is not None
    joined = Wire(speaking.pid)
    stream = await joined.open(int(await speaking.stdout.readline()))
    assert await stream.read() == b"half"

    if how == "dies":
        with pytest.raises(PlatformError, match="the connection was reset"):
            await stream.read()
    else:
        assert await stream.read() == b"", "closed by a program that lives on"
    stream.close()
    speaking.stdin.close()
    await speaking.wait()
    await joined.close()


async def test_agent_that_goes_is_no_end() -> None:
    async with wire(echo) as (joined, port):
        stream = await joined.open(port)
        await stream.write(b"x")
        assert await stream.read() == b"x"

        joined.agent.channel.close()

        with pytest.raises(PlatformError):
            await stream.read()
        with pytest.raises(PlatformError):
            await stream.write(b"x")
        stream.close()


async def test_connection_that_is_given_up_is_reset_in_the_program() -> None:
    seen: asyncio.Queue[object] = asyncio.Queue()

    async def notes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            seen.put_nowait(await reader.read(10))
            seen.put_nowait(await reader.read(10))
        except OSError as error:
            seen.put_nowait(type(error))
        writer.close()

    async with wire(notes) as (joined, port):
        stream = await joined.open(port)
        await stream.write(b"x")
        assert await asyncio.wait_for(seen.get(), 5) == b"x"
        stream.close()

        assert await asyncio.wait_for(seen.get(), 5) is ConnectionResetError


async def test_refusals_say_what_and_why() -> None:
    async with wire(echo) as (joined, _):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            with pytest.raises(PlatformError, match=f"port {port} of {CONTAINER}: nothing listens there") as refused:
                await joined.open(port)
        with pytest.raises(PlatformError, match="from 1 to 65535"):
            await joined.open(0)
        joined.container.container_id = "ct-0123456789ABCDEFGHxxxx"
        with pytest.raises(PlatformError, match="no such container") as missing:
            await joined.open(1)
        joined.node.peer = None
        with pytest.raises(PlatformError, match="its node is away"):
            await joined.open(1)

    assert (refused.value.code, missing.value.code) == ("unavailable", "not_found")


async def test_sandbox_without_a_network_is_not_taken_for_this_machine() -> None:
    joined = Wire(os.getpid(), GVISOR, NetworkSlot("b0", "/nowhere", "", "", ""))
    with socket.create_server(("127.0.0.1", 0)) as ours:
        with pytest.raises(PlatformError, match='nothing reaches a container with isolation="gvisor"') as refused:
            await joined.open(ours.getsockname()[1])
    await joined.close()

    assert refused.value.code == "unavailable"


async def test_connections_of_a_container_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squall.agent.port.CONNECTIONS_MAX", 1)
    async with wire(echo) as (joined, port):
        first = await joined.open(port)
        with pytest.raises(PlatformError, match="has 1 connections already"):
            await joined.open(port)
        first.close()
        await asyncio.sleep(0.05)
        (await joined.open(port)).close()
