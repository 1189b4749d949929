"""Requests over the real port: what applications see, what clients see, and what becomes of either when one fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from hashlib import sha256
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from squall.protocol.web import ASGI, MESSAGE_BYTES_MAX, WINDOW_BYTES, WebSpec
from squall.server.api import listen
from squall.server.ingress.headers import OURS
from squall.server.model.proxy_token import StoredProxyToken
from tests.server.ingress.web_stage import WebStage, web_stage

pytestmark = pytest.mark.long


async def respond(send: Any, body: bytes, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers or []})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Any) -> bytes:
    body = b""
    while True:
        event = await receive()
        body += bytes(event.get("body", b""))
        if not event.get("more_body"):
            return body


async def mirror(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was asked."""
    body = await read(receive)
    said = {
        **{name: scope[name] for name in ("method", "path", "root_path", "scheme", "client")},
        "query": scope["query_string"].decode(),
        "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
        "body": len(body),
    }
    await respond(send, json.dumps(said).encode(), headers=[(b"connection", b"x-kept"), (b"x-kept", b"1")])


async def test_request_by_path_and_by_name_of_a_host() -> None:
    async with web_stage(mirror) as web, httpx.AsyncClient() as client:
        by_path = (await client.get(f"{web.url}/a%20b?c=d")).json()
        host = {"host": f"shop-site-dev.localhost:{web.port}"}
        by_host = (await client.post(f"http://127.0.0.1:{web.port}/x", headers=host, content=b"12345")).json()

    assert (by_path["path"], by_path["root_path"], by_path["query"]) == (
        "/w/shop-site-dev/a b", "/w/shop-site-dev", "c=d",
    )  # fmt: skip
    assert by_path["headers"]["x-forwarded-prefix"] == "/w/shop-site-dev"
    assert (by_host["method"], by_host["path"], by_host["root_path"], by_host["body"]) == ("POST", "/x", "", 5)
    assert by_host["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert by_host["headers"]["x-forwarded-proto"] == "http"
    assert by_host["headers"]["x-forwarded-host"] == host["host"]
    # Each way that a request may go: with a body, and without one.
    assert by_host["headers"]["host"] == host["host"]
    assert by_path["headers"].get("host") == f"127.0.0.1:{web.port}"


async def test_headers_of_a_connection_are_not_passed_on() -> None:
    async with web_stage(mirror) as web:
        raw = await web.raw(
            b"GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\n"
            b"X-Forwarded-For: 10.0.0.1\r\nModal-Key: wk-1\r\nModal-Secret: ws-1\r\nX-Kept: 1\r\n\r\n"
        )

    head, _, body = raw.partition(b"\r\n\r\n")
    seen = json.loads(body)["headers"]
    assert not {"connection", "x-mine", "te", "modal-key", "modal-secret"} & seen.keys()
    assert (seen["x-kept"], seen["x-forwarded-for"]) == ("1", "10.0.0.1, 127.0.0.1")
    assert b"connection: close" in head
    assert b"x-kept: 1" in head


async def test_label_that_there_is_not_says_which_there_are() -> None:
    async with web_stage(mirror) as web, httpx.AsyncClient() as client:
        found = await client.get(f"http://127.0.0.1:{web.port}/w/shop-sit-dev/")
        raw = await web.raw(b"GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", host="nobody.localhost")

    assert found.status_code == 404
    assert "there is shop-site-dev" in found.text
    assert raw.startswith(b"HTTP/1.1 404")


async def test_the_api_is_where_it_was() -> None:
    async with web_stage(mirror) as web, httpx.AsyncClient() as client:
        health = await client.get(f"http://127.0.0.1:{web.port}/healthz")
        elsewhere = await client.get(f"http://127.0.0.1:{web.port}/healthz", headers={"host": "evil.example"})

    assert (health.status_code, elsewhere.status_code) == (200, 403)


async def test_large_body_goes_through_in_pieces_and_no_more_than_the_application_takes() -> None:
    size = 8 * 2**20
    gate = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await gate.wait()
        await respond(send, str(len(await read(receive))).encode())

    async with web_stage(slow) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: shop-site-dev.localhost\r\nContent-Length: %d\r\n\r\n" % size)
        sending = asyncio.ensure_future(_send_all(writer, b"x" * size))
        await asyncio.sleep(0.3)
        [exchange] = web.exchanges.values()
        came = sum(len(event.get("body", b"")) for event in exchange._events)
        assert not sending.done()
        assert came <= 2 * WINDOW_BYTES
        gate.set()
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert b"200" in head
        assert int(await reader.read(20)) + 65_536 * 2 >= size
        writer.close()


async def _send_all(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def test_stream_comes_as_it_is_sent() -> None:
    gate = asyncio.Event()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
        await gate.wait()
        await send({"type": "http.response.body", "body": b"data: two\n\n"})

    async with web_stage(stream) as web, httpx.AsyncClient() as client, client.stream("GET", web.url) as response:
        pieces = response.aiter_raw()
        first = await anext(pieces)
        gate.set()
        rest = b"".join([piece async for piece in pieces])

    assert (first, rest) == (b"data: one\n\n", b"data: two\n\n")


async def test_download_that_nobody_reads_waits_in_the_application() -> None:
    sent = 0

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(64):
            await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
            sent += 2**20
        await send({"type": "http.response.body", "body": b""})

    async with web_stage(endless) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port, limit=2**16)
        writer.write(b"GET / HTTP/1.1\r\nHost: shop-site-dev.localhost\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.3)
        assert sent < 24 * 2**20
        total = 0
        async with asyncio.timeout(20):
            while total < 64 * 2**20:
                total += len(await reader.read(2**20))
        writer.close()


async def test_client_that_leaves_is_seen() -> None:
    async with web_stage(mirror) as web:

        async def waits(scope: Any, receive: Any, send: Any) -> None:
            web.seen.append("began")
            while (await receive())["type"] != "http.disconnect":
                pass
            web.seen.append("gone")

        web.application = waits
        _, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: shop-site-dev.localhost\r\n\r\n")
        await web.seen_at_least(1)
        writer.close()

        assert await web.seen_at_least(2) == ["began", "gone"]


async def test_application_that_raises_before_its_response_is_500() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("secret cause")

    async with web_stage(fails) as web, httpx.AsyncClient() as client:
        response = await client.get(web.url)

    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["squall-request"].startswith("in-")


@pytest.mark.parametrize("length", [b"", b"Content-Length: 100\r\n"])
async def test_response_that_breaks_off_is_not_taken_for_whole(length: bytes) -> None:
    headers = [(b"content-length", b"100")] if length else []

    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await asyncio.sleep(0.05)
        raise RuntimeError("in the middle")

    async with web_stage(breaks) as web, httpx.AsyncClient() as client:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.get(web.url)


@pytest.mark.parametrize("is_begun", [False, True])
async def test_container_that_dies_with_a_request(is_begun: bool) -> None:
    async with web_stage(mirror) as web:

        async def hangs(scope: Any, receive: Any, send: Any) -> None:
            if is_begun:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"half", "more_body": True})
            web.seen.append(len(web.stage.node.guests))
            await asyncio.Event().wait()

        web.application = hangs
        asking = asyncio.ensure_future(web.raw(b"GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"))
        await web.seen_at_least(1)
        await asyncio.sleep(0.05)
        for guest in list(web.stage.node.guests.values()):
            guest.exit(None, 9)
        try:
            raw = await asking
        except ConnectionResetError:
            raw = b"HTTP/1.1 200 reset"

    if is_begun:
        assert raw.startswith(b"HTTP/1.1 200")
        assert not raw.endswith(b"0\r\n\r\n")
    else:
        # It is not tried again: what it has done is its client's to do once more.
        assert raw.startswith(b"HTTP/1.1 502")
        assert len(web.seen) == 1


