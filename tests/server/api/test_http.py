"""Every method of a client over HTTP: what it takes, what it gives, what it refuses."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from squall.main.websocket import Dialer
from squall.protocol.app import AppGet, AppInfo
from squall.protocol.blob import BlobPut
from squall.protocol.codec import JsonCodec
from squall.protocol.errors import PlatformError
from squall.protocol.methods import EVENT, METHODS
from squall.protocol.peer import Peer
from squall.server.api.http import REQUEST_BYTES_MAX, TWINS, make_app
from squall.server.api.listen import serving
from tests.server.api.control_double import EchoControl

pytestmark = pytest.mark.long

TOKEN = "for-tests"


@pytest.fixture
async def control() -> EchoControl:
    return EchoControl()


@pytest.fixture
async def url(control: EchoControl) -> AsyncIterator[str]:
    """Where the application is served."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(make_app(control, TOKEN), listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    for peer in control.peers:
        await peer.close()


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Knows the token."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=url + "/api/v1", headers=headers, timeout=15, trust_env=False) as made:
        yield made


async def test_unary_method_answers_json(client: httpx.AsyncClient, control: EchoControl) -> None:
    response = await client.post("/AppGet", json={"app": "hello", "invented_later": 1})

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json()["functions"] == {"square": "fu-1"}
    assert control.asked == [("AppGet", AppGet("hello"), b"")]


async def test_nothing_posted_means_all_defaults(client: httpx.AsyncClient) -> None:
    response = await client.post("/AppList")

    assert (response.status_code, response.json()) == (200, {"apps": [], "is_cut": False})


async def test_bodies_travel_in_base64_both_ways(client: httpx.AsyncClient, control: EchoControl) -> None:
    chunk = {"sha256": "ab" * 32, "size_bytes": 3, "body": base64.b64encode(b"\xff\x00\x01").decode()}

    put = await client.post("/BlobPut", json=chunk)
    got = await client.post("/BlobGet", json={"sha256": "ab" * 32})

    assert put.status_code == 200
    assert control.asked[0] == ("BlobPut", BlobPut("ab" * 32, 3), b"\xff\x00\x01")
    assert got.json() == {"size_bytes": 3, "offset": 0, "body": base64.b64encode(b"\x00\xff\x01").decode()}


@pytest.mark.parametrize("body", ["ä", "AA=", "A A=", "AA==\n"], ids=["no ascii", "short", "space", "line"])
async def test_bodies_that_are_no_base64_are_refused(
    client: httpx.AsyncClient, control: EchoControl, body: str
) -> None:
    response = await client.post("/BlobPut", json={"sha256": "ab" * 32, "size_bytes": 1, "body": body})

    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid")
    assert control.asked == []


