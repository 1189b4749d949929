"""The server's TCP port: the HTTP twin by any client, and the SDK over WebSocket, both with the token only."""

from __future__ import annotations

import json

import httpx

from tests.e2e.installation import Installation


def url_of(squall: Installation) -> str:
    return str(json.loads((squall.data_dir / "server.json").read_text())["url"])


def token_of(squall: Installation) -> str:
    return (squall.data_dir / "token").read_text().strip()


def test_http_answers_whoever_has_the_token(squall: Installation) -> None:
    url = url_of(squall)
    headers = {"Authorization": f"Bearer {token_of(squall)}"}

    status = httpx.post(f"{url}/api/v1/ServerStatus", headers=headers, json={})
    apps = httpx.post(f"{url}/api/v1/AppList", headers=headers, json={"limit": 1})
    document = httpx.get(f"{url}/api/v1/openapi.json", headers=headers)

    assert status.json()["data_dir"] == str(squall.data_dir)
    assert len(apps.json()["apps"]) == 1
    assert "/api/v1/CallSpawn" in document.json()["paths"]


def test_http_refuses_whoever_has_not(squall: Installation) -> None:
    url = url_of(squall)

    without = httpx.post(f"{url}/api/v1/ServerStatus", json={})
    wrong = httpx.post(f"{url}/api/v1/ServerStop", headers={"Authorization": "Bearer x"}, json={"is_forced": True})
    foreign = httpx.post(
        f"{url}/api/v1/ServerStatus",
        headers={"Authorization": f"Bearer {token_of(squall)}", "Host": "evil.example"},
        json={},
    )

    assert without.status_code == 401
    assert wrong.status_code == 401
    assert foreign.status_code in (400, 403, 421)


def test_sdk_reaches_the_server_by_url_and_token(squall: Installation) -> None:
    ended = squall.run("square.py", environ={"SQUALL_SERVER_URL": url_of(squall), "SQUALL_TOKEN": token_of(squall)})

    assert ended.code == 0, ended
    assert "49" in ended.out


def test_sdk_without_token_is_told_what_to_set(squall: Installation) -> None:
    ended = squall.run("square.py", environ={"SQUALL_SERVER_URL": url_of(squall)})

    assert ended.code == 1, ended
    assert "SQUALL_TOKEN" in ended.err