async def test_requests_of_one_turn_share_a_frame_and_run_beside_each_other() -> None:
    both = asyncio.Barrier(2)

    async def meets(scope: Any, receive: Any, send: Any) -> None:
        await both.wait()
        await respond(send, b"met")

    async with web_stage(meets) as web, httpx.AsyncClient() as client:
        first, second = await asyncio.wait_for(asyncio.gather(client.get(web.url), client.get(web.url)), 10)

    assert (first.text, second.text) == ("met", "met")
    assert len(web.stage.node.started) == 1


async def test_function_without_concurrency_takes_one_at_a_time() -> None:
    running = most = 0

    async def counts(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        await respond(send, b"ok")

    async with web_stage(counts, max_inputs=1, max_containers=1) as web, httpx.AsyncClient() as client:
        await asyncio.gather(*(client.get(web.url) for _ in range(5)))

    assert most == 1


async def test_client_that_leaves_while_its_request_waits_takes_it_along() -> None:
    async with web_stage(mirror, max_inputs=1, max_containers=1) as web:
        gate = asyncio.Event()

        async def holds(scope: Any, receive: Any, send: Any) -> None:
            web.seen.append(scope["path"])
            await gate.wait()
            await respond(send, b"ok")

        web.application = holds
        first = asyncio.ensure_future(web.raw(b"GET /1 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"))
        await web.seen_at_least(1)
        _, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"GET /2 HTTP/1.1\r\nHost: shop-site-dev.localhost\r\n\r\n")
        [dispatcher] = web.stage.plane.apps.dispatchers.values()
        await web.stage.until(lambda: dispatcher.queued)
        writer.close()
        await web.stage.until(lambda: not dispatcher.queued)
        gate.set()
        assert b"200" in await first

    assert web.seen == ["/1"]


