"""Ports that lead to programs, over real sockets; the program is in this process, the way to it is not the wire's."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from squall.protocol.errors import UNAVAILABLE, PlatformError
from squall.server.ingress import tunnel
from squall.server.ingress.tunnel import Entries, Entry
from tests.server.ingress.web_stage import LocalPort

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PORTS = range(31_000, 32_000)
MANY = 64 * 2**20


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write(b"the end")
    writer.close()


@asynccontextmanager
async def listening(speak: Speak, entries: Entries, **how: Any) -> AsyncIterator[Entry]:
    """A program, and a port that leads to it."""

    async def connect() -> LocalPort:
        return LocalPort(*await asyncio.open_connection("127.0.0.1", program.sockets[0].getsockname()[1]))

    program = await asyncio.start_server(speak, "127.0.0.1", 0)
    try:
        entry = await entries.listen(connect, **{"is_tls": False, "is_h2": False, "wanted_port": 0, **how})
        yield entry
        entry.close()
    finally:
        await entries.close()
        program.close()


async def rest(reader: asyncio.StreamReader) -> bytes | OSError:
    """All that comes, or how it was cut off."""
    try:
        return await reader.read()
    except OSError as error:
        return error


def plain() -> Entries:
    return Entries("127.0.0.1", "localhost", PORTS)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A certificate of localhost, and its key."""
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


async def test_bytes_go_both_ways_and_each_way_has_an_end_of_its_own() -> None:
    async with listening(echo, plain()) as entry:
        reader, writer = await asyncio.open_connection("127.0.0.1", entry.port)
        writer.write(b"first")
        assert await reader.readexactly(5) == b"first"
        writer.write(b"second")
        writer.write_eof()
        assert await rest(reader) == b"secondthe end"
        writer.close()


async def test_end_of_the_program_leaves_the_other_way_open() -> None:
    came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        came.set_result(await reader.read())
        writer.close()

    async with listening(speak, plain()) as entry:
        reader, writer = await asyncio.open_connection("127.0.0.1", entry.port)
        assert await reader.read() == b""
        writer.write(bytes(300_000))
        writer.write_eof()
        assert len(await came) == 300_000
        writer.close()


async def test_neither_side_is_read_further_than_the_other_takes() -> None:
    sent = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < MANY:
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536
        writer.close()

    async with listening(speak, plain()) as entry:
        client = socket.create_connection(("127.0.0.1", entry.port))
        client.setblocking(False)
        before = -1
        while before < sent:  # until it stands still
            before = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 32 * 2**20
        reader, writer = await asyncio.open_connection(sock=client)
        assert len(await reader.read()) == MANY
        writer.close()


async def test_nobody_there_and_a_program_that_dies_are_resets() -> None:
    async def refused() -> LocalPort:
        raise PlatformError(UNAVAILABLE, "nothing listens there")

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half")
        await reader.read(1)
        one = writer.get_extra_info("socket")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with listening(die, plain()) as entry:
        reader, writer = await asyncio.open_connection("127.0.0.1", entry.port)
        assert await reader.readexactly(4) == b"half"
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()
    entries = plain()
    entry = await entries.listen(refused, is_tls=False, is_h2=False, wanted_port=0)
    reader, writer = await asyncio.open_connection("127.0.0.1", entry.port)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    entry.close()


async def test_closing_resets_what_is_connected_and_listens_no_more() -> None:
    async with listening(echo, plain()) as entry:
        reader, writer = await asyncio.open_connection("127.0.0.1", entry.port)
        writer.write(b"x")
        await reader.readexactly(1)

        entry.close()

        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", entry.port)


async def test_server_that_dies_resets_its_clients() -> None:
    # What a kill does to the socket: it is closed, and nothing of ours runs.
    async with listening(echo, plain()) as entry:
        reader, writer = await asyncio.open_connection("127.0.0.1", entry.port)
        writer.write(b"x")
        await reader.readexactly(1)
        theirs = writer.get_extra_info("sockname")[1]
        ours = await accepted(entry.port, theirs)

        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0)
        writer.close()


async def accepted(port: int, peer: int) -> Any:
    for one in gc.get_objects():
        if isinstance(one, asyncio.StreamWriter) and one.get_extra_info("peername")[1] == peer:
            return one.get_extra_info("socket")
    raise AssertionError(port)


async def test_port_that_is_wanted_is_given_if_it_is_free_and_of_the_range() -> None:
    entries = plain()
    async with listening(echo, entries) as first:
        async with listening(echo, entries, wanted_port=first.port) as other:
            assert other.port != first.port
        async with listening(echo, entries, wanted_port=other.port) as again:
            assert again.port == other.port
        async with listening(echo, entries, wanted_port=22) as one:
            assert one.port in PORTS


async def test_no_port_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        entries = Entries("127.0.0.1", "localhost", range(port, port + 1))
        with pytest.raises(PlatformError, match=f"no port .* is free for a tunnel .{port} to {port}.; set SQUALL_TUNN"):
            async with listening(echo, entries):
                pass


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "CONNECTIONS_MAX", 1)
    async with listening(echo, plain()) as entry:
        reader, writer = await asyncio.open_connection("127.0.0.1", entry.port)
        writer.write(b"x")
        await reader.readexactly(1)
        more, _ = await asyncio.open_connection("127.0.0.1", entry.port)
        with pytest.raises(ConnectionResetError):
            await more.read()
        writer.write_eof()
        await reader.read()
        writer.close()


@pytest.mark.parametrize(("is_h2", "spoken"), [(False, "http/1.1"), (True, "h2")])
async def test_tls_ends_here_and_h2_is_offered_where_it_is_wanted(
    certificate: tuple[str, str], is_h2: bool, spoken: str
) -> None:
    entries = Entries("127.0.0.1", "localhost", PORTS, certificate)
    context = ssl.create_default_context(cafile=certificate[0])
    context.set_alpn_protocols(["h2", "http/1.1"])

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        writer.close()

    async with listening(speak, entries, is_tls=True, is_h2=is_h2) as entry:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", entry.port, ssl=context, server_hostname="localhost"
        )  # fmt: skip
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == spoken
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()


async def test_all_that_a_client_sent_by_tls_before_it_left_reaches_the_program(certificate: tuple[str, str]) -> None:
    came: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count = 0
        while data := await reader.read(65_536):
            count += len(data)
        writer.write(b"nobody reads this")
        came.set_result(count)
        writer.close()

    entries = Entries("127.0.0.1", "localhost", PORTS, certificate)
    context = ssl.create_default_context(cafile=certificate[0])
    async with listening(speak, entries, is_tls=True) as entry:
        _, writer = await asyncio.open_connection("127.0.0.1", entry.port, ssl=context, server_hostname="localhost")
        writer.write(bytes(3_000_000))
        await writer.drain()
        writer.close()
        assert await came == 3_000_000
