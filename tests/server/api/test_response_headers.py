"""What responses of the API tell browsers, and that those of web functions do not."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from squall.server.api.http import make_app
from squall.server.api.listen import serving
from squall.server.api.response_headers import ALWAYS, UNDER_TLS, ResponseHeaders
from tests.certificates import make_certificate
from tests.server.api.control_double import EchoControl
from tests.server.ingress.web_stage import web_stage

pytestmark = pytest.mark.long

TOKEN = "for-tests"
WANTED = {name.decode(): value.decode() for name, value in ALWAYS}
HSTS = UNDER_TLS[0][0].decode()


def of_ours(response: Any) -> dict[str, str]:
    return {name: response.headers[name] for name in (*WANTED, HSTS) if name in response.headers}


async def test_every_response_of_the_api_has_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(make_app(EchoControl(), TOKEN), listener), httpx.AsyncClient(timeout=15) as client:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            headers = {"Authorization": f"Bearer {TOKEN}"}
            responses = [
                await client.get(f"{url}/healthz"),
                await client.get(f"{url}/api/v1/openapi.json", headers=headers),
                await client.post(f"{url}/api/v1/AppList", headers=headers),
                await client.post(f"{url}/api/v1/LogRead", headers=headers, json={"app": "hello"}),
                await client.post(f"{url}/api/v1/AppList"),
                await client.get(f"{url}/nowhere", headers=headers),
                await client.get(f"{url}/healthz", headers={"Host": "evil.example"}),
            ]
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{url.replace('http', 'ws')}/api/v1/channel")

    assert [one.status_code for one in responses] == [200, 200, 200, 200, 401, 404, 403]
    for response in (*responses, refused.value.response):
        assert of_ours(response) == WANTED, response


async def test_under_tls_browsers_are_to_stay_there(tmp_path: Path) -> None:
    cert, key = await asyncio.to_thread(make_certificate, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with (
            serving(make_app(EchoControl(), TOKEN), listener, cert, key),
            httpx.AsyncClient(verify=ssl.create_default_context(cafile=cert), timeout=15) as client,
        ):
            response = await client.get(f"https://127.0.0.1:{listener.getsockname()[1]}/healthz")

    assert of_ours(response) == {**WANTED, HSTS: "max-age=31536000"}


async def test_responses_of_web_functions_are_as_their_applications_say() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"SAMEORIGIN")]})
        await send({"type": "http.response.body", "body": b""})

    async with web_stage(application) as web, httpx.AsyncClient(timeout=15) as client:
        responses = [await client.get(f"{web.url}/"), await client.post(f"{web.url}/", content=b"x")]

    for response in responses:
        assert of_ours(response) == {"x-frame-options": "SAMEORIGIN"}


async def test_what_a_response_says_itself_stays() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Referrer-Policy", b"origin")]})

    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        raise AssertionError("nobody asks")

    await ResponseHeaders(application)({"type": "http", "scheme": "http"}, receive, send)

    names = [name for name, _ in sent[0]["headers"]]
    assert names == [b"Referrer-Policy", b"x-content-type-options", b"x-frame-options"]
