"""The short way of requests: what it keeps, what it forgets, and where it gives up."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from squall.protocol.web import WebRequest, encode_request
from squall.server.api import listen
from squall.server.dispatch.function import dispatcher
from tests.server.ingress.test_ingress import mirror, respond
from tests.server.ingress.web_stage import web_stage

pytestmark = pytest.mark.long

HEAD = b"Host: shop-site-dev.localhost\r\n\r\n"


async def answer_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


@pytest.mark.parametrize("behind", [b"", b"\r\n"])
async def test_connection_that_asks_nothing_more_is_closed_and_one_that_waits_is_not(
    behind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "KEEP_ALIVE_S", 0.05)
    may_answer = asyncio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await may_answer.wait()
        await respond(send, b"done")

    async with web_stage(waits, max_inputs=10) as web:
        slow, asking = await asyncio.open_connection("127.0.0.1", web.port)
        asking.write(b"GET /first HTTP/1.1\r\n" + HEAD)
        await answer_of(slow)
        asking.write(b"GET /slow HTTP/1.1\r\n" + HEAD)
        for _ in range(2):
            idle, once = await asyncio.open_connection("127.0.0.1", web.port)
            once.write(b"GET / HTTP/1.1\r\n" + HEAD + behind)
            await answer_of(idle)
            assert await asyncio.wait_for(idle.read(), 10) == b""
            once.close()
        assert not slow.at_eof()
        may_answer.set()
        assert (await asyncio.wait_for(answer_of(slow), 10))[1] == b"done"
        assert await asyncio.wait_for(slow.read(), 10) == b""
        asking.close()


async def test_request_that_it_fails_for_goes_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(listen._log, "exception", said.append)
    async with web_stage(mirror) as web, httpx.AsyncClient() as client:

        def breaks(*arguments: Any) -> None:
            raise RuntimeError("broken")

        web.ingress.lane._web = type("Web", (), {"find": breaks, "host_suffix": ".localhost"})()
        response = await client.get(f"{web.url}/a?b=c")

    assert response.status_code == 200
    assert (response.json()["path"], response.json()["query"]) == ("/w/shop-site-dev/a", "b=c")
    assert len(said) == 1


async def test_response_that_turns_out_long_is_of_its_own_request() -> None:
    """The next one has come over the same connection, and been read, when the first begins to stream."""

    async def streams(scope: Any, receive: Any, send: Any) -> None:
        text = f"{scope['method']} {scope['path']}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text, "more_body": True})
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b" end"})

    async with web_stage(streams) as web:
        raw = await web.raw(
            b"GET /first HTTP/1.1\r\nHost: HOST\r\n\r\nHEAD /second HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"
        )

    first, _, second = raw.partition(b"\r\n0\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200")
    assert b"GET /first" in first
    assert b" end" in first
    assert second.startswith(b"HTTP/1.1 200")
    assert b"second" not in second


async def test_heads_of_responses_are_told_apart() -> None:
    async def varies(scope: Any, receive: Any, send: Any) -> None:
        length = int(scope["query_string"])
        await respond(send, b"x" * length, headers=[(b"x-kind", b"%d" % (length % 2))])

    async with web_stage(varies) as web, httpx.AsyncClient() as client:
        for length in (1, 2, 3, 0, 3, 1):
            response = await client.get(f"{web.url}?{length}")
            assert (len(response.content), response.headers["x-kind"]) == (length, str(length % 2))
            assert response.headers["content-length"] == str(length)


async def test_length_that_is_not_the_bodys_is_not_passed_on() -> None:
    async def lies(scope: Any, receive: Any, send: Any) -> None:
        length = scope["query_string"] or b"3"
        await respond(send, b"one", headers=[(b"content-length", length)])

    async with web_stage(lies) as web, httpx.AsyncClient() as client:
        assert (await client.get(web.url)).text == "one"
        for length in ("4", "2"):
            response: object = "broken off"
            try:
                response = await client.get(f"{web.url}?{length}", timeout=2)
            except (httpx.RemoteProtocolError, httpx.ReadError):
                pass
            except httpx.ReadTimeout:
                response = "said to have more"
            assert response == "broken off"
        assert (await client.get(web.url)).text == "one"


async def test_many_requests_of_one_turn_are_handed_out_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their container is at work while the others are read."""
    handed: list[int] = []
    kept = dispatcher.Dispatcher.hand_out

    def hand_out(self: Any, container: Any, count: int, *more: Any) -> None:
        handed.append(count)
        kept(self, container, count, *more)

    monkeypatch.setattr(dispatcher.Dispatcher, "hand_out", hand_out)
    async with web_stage(mirror, max_inputs=100) as web:
        _, first = await asyncio.open_connection("127.0.0.1", web.port)
        first.write(b"GET / HTTP/1.1\r\n" + HEAD)
        await web.stage.until(lambda: handed == [1])
        container = next(iter(web.stage.plane.fleet.containers.values()))
        await web.stage.until(lambda: not container.held)
        route: Any = web.stage.plane.web.find("shop-site-dev")
        call = web.stage.plane.web.requests._call_for(route.dispatcher, "", is_proxied=False)
        before, count = call.input_count, dispatcher.SEND_AT
        for index in range(before, before + count + 3):
            route.dispatcher.put_one(call, index, encode_request(WebRequest("http", "GET", "http", "/"), b""))
            assert (len(handed) == 2) is (index >= before + count - 1)
        first.close()
        await web.stage.until(lambda: handed == [1, count, 3])
