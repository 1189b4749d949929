"""`squall workspace`, with a real server: a token's secret is shown once, and kept by nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import squall
from squall.cli import main
from squall.sdk import _client
from tests.sdk.real_server import RealServer


@pytest.fixture(autouse=True)
def server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealServer]:
    monkeypatch.setenv("SQUALL_DATA_DIR", str(data_dir))
    monkeypatch.delenv("SQUALL_SERVER_URL", raising=False)
    with RealServer(data_dir) as real:
        yield real
        _client.close()


def invoke(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main.squall, ["workspace", "proxy-tokens", *arguments], input=typed)


def create(*arguments: str) -> tuple[str, str]:
    made = json.loads(invoke("create", "--json", *arguments).stdout)
    return made["token_id"], made["token_secret"]


def listed(*arguments: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(invoke("list", "--json", *arguments).stdout)
    return rows


def test_a_token_is_made_and_shown_as_headers(server: RealServer, data_dir: Path) -> None:
    ended = invoke("create", "--name", "ci")

    headers = dict(line.split(": ") for line in ended.stdout.splitlines())
    assert headers.keys() == {"Modal-Key", "Modal-Secret"}
    key, secret = headers["Modal-Key"], headers["Modal-Secret"]
    assert key.startswith("wk-")
    assert secret.startswith("ws-")
    assert server.plane.web.opens(key, secret, "")
    assert secret not in invoke("list").output + invoke("list", "--json").output
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    assert any(key.encode() in path.read_bytes() for path in files)
    assert not any(secret.encode() in path.read_bytes() for path in files)


def test_tokens_are_listed_with_what_they_open() -> None:
    squall.Environment.objects.create("dev")
    everywhere, _ = create()
    scoped, _ = create("--name", "dev only")
    assert invoke("allow", scoped, "dev").exit_code == 0

    assert [(row["token_id"], row["name"], row["environments"]) for row in listed()] == [
        (scoped, "dev only", ["dev"]), (everywhere, None, None),
    ]  # fmt: skip
    assert [row["token_id"] for row in listed("-e", "main")] == [everywhere]
    table = invoke("list").stdout
    assert "all" in table
    assert "dev only" in table
    assert invoke("revoke", scoped, "dev").exit_code == 0
    assert listed()[0]["environments"] == []
    assert "none" in invoke("list").stdout


def test_a_token_is_renamed_and_deleted() -> None:
    token_id, _ = create("--name", "before")

    assert invoke("update", token_id, "name", "after").exit_code == 0
    assert listed()[0]["name"] == "after"
    assert invoke("delete", token_id, typed="n\n").exit_code == 1
    assert len(listed()) == 1
    assert invoke("delete", token_id, "--yes").exit_code == 0
    assert listed() == []
    again = invoke("delete", token_id, "--yes")
    assert (again.exit_code, "there is no proxy token" in str(again.exception)) == (1, True)


def test_what_is_wrong_is_said() -> None:
    token_id, secret = create()

    for arguments in (("delete", secret, "--yes"), ("allow", "ci", "main"), ("update", token_id, "name", "a\nb")):
        ended = invoke(*arguments)
        assert ended.exit_code == 1
        assert secret not in ended.output + str(ended.exception)
    assert "opens every environment" in str(invoke("revoke", token_id, "main").exception)
    assert invoke("update", token_id, "secret", "x").exit_code == 2