async def test_json_that_is_too_deep_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/AppGet", content=b'{"app": ' + b"[" * 100_000)

    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid")


async def test_event_has_no_twin(client: httpx.AsyncClient, control: EchoControl) -> None:
    response = await client.post("/CallClose", json={"call_id": "fc-1"})

    assert response.status_code == 404
    assert control.asked == []


async def test_stream_is_one_value_a_line(client: httpx.AsyncClient) -> None:
    response = await client.post("/LogRead", json={"app": "ap-1"})

    lines = [json.loads(line) for line in response.text.splitlines()]
    assert response.headers["content-type"] == "application/x-ndjson"
    assert [line["entries"][0]["text"] for line in lines] == ["line 0", "line 1", "line 2"]


async def test_items_of_a_stream_carry_their_bodies(client: httpx.AsyncClient) -> None:
    response = await client.post("/ContainerExec", json={"container_id": "ct-1", "argv": ["ls"]})

    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [(line["exit_code"], base64.b64decode(line["body"])) for line in lines] == [(None, b"\xffout"), (3, b"")]


async def test_stream_that_fails_at_once_has_its_status(client: httpx.AsyncClient) -> None:
    response = await client.post("/LogRead", json={"app": "missing"})

    assert response.status_code == 404
    assert response.json() == {"error": {"code": "not_found", "message": "no app missing"}}


async def test_stream_that_fails_later_says_so_in_its_last_line(client: httpx.AsyncClient) -> None:
    response = await client.post("/LogRead", json={"app": "breaks"})

    lines = [json.loads(line) for line in response.text.splitlines()]
    assert (response.status_code, len(lines)) == (200, 4)
    assert lines[3] == {"error": {"code": "unavailable", "message": "the node is gone"}}


async def test_reader_that_leaves_ends_the_stream(client: httpx.AsyncClient, control: EchoControl) -> None:
    async with client.stream("POST", "/LogRead", json={"app": "ap-1", "is_following": True}) as response:
        await anext(response.aiter_lines())

    await asyncio.wait_for(control.stream_ended.wait(), 10)


async def test_error_has_the_status_of_its_code(client: httpx.AsyncClient) -> None:
    response = await client.post("/AppGet", json={"app": "other"})

    assert response.status_code == 404
    assert response.json() == {"error": {"code": "not_found", "message": "no app other"}}


async def test_unexpected_error_keeps_its_secrets(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        response = await client.post("/AppGet", json={"app": "explode"})

    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "rq-" in response.text
    assert "secret" not in response.text
    assert "a secret of the server" in caplog.text


async def test_request_that_finds_a_full_disk_says_so(client: httpx.AsyncClient) -> None:
    response = await client.post("/AppGet", json={"app": "fill"})

    assert response.status_code == 429
    assert response.json()["error"]["code"] == "exhausted"
    assert "No space left on device" in response.text
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("method", "content"),
    [
        ("AppGet", b"{"),
        ("AppGet", b"[]"),
        ("AppGet", b"{}"),
        ("AppGet", b'{"app": 7}'),
        ("AppGet", b"\xff"),
        ("BlobPut", b'{"sha256": "a", "size_bytes": 1, "body": "not base64!"}'),
        ("BlobPut", b'{"sha256": "a", "size_bytes": 1, "body": 7}'),
        ("LogRead", b'{"tail": "all"}'),
    ],
)
async def test_what_does_not_fit_is_invalid(client: httpx.AsyncClient, method: str, content: bytes) -> None:
    response = await client.post("/" + method, content=content)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid"
    assert method in response.json()["error"]["message"]


@pytest.mark.parametrize("method", ["Nothing", "PutOutputs", "ContainerStart", "Boot", "MountGet"])
async def test_methods_that_are_not_a_clients_do_not_exist(client: httpx.AsyncClient, method: str) -> None:
    response = await client.post("/" + method, json={})

    assert response.status_code == 404


async def test_every_method_of_a_client_has_its_twin_and_no_event_has() -> None:
    asked = {name: one for name, one in METHODS.items() if (one.asked_by, one.asked) == ("client", "server")}

    assert set(TWINS) == {name for name, one in asked.items() if one.shape != EVENT}
    assert len(TWINS) > 20


async def test_request_over_the_limit_is_refused(client: httpx.AsyncClient, control: EchoControl) -> None:
    response = await client.post("/AppGet", content=b" " * (REQUEST_BYTES_MAX + 1))

    assert response.status_code == 413
    assert "BlobPut" in response.json()["error"]["message"]
    assert control.asked == []


async def test_frames_travel_over_websocket(url: str) -> None:
    async with Dialer(url, TOKEN) as dialer:
        peer = Peer(await dialer.open("/api/v1/channel"), JsonCodec())
        peer.start()

        reply = await peer.request("AppGet", AppGet("hello"), AppInfo)
        with pytest.raises(PlatformError, match="no app other"):
            await peer.request("AppGet", AppGet("other"), AppInfo)

        assert reply.name == "hello"
        await peer.close()


async def test_leaving_ends_connections_soon(control: EchoControl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with serving(make_app(control, TOKEN), listener), asyncio.timeout(20):
            dialer = Dialer(url, TOKEN)
            peer = Peer(await dialer.open("/api/v1/channel"), JsonCodec())
            peer.start()

    await asyncio.wait_for(peer.wait_closed(), 5)
    await dialer.__aexit__(None, None, None)
    for one in control.peers:
        await one.close()