async def test_proxy_token_is_asked_for() -> None:
    async with web_stage(mirror, WebSpec(ASGI, is_proxy_auth_required=True)) as web, httpx.AsyncClient() as client:
        web.stage.plane.web.opens = lambda key, secret, environment: (key, secret) == ("wk-1", "ws-1")

        refused = await client.get(web.url)
        wrong = await client.get(web.url, headers={"Modal-Key": "wk-1", "Modal-Secret": "ws-2"})
        let_in = await client.get(web.url, headers={"Squall-Key": "wk-1", "Squall-Secret": "ws-1"})

    assert (refused.status_code, wrong.status_code, let_in.status_code) == (401, 401, 200)


KEY, SECRET = b"Modal-Key: wk-1\r\n", b"Modal-Secret: ws-1\r\n"
OTHER_KEY, OTHER_SECRET = KEY.replace(b"Modal", b"Squall"), SECRET.replace(b"Modal", b"SQUALL")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (KEY + SECRET, 200),
        (OTHER_SECRET + OTHER_KEY, 200),
        (KEY.upper() + SECRET, 401),
        (b"", 401),
        (KEY, 401),
        (SECRET, 401),
        (KEY + SECRET.replace(b"1", b"2"), 401),
        (KEY + SECRET.replace(b"ws-1", b""), 401),
        (KEY + SECRET.replace(b"1", b"\xe4\xff"), 401),
        (KEY.replace(b"1", b"\xff") + SECRET, 401),
        (KEY + OTHER_SECRET, 401),
        (KEY + KEY + SECRET, 401),
        (KEY + SECRET + SECRET, 401),
        (KEY + SECRET.replace(b"1", b"2") + SECRET, 401),
        (KEY + SECRET + OTHER_KEY, 401),
        (KEY + SECRET + OTHER_KEY + OTHER_SECRET, 401),
        (KEY.replace(b"-Key", b"_Key") + SECRET, 401),
    ],
    ids=[
        "it", "by our names", "another id", "none", "no secret", "no id", "another secret", "empty", "no ascii",
        "an id of no ascii", "mixed", "two ids", "the same twice", "twice", "two ids of different names", "two pairs",
        "underscore",
    ],
)  # fmt: skip
async def test_a_proxy_token_is_given_once(headers: bytes, status: int) -> None:
    async with web_stage(mirror, WebSpec(ASGI, is_proxy_auth_required=True)) as web:
        web.stage.plane.proxy_tokens._tokens["wk-1"] = StoredProxyToken("wk-1", sha256(b"ws-1").digest(), "", 0.0, "")
        raw = await web.raw(b"GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n" + headers + b"\r\n")

    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), raw
    if status == 200:
        assert "ws-1" not in body.decode()
        assert not OURS & {name.encode() for name in json.loads(body)["headers"]}
    else:
        assert b"www-authenticate: Modal-Key" in head


async def test_a_proxy_token_is_taken_away_also_where_none_is_asked_for() -> None:
    async with web_stage(mirror) as web:
        seen = [
            await web.raw(b"%b / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n%b\r\n" % (method, KEY + OTHER_SECRET))
            for method in (b"GET", b"DELETE", b"POST")
        ]

    for raw in seen:
        assert raw.startswith(b"HTTP/1.1 200"), raw
        assert b"wk-1" not in raw
        assert b"ws-1" not in raw


