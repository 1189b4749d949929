"""Whatever comes over a connection: the server answers it or closes it, logs no error of its own, and goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.ingress.test_ingress import mirror, respond
from tests.server.ingress.web_stage import WebStage, web_stage

pytestmark = pytest.mark.long

TOKENS = st.sampled_from(
    [
        b"GET ",
        b"POST ",
        b"FETCH ",
        b"/",
        b"/w/shop-site-dev/",
        b"/w/../../etc",
        b"/w/%2e%2e/",
        b"*",
        b"http://x/",
        b"?" + b"q" * 20_000,
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b" HTTP/9.9\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b"\x80\xff",
        b"Host: shop-site-dev.localhost\r\n",
        b"Host: localhost\r\n",
        b"Host: x\r\nHost: y\r\n",
        b"Host:\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"zz\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\n",
        b"Sec-WebSocket-Version: 13\r\n",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
        b"Expect: 100-continue\r\n",
        b"X: y\r\n z\r\n",
        b"X" * 70_000,
        b"hello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"\x81\x85\x00\x00\x00\x00hello",
        b"\x88\x02\x03\xe8",
    ]
)
PIECES = st.lists(st.one_of(TOKENS, st.binary(max_size=40)), max_size=12)


async def answers(web: WebStage, pieces: list[bytes]) -> bytes:
    """What comes back when these are sent one by one and nothing follows."""
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 10)
    except OSError:
        return b""
    finally:
        writer.transport.abort()


@settings(max_examples=80)
@given(connections=st.lists(PIECES, min_size=1, max_size=4))
def test_nonsense_is_answered_or_closed_and_harms_nobody(connections: list[list[bytes]]) -> None:
    async def check() -> None:
        async with web_stage(mirror) as web:
            for pieces in connections:
                said = await answers(web, pieces)
                assert not said or said.startswith(b"HTTP/1.1 "), said[:100]
            whole = await web.raw(b"GET /after HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n")
            assert whole.startswith(b"HTTP/1.1 200")

    asyncio.run(check())


FIRST = [b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n"]
SECOND = [
    b"Content-Length: 6\r\n", b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding:\tchunked\r\n",
    b"Content-Length: +4\r\n", b"Content_Length: 0\r\n", b"",
]  # fmt: skip
BODIES = [
    b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: shop-site-dev.localhost\r\n\r\n", b"4\r\nabcd\r\n0\r\n\r\n",
    b"abcdGET /smuggled HTTP/1.1\r\n\r\n",
]  # fmt: skip


@settings(max_examples=60)
@given(first=st.sampled_from(FIRST), second=st.sampled_from(SECOND), body=st.sampled_from(BODIES))
def test_two_readings_of_one_request_are_none(first: bytes, second: bytes, body: bytes) -> None:
    """Whoever stands before us may read it in another way: what is ambiguous is refused, and ends the connection."""
    seen: list[str] = []

    async def notes(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await respond(send, b"ok")

    async def check() -> None:
        async with web_stage(notes) as web:
            head = b"POST /first HTTP/1.1\r\nHost: shop-site-dev.localhost\r\n" + first + second + b"\r\n"
            await answers(web, [head + body])

    asyncio.run(check())
    is_ambiguous = first.lower().startswith(b"transfer") and b"ontent-Length" in second
    assert not (is_ambiguous and seen), "a request that says its length twice was passed on"
