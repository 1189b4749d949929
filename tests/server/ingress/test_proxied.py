"""Requests for programs that listen at a port: real ones, of this machine in the place of a container's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
import websockets
from websockets.asyncio.client import connect

from squall.protocol.web import WEB_SERVER, WebSpec
from tests.server.ingress.test_ingress import echo, mirror, respond, socket_url
from tests.server.ingress.web_stage import Application, WebStage, web_stage

pytestmark = pytest.mark.long


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("a guest is told nothing of what is proxied")


@asynccontextmanager
async def program(application: Application) -> AsyncIterator[int]:
    """An application under uvicorn, as people run theirs; the port."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_config=None, lifespan="off"))
    serving = asyncio.ensure_future(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await serving


@asynccontextmanager
async def speaking(speak: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[int]:
    """A program that says what it is made to say; the port."""

    async def until_left(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await speak(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(until_left, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def proxied(port: int, **more: Any) -> AsyncIterator[WebStage]:
    async with web_stage(nothing, WebSpec(WEB_SERVER, port=port), **more) as web:
        yield web


async def test_program_sees_the_request_from_its_root() -> None:
    async with program(mirror) as port, proxied(port) as web, httpx.AsyncClient() as client:
        seen = (await client.post(f"{web.url}/a%20b?c=d", content=b"12345")).json()

    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("POST", "/a b", "c=d", 5)
    assert seen["headers"]["x-forwarded-prefix"] == "/w/shop-site-dev"
    assert seen["headers"]["host"] == f"127.0.0.1:{web.port}"


async def test_connection_to_the_program_is_used_again() -> None:
    clients = set()

    async def notes(scope: Any, receive: Any, send: Any) -> None:
        clients.add(scope["client"])
        await respond(send, b"ok")

    async with program(notes) as port, proxied(port) as web, httpx.AsyncClient() as client:
        for _ in range(5):
            assert (await client.get(web.url)).text == "ok"

    assert len(clients) == 1


async def test_connection_that_the_program_has_closed_meanwhile_is_made_anew() -> None:
    count = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()

    async with speaking(once) as port, proxied(port) as web, httpx.AsyncClient() as client:
        for _ in range(3):
            assert (await client.get(web.url)).text == "ok"
            await asyncio.sleep(0.1)

    assert count == 3


async def test_large_bodies_both_ways_in_pieces() -> None:
    size = 16 * 2**20

    async def doubles(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        total = 0
        while True:
            event = await receive()
            total += len(event["body"])
            await send({"type": "http.response.body", "body": event["body"], "more_body": True})
            if not event["more_body"]:
                break
        await send({"type": "http.response.body", "body": str(total).encode()})

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // 65_536):
            yield b"x" * 65_536

    async with program(doubles) as port, proxied(port) as web, httpx.AsyncClient(timeout=30) as client:
        response = await client.post(web.url, content=pieces())

    assert len(response.content) == size + len(str(size))
    assert response.content.endswith(str(size).encode())


async def test_download_that_nobody_reads_waits_in_the_program() -> None:
    sent = 0

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
            sent += 2**20

    async with program(endless) as port, proxied(port) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port, limit=2**16)
        writer.write(b"GET / HTTP/1.1\r\nHost: shop-site-dev.localhost\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.5)
        assert sent < 40 * 2**20
        writer.close()


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_responses_without_a_body(method: str) -> None:
    async def empty(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "HEAD":
            await respond(send, b"12345", headers=[(b"content-length", b"5")])
        else:
            await send({"type": "http.response.start", "status": 304, "headers": [(b"etag", b"x")]})
            await send({"type": "http.response.body", "body": b""})

    async with program(empty) as port, proxied(port) as web, httpx.AsyncClient() as client:
        for _ in range(2):
            response = await client.request(method, web.url)
            assert response.content == b""

    assert response.headers.get("content-length") == ("5" if method == "HEAD" else None)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nuntil the end", 200),
        (b"not http at all\r\n\r\n", 502),
        (b"", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400_000, 502),
    ],
)
async def test_what_a_program_may_say(said: bytes, status: int) -> None:
    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()
        writer.close()

    async with speaking(says) as port, proxied(port) as web, httpx.AsyncClient() as client:
        response = await client.get(web.url)

    assert response.status_code == status
    if status == 200:
        assert response.text == "until the end"


async def test_trailers_of_a_response_are_dropped() -> None:
    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n0\r\nX-Sum: 5\r\n\r\n")

    async with speaking(says) as port, proxied(port) as web:
        for _ in range(2):
            raw = await web.raw(b"GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n")
            assert b"words" in raw
            assert b"x-sum" not in raw.lower()


@pytest.mark.parametrize("piece", [b"X-Sum: 5\r\n" * 1_000, b"x" * 10_000], ids=["many", "long"])
async def test_endless_trailers_of_a_response_are_cut_off(piece: bytes) -> None:
    sent = 0

    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n0\r\nX: ")
        while sent < 5_000:
            writer.write(piece)
            await writer.drain()
            sent += 1

    async with speaking(says) as port, proxied(port) as web, httpx.AsyncClient() as client:
        with pytest.raises(httpx.TransportError):
            await client.get(web.url)

    assert sent < 5_000


async def test_response_that_breaks_off_is_not_taken_for_whole() -> None:
    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    async with speaking(breaks) as port, proxied(port) as web, httpx.AsyncClient() as client:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.get(web.url)


async def test_container_in_which_nothing_listens_is_ended_and_others_are_tried() -> None:
    async with proxied(1) as web, httpx.AsyncClient(timeout=30) as client:
        response = await client.get(web.url)

        assert (response.status_code, len(web.stage.node.started)) == (503, 3)


async def test_client_that_leaves_is_seen_by_the_program() -> None:
    async def waits(scope: Any, receive: Any, send: Any) -> None:
        seen.append("began")
        while (await receive())["type"] != "http.disconnect":
            pass
        seen.append("gone")

    seen: list[str] = []
    async with program(waits) as port, proxied(port) as web:
        web.seen = seen
        _, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: shop-site-dev.localhost\r\n\r\n")
        await web.seen_at_least(1)
        writer.close()

        assert await web.seen_at_least(2) == ["began", "gone"]
        [container] = web.stage.plane.fleet.containers.values()
        await web.stage.until(lambda: not container.held)


async def test_request_over_its_time_is_504() -> None:
    async def hangs(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(30)

    async with program(hangs) as port, proxied(port, timeout_s=0.5) as web, httpx.AsyncClient() as client:
        response = await client.get(web.url)

    assert response.status_code == 504


async def test_messages_of_a_websocket_both_ways() -> None:
    async with program(echo) as port, proxied(port) as web:
        async with connect(socket_url(web), subprotocols=["chat"], max_size=None) as client:  # type: ignore[list-item]
            assert client.subprotocol == "chat"
            for message in ("grüße", b"\x00\xff", "x" * 3 * 2**20):
                await client.send(message)
                assert await client.recv() == message
            await client.send("bye")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.recv()
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(socket_url(web, "/no"))

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "bye")
    assert refused.value.response.status_code == 403


async def test_client_that_closes_a_websocket_is_seen_with_its_code() -> None:
    seen: list[Any] = []

    async def notes(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(await receive())

    async with program(notes) as port, proxied(port) as web:
        web.seen = seen
        async with connect(socket_url(web)) as client:
            await client.close(4002, "enough")
        [event] = await web.seen_at_least(1)

    assert (event["type"], event["code"]) == ("websocket.disconnect", 4002)


async def test_container_that_ends_takes_its_websockets_along() -> None:
    async with program(echo) as port, proxied(port) as web, connect(socket_url(web)) as client:
        await client.send("x")
        assert await client.recv() == "x"
        for guest in list(web.stage.node.guests.values()):
            guest.exit(None, 9)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await client.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