async def test_a_websocket_needs_the_token_too() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": str([name for name, _ in scope["headers"]])})
        await send({"type": "websocket.close"})

    async with web_stage(echo, WebSpec(ASGI, is_proxy_auth_required=True)) as web:
        web.stage.plane.proxy_tokens._tokens["wk-1"] = StoredProxyToken("wk-1", sha256(b"ws-1").digest(), "", 0.0, "")
        url = web.url.replace("http", "ws")
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers={"Modal-Key": "wk-1"})
        async with connect(url, additional_headers={"Modal-Key": "wk-1", "Modal-Secret": "ws-1"}) as socket:
            seen = await socket.recv()

    assert refused.value.response.status_code == 401
    assert "modal" not in str(seen)


async def test_long_request_is_waited_for_elsewhere() -> None:
    gate = asyncio.Event()

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await respond(send, b"at last")

    async with web_stage(late, answer_s=0.1) as web, httpx.AsyncClient() as client:
        sent = await client.get(f"{web.url}/x?a=1")
        assert sent.status_code == 303
        again = await client.get(httpx.URL(web.url).join(sent.headers["location"]))
        assert again.status_code == 303
        gate.set()
        at_last = await client.get(httpx.URL(web.url).join(again.headers["location"]))
        unknown = httpx.URL(web.url).join(again.headers["location"].replace("rq-", "rq-x"))
        another = await client.get(unknown)

    assert (at_last.status_code, at_last.text) == (200, "at last")
    assert sent.headers["location"].startswith("/w/shop-site-dev/x?a=1&")
    assert another.text == "at last"  # a request of its own


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"].endswith("/no"):
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept", "subprotocol": "chat" if "chat" in scope["subprotocols"] else None})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        if event.get("text") == "bye":
            await send({"type": "websocket.close", "code": 4001, "reason": "bye"})
            return
        if event.get("text") == "fail":
            raise RuntimeError("in the middle")
        await send({"type": "websocket.send", **{key: event[key] for key in ("text", "bytes") if event.get(key)}})


def socket_url(web: WebStage, path: str = "") -> str:
    return web.url.replace("http", "ws", 1) + path


async def test_messages_of_a_websocket_both_ways() -> None:
    async with web_stage(echo) as web, connect(socket_url(web), subprotocols=["chat"], max_size=None) as client:  # type: ignore[list-item]
        assert client.subprotocol == "chat"
        for message in ("grüße", b"\x00\xff", "x" * 3 * 2**20):
            await client.send(message)
            assert await client.recv() == message
        pong = await client.ping()
        await asyncio.wait_for(pong, 5)
        await client.send("bye")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await client.recv()

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "bye")


async def test_websocket_that_is_refused_fails_or_sends_too_much() -> None:
    async with web_stage(echo) as web:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(socket_url(web, "/no"))
        with pytest.raises(websockets.InvalidStatus) as unknown:
            await connect(f"ws://127.0.0.1:{web.port}/w/nobody/")
        async with connect(socket_url(web)) as client:
            with contextlib.suppress(websockets.ConnectionClosed):
                await client.send(b"x" * (MESSAGE_BYTES_MAX + 1))
            with pytest.raises(websockets.ConnectionClosed) as too_much:
                await client.recv()
        async with connect(socket_url(web)) as client:
            await client.send("fail")
            with pytest.raises(websockets.ConnectionClosed) as failed:
                await client.recv()

    assert (refused.value.response.status_code, unknown.value.response.status_code) == (403, 404)
    assert too_much.value.rcvd is not None
    assert too_much.value.rcvd.code == 1009
    assert failed.value.rcvd is not None
    assert failed.value.rcvd.code == 1011


async def test_client_that_closes_a_websocket_is_seen_with_its_code() -> None:
    async with web_stage(mirror) as web:

        async def notes(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            web.seen.append(await receive())

        web.application = notes
        async with connect(socket_url(web)) as client:
            await client.close(4002, "enough")
        [event] = await web.seen_at_least(1)

    assert (event["type"], event["code"]) == ("websocket.disconnect", 4002)


async def test_app_that_is_stopped_ends_what_runs_and_is_found_no_more() -> None:
    from squall.protocol.app import AppStop, AppStopped
    from tests.server.ingress.web_stage import APP

    async with web_stage(echo) as web, httpx.AsyncClient() as http:
        async with connect(socket_url(web)) as client:
            await web.stage.client.ask("AppStop", AppStop(APP), AppStopped)
            with pytest.raises(websockets.ConnectionClosed):
                await client.recv()
        found = await http.get(web.url)

    assert found.status_code == 404


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: HOST\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: HOST\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: HOST\r\nHost: other.localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"GET /\x80 HTTP/1.1\r\nHost: HOST\r\n\r\n",
        b"NONSENSE\r\n\r\n",
    ],
)
async def test_malformed_requests_reach_no_application(request_: bytes) -> None:
    async with web_stage(mirror) as web:

        async def notes(scope: Any, receive: Any, send: Any) -> None:
            web.seen.append(scope)
            await respond(send, b"")

        web.application = notes
        raw = await web.raw(request_)

        assert raw.startswith(b"HTTP/1.1 400")
        assert web.seen == []


