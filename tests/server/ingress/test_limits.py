"""What clients may ask of the server, and for how long: the limits of docs/web.md."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from squall.protocol.web import ASGI, WebSpec
from squall.server.api import listen
from squall.server.dispatch.web import requests
from tests.server.ingress.test_ingress import echo, mirror, respond, socket_url
from tests.server.ingress.web_stage import web_stage

pytestmark = pytest.mark.long

HEAD = b"GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n"


async def test_own_domain_leads_to_its_function_and_others_nowhere() -> None:
    spec = WebSpec(ASGI, custom_domains=("api.example.com",))
    async with web_stage(mirror, spec) as web:
        own = await web.raw(HEAD + b"\r\n", host="API.example.com:443")
        other = await web.raw(HEAD + b"\r\n", host="other.example.com")

    assert own.startswith(b"HTTP/1.1 200")
    assert b'"root_path": ""' in own
    assert not other.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /%s HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n" % (b"x" * 16_383), 200),
        (b"GET /%s HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n" % (b"x" * 16_384), 414),
        (b"GET /?%s HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n" % (b"x" * 16_384), 414),
        (HEAD + b"X: %s\r\n\r\n" % (b"x" * 60_000), 200),
    ],
)
async def test_path_has_a_limit_and_headers_have_another(head: bytes, status: int) -> None:
    async with web_stage(mirror) as web:
        assert (await web.raw(head)).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("line", [b"X: %s" % (b"x" * 70_000), b"X: x\r\n" * 12_000])
async def test_headers_over_their_limit_are_431(line: bytes) -> None:
    async with web_stage(mirror) as web:
        assert (await web.raw(HEAD + line)).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("is_first", [True, False])
async def test_head_that_comes_too_slowly_ends_its_connection(is_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "HEAD_S", 0.2)
    async with web_stage(mirror) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        if not is_first:
            writer.write(b"GET / HTTP/1.1\r\nHost: shop-site-dev.localhost\r\n\r\n")
            found = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(found.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        ended = asyncio.ensure_future(reader.read())
        writer.write(b"GET / HTTP/1.1\r\nHost: shop-site-dev.localhost\r\n")
        sent = 0
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while not ended.done() and sent < 1_000:
                writer.write(b"X: x\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
                sent += 1
        assert await ended == b""
        assert sent < 1_000
        writer.close()


async def test_so_many_requests_wait_and_the_next_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "WAITING_MAX", 3)
    gate = asyncio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        web.seen.append(scope["path"])
        await gate.wait()
        await respond(send, b"done")

    async with web_stage(waits, max_inputs=1, max_containers=1) as web, httpx.AsyncClient(timeout=20) as client:
        running = asyncio.ensure_future(client.get(web.url))
        await web.seen_at_least(1)
        asked = [asyncio.ensure_future(client.get(f"{web.url}/{number}")) for number in range(10)]
        refused = []
        for one in asyncio.as_completed(asked):
            refused.append(await one)
            if len(refused) == 7:
                gate.set()
        assert (await running).status_code == 200

    busy = [one for one in refused if one.status_code == 503]
    assert len(busy) == 7
    assert {int(one.headers["retry-after"]) for one in busy} == {5}
    assert [one.text for one in refused if one.status_code == 200] == ["done"] * 3


async def test_request_over_its_time_is_504_or_breaks_off() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].endswith("/begun"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await asyncio.Event().wait()

    async with web_stage(slow, timeout_s=0.3) as web, httpx.AsyncClient(timeout=20) as client:
        assert (await client.get(web.url)).status_code == 504
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.get(f"{web.url}/begun")


async def test_websocket_over_its_time_is_closed() -> None:
    async with web_stage(echo, timeout_s=0.3) as web, connect(socket_url(web)) as client:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await asyncio.wait_for(client.recv(), 20)

    assert closed.value.rcvd is None or closed.value.rcvd.code != 1000
