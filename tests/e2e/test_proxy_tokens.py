"""Proxy tokens: who has one reaches web functions that ask for one, until it is taken away; nobody keeps its secret."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping

import httpx
import pytest

from tests.e2e.installation import PROGRAMS, Installation
from tests.e2e.test_http import url_of

PLACES = ("guarded-site", "guarded-plain")


def deploy(squall: Installation, *options: str) -> None:
    ended = squall.command("deploy", *options, str(PROGRAMS / "guarded.py"))
    assert ended.code == 0, ended


@pytest.fixture
def web(squall: Installation) -> Iterator[str]:
    """The app is deployed; where the server is."""
    deploy(squall)
    yield url_of(squall)
    assert squall.command("app", "stop", "guarded", "-y").code == 0


def tokens(squall: Installation, *arguments: str) -> str:
    ended = squall.command("workspace", "proxy-tokens", *arguments)
    assert ended.code == 0, ended
    return str(ended.out)


def create(squall: Installation) -> dict[str, str]:
    """As headers."""
    made = dict(line.split(": ") for line in tokens(squall, "create", "--name", "test").splitlines())
    assert made.keys() == {"Modal-Key", "Modal-Secret"}
    return made


def statuses(web: str, headers: Mapping[str, str], label: str = "") -> list[int]:
    places = (label,) if label else PLACES
    return [httpx.get(f"{web}/w/{place}/", headers=headers, timeout=60).status_code for place in places]


def test_who_has_a_token_is_let_in_until_it_is_deleted(web: str, squall: Installation) -> None:
    made = create(squall)
    key, secret = made["Modal-Key"], made["Modal-Secret"]

    assert statuses(web, {}) == [401, 401]
    for wrong in (
        {"Modal-Key": key}, {"Modal-Secret": secret}, {"Modal-Key": key, "Modal-Secret": secret[:-1]},
        {"Modal-Key": key.swapcase(), "Modal-Secret": secret}, {"Modal-Key": key, "Squall-Secret": secret},
        {"Authorization": f"Bearer {secret}"},
    ):  # fmt: skip
        assert statuses(web, wrong) == [401, 401], wrong
    assert statuses(web, made) == [200, 200]
    assert statuses(web, {"Squall-Key": key, "Squall-Secret": secret}) == [200, 200]
    for place in PLACES:
        seen = httpx.get(f"{web}/w/{place}/", headers={**made, "X-Kept": "1"}, timeout=60).json()
        assert seen["x-kept"] == "1"
        assert not {"modal-key", "modal-secret"} & seen.keys()
    assert json.loads(tokens(squall, "list", "--json"))[0]["last_used_at"]

    tokens(squall, "delete", key, "--yes")

    assert statuses(web, made) == [401, 401]


def test_a_token_that_is_scoped_opens_that_environment_only(web: str, squall: Installation) -> None:
    assert squall.command("environment", "create", "guests").code == 0
    try:
        made = create(squall)
        key = made["Modal-Key"]
        deploy(squall, "--env", "guests")
        there = "guests--guarded-site"
        assert statuses(web, made, there) == [200]

        tokens(squall, "allow", key, "guests")
        assert (statuses(web, made, there), statuses(web, made, "guarded-site")) == ([200], [401])
        tokens(squall, "revoke", key, "guests")
        assert statuses(web, made, there) == [401]
        tokens(squall, "delete", key, "--yes")
    finally:
        assert squall.command("environment", "delete", "guests", "--yes").code == 0


def files_with(squall: Installation, text: str) -> list[str]:
    """Of the data directory and the logs in it; what is mounted there is not of it."""
    device = squall.data_dir.stat().st_dev
    found = []
    for folder, folders, names in os.walk(squall.data_dir):
        folders[:] = [one for one in folders if os.lstat(os.path.join(folder, one)).st_dev == device]
        for path in (os.path.join(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):  # the server is at work
                kind = os.lstat(path)
                if stat.S_ISREG(kind.st_mode) and kind.st_dev == device and _has(path, text.encode()):
                    found.append(path)
    return found


def _has(path: str, text: bytes) -> bool:
    end = b""
    with open(path, "rb") as file:
        while piece := file.read(2**22):
            if text in end + piece:
                return True
            end = piece[-len(text) :]
    return False


def test_secrets_are_kept_nowhere_and_tokens_outlive_the_server(
    make_installation: Callable[[Mapping[str, str]], Installation],
) -> None:
    squall = make_installation({})
    deploy(squall)
    gone, made = create(squall), create(squall)
    web = url_of(squall)
    assert statuses(web, made) == statuses(web, gone) == [200, 200]
    tokens(squall, "delete", gone["Modal-Key"], "--yes")
    assert statuses(web, gone) == [401, 401]
    assert "asked with" in squall.command("app", "logs", "guarded").out

    assert squall.command("server", "stop", "--force").code == 0
    for one in (gone, made):
        assert files_with(squall, one["Modal-Secret"]) == []
    assert files_with(squall, made["Modal-Key"])
    assert squall.command("server", "start").code == 0

    web = url_of(squall)
    assert (statuses(web, made), statuses(web, gone)) == ([200, 200], [401, 401])
    assert files_with(squall, made["Modal-Secret"]) == []