async def test_head_has_no_body_and_options_pass() -> None:
    async with web_stage(mirror) as web, httpx.AsyncClient() as client:
        head = await client.head(web.url)
        options = await client.options(web.url)

    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    assert options.json()["method"] == "OPTIONS"


TRAILED = b"POST /w/shop-site-dev/ HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n0\r\n"


async def test_trailers_of_a_request_are_no_headers() -> None:
    async with web_stage(mirror) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        for _ in range(2):
            writer.write(TRAILED + b"X-Sum: 5\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            found = json.loads(await reader.readexactly(length))
            assert found["body"] == 5
            assert "x-sum" not in found["headers"]
            assert found["headers"]["x-forwarded-for"] == "127.0.0.1"
        writer.close()


async def unasked(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no request of that kind is to reach an application")


UPGRADE = b"Connection: upgrade\r\nUpgrade: h2c\r\n"


async def test_other_protocol_is_not_spoken_and_takes_no_body() -> None:
    async with web_stage(mirror) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        for more in (UPGRADE, b""):
            writer.write(b"GET /a HTTP/1.1\r\nHost: shop-site-dev.localhost\r\n" + more + b"\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert b'"path": "/a"' in await reader.readexactly(length)
        writer.close()
        web.application = unasked
        for body in (b"Content-Length: 5\r\n\r\nwords", b"Transfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n0\r\n\r\n"):
            refused = await web.raw(b"POST / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n" + UPGRADE + body)
            assert refused.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("piece", [b"X-Sum: 5\r\n" * 1_000, b"x" * 10_000], ids=["many", "long"])
async def test_endless_trailers_are_cut_off(piece: bytes) -> None:
    async with web_stage(mirror) as web:
        _, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(TRAILED + b"X: ")
        sent = 0
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while sent < 2_000:
                writer.write(piece)
                await writer.drain()
                sent += 1
        assert sent < 2_000
        writer.close()


async def test_connections_have_a_bound_and_those_that_are_there_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "CONNECTIONS_MAX", 3)
    async with web_stage(mirror) as web:
        kept = [await asyncio.open_connection("127.0.0.1", web.port) for _ in range(3)]
        for _ in range(2):
            for method in (b"GET", b"POST"):
                for reader, writer in kept:
                    assert await _is_answered(reader, writer, method)
            reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
            said = b""
            with contextlib.suppress(TimeoutError):
                said = await asyncio.wait_for(reader.read(), 10)
            assert said.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            writer.close()
        # One that leaves makes room for another one.
        kept[0][1].close()
        await kept[0][1].wait_closed()
        async with asyncio.timeout(10):
            is_answered = False
            while not is_answered:
                reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
                is_answered = await _is_answered(reader, writer, b"GET")
                writer.close()
        for _, writer in kept[1:]:
            writer.close()


async def _is_answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: bytes) -> bool:
    with contextlib.suppress(ConnectionResetError, BrokenPipeError, asyncio.IncompleteReadError):
        writer.write(method + b" / HTTP/1.1\r\nHost: shop-site-dev.localhost\r\nContent-Length: 0\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        return b"200 OK" in head
    return False


async def test_connection_is_kept_for_the_next_request() -> None:
    async with web_stage(mirror) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nHost: shop-site-dev.localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert len(await reader.readexactly(length)) == length
        writer.close()


async def test_body_that_the_application_never_takes_is_no_ones() -> None:
    async def ignores(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"no thanks", status=413)

    async with web_stage(ignores) as web:
        with socket.create_connection(("127.0.0.1", web.port)) as connection:
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            head = b"POST / HTTP/1.1\r\nHost: shop-site-dev.localhost\r\nContent-Length: 100000000\r\n\r\n"
            await loop.sock_sendall(connection, head + b"x" * 100_000)
            assert (await loop.sock_recv(connection, 100)).startswith(b"HTTP/1.1 413")
