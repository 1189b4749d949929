"""Who gets in, and who does not: in pairs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from squall.main.websocket import Dialer
from squall.protocol.errors import PlatformError
from squall.server.api.guard import LOOPBACK_NAMES
from squall.server.api.http import make_app
from squall.server.api.listen import HEAD_BYTES_MAX, serving
from tests.server.api.control_double import EchoControl

pytestmark = pytest.mark.long

TOKEN = "for-tests"
GOOD = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def url() -> AsyncIterator[str]:
    control = EchoControl()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(make_app(control, TOKEN, LOOPBACK_NAMES | {"squall.example"}), listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    for peer in control.peers:
        await peer.close()


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=15, trust_env=False) as made:
        yield made


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost"},
        {"Host": "LOCALHOST:1234"},
        {"Host": "[::1]:7855"},
        {"Host": "squall.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "https://squall.example"},
        {"Authorization": f"bearer {TOKEN}"},
    ],
)
async def test_token_and_a_known_name_open(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    response = await client.post("/api/v1/AppList", headers=GOOD | headers)

    assert response.status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xff"]
)
async def test_without_the_token_nothing_opens(client: httpx.AsyncClient, header: str) -> None:
    for method, path in (("POST", "/api/v1/AppList"), ("GET", "/api/v1/openapi.json"), ("GET", "/nothing")):
        response = await client.request(method, path, headers=[(b"Authorization", header.encode("latin-1"))])

        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "unauthenticated"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:7855"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost@evil.example"},
    ],
)
async def test_foreign_names_are_refused_with_the_token_too(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    for path in ("/api/v1/AppList", "/healthz"):
        response = await client.post(path, headers=GOOD | headers)

        assert response.status_code == 403


async def test_health_needs_no_token(client: httpx.AsyncClient) -> None:
    response = await client.get("/healthz")

    assert (response.status_code, response.text) == (200, "ok\n")


async def test_websocket_needs_the_token(url: str) -> None:
    async with Dialer(url, "wrong") as dialer:
        with pytest.raises(PlatformError, match="SQUALL_TOKEN") as caught:
            await dialer.open("/api/v1/channel")

    assert caught.value.code == "unauthenticated"


async def test_websocket_from_a_foreign_name_is_refused(url: str) -> None:
    address = "ws" + url.removeprefix("http") + "/api/v1/channel"

    with pytest.raises(InvalidStatus) as caught:
        await connect(address, additional_headers=GOOD, origin=Origin("http://evil.example"), proxy=None)

    assert caught.value.response.status_code == 403


async def test_nobody_at_the_other_end_is_unavailable() -> None:
    async with Dialer("http://127.0.0.1:1", TOKEN) as dialer:
        with pytest.raises(PlatformError) as caught:
            await dialer.open("/api/v1/channel")

    assert caught.value.code == "unavailable"


async def test_endless_headers_are_cut_off(url: str) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as flood:
        flood.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(flood, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        sent = 0
        answer = b""
        try:
            while sent < 40 * HEAD_BYTES_MAX:
                await loop.sock_sendall(flood, b"x" * 16_384)
                sent += 16_384
            answer = await loop.sock_recv(flood, 1_000)
        except (ConnectionResetError, BrokenPipeError):
            answer = b"cut"

    assert answer in (b"", b"cut") or b"431" in answer
    assert sent < 40 * HEAD_BYTES_MAX or answer == b"" or b"431" in answer
