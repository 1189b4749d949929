"""`squall dict`, with a real server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import squall
from squall.cli import main, tables
from squall.exception import AlreadyExistsError, InvalidError, NotFoundError
from squall.sdk import _client
from tests.sdk.real_server import RealServer


@pytest.fixture
def server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealServer]:
    monkeypatch.setenv("SQUALL_DATA_DIR", str(data_dir))
    monkeypatch.delenv("SQUALL_SERVER_URL", raising=False)
    with RealServer(data_dir) as real:
        yield real
        _client.close()


@pytest.fixture
def cache(server: RealServer) -> squall.Dict:
    return squall.Dict.from_name("cache", create_if_missing=True)


def invoke(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main.squall, ["dict", *arguments], input=typed)


def test_a_dict_is_made_listed_and_deleted(server: RealServer) -> None:
    made = invoke("create", "cache")
    assert (made.exit_code, "squall.Dict.from_name('cache')" in made.stdout) == (0, True)
    assert isinstance(invoke("create", "cache").exception, AlreadyExistsError)
    assert isinstance(invoke("create", "a b").exception, InvalidError)

    (listed,) = json.loads(invoke("list", "--json").stdout)
    assert listed["name"] == "cache"
    assert listed.keys() == {"name", "created_at", "created_by"}
    assert invoke("delete", "cache", typed="n\n").exit_code == 1
    assert invoke("delete", "cache", "--yes").exit_code == 0
    assert isinstance(invoke("delete", "cache", "--yes").exception, NotFoundError)
    assert invoke("delete", "cache", "--yes", "--allow-missing").exit_code == 0
    assert json.loads(invoke("list", "--json").stdout) == []


@pytest.mark.parametrize("kind", ["dict", "queue", "volume", "secret"])
def test_a_list_that_ends_where_there_may_be_more_says_so(
    server: RealServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def ran(*arguments: str) -> Result:
        result = CliRunner().invoke(main.squall, [kind, *arguments])
        assert result.exit_code == 0, result.output
        return result

    monkeypatch.setattr(tables, "LIST_MAX", 2)
    values = ["A=1"] if kind == "secret" else []
    ran("create", "one", *values)
    assert ran("list").stderr == ""
    for name in ("two", "three"):
        ran("create", name, *values)
    for listed in (ran("list"), ran("list", "--json")):
        assert listed.stderr == "(The first 2 are shown; there may be more.)\n"
    assert len(json.loads(listed.stdout)) == 2


def test_a_value_is_shown_and_a_missing_key_is_told(cache: squall.Dict) -> None:
    cache["k"] = {"a": [1, "x"]}

    assert invoke("get", "cache", "k").stdout == "{'a': [1, 'x']}\n"
    missing = invoke("get", "cache", "l")
    assert (missing.exit_code, "dict cache has no key 'l'" in missing.output) == (1, True)
    assert isinstance(invoke("get", "cach", "k").exception, NotFoundError)


def test_entries_are_listed_as_many_as_wanted(cache: squall.Dict) -> None:
    cache.update({f"key-{number}": f"value-{number}" for number in range(30)})

    few, all_of_them = invoke("items", "cache", "3"), invoke("items", "cache", "--all")
    assert len(few.stdout.splitlines()) == 4
    assert "There are more than 3" in few.stderr
    assert len(all_of_them.stdout.splitlines()) == 31
    assert len(invoke("items", "cache").stdout.splitlines()) == 21
    assert "There are more" not in invoke("items", "cache", "30").stderr
    rows = json.loads(invoke("items", "cache", "--all", "--json").stdout)
    assert {row["key"]: row["value"] for row in rows} == dict(cache.items())
    assert "'key-1'" in invoke("items", "cache", "--all", "--repr").stdout
    assert invoke("items", "cache", "0").exit_code == 2


class Vanishing:
    """A class that whoever reads does not have."""


def test_what_cannot_be_read_here_is_shown_as_that(cache: squall.Dict, monkeypatch: pytest.MonkeyPatch) -> None:
    cache["bad"] = Vanishing()
    cache["good"] = "value\x1b[31m"
    monkeypatch.delattr(sys.modules[__name__], "Vanishing")

    shown = invoke("items", "cache")

    assert shown.exit_code == 0
    assert "<dict cache, key 'bad': cannot read a value" in shown.stdout
    assert "value" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_a_dict_is_cleared_after_a_question(cache: squall.Dict) -> None:
    cache["k"] = 1

    assert invoke("clear", "cache", typed="n\n").exit_code == 1
    assert cache.len() == 1
    assert invoke("clear", "cache", typed="y\n").exit_code == 0
    assert cache.len() == 0


def test_without_a_server_there_is_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUALL_DATA_DIR", str(data_dir))

    assert json.loads(invoke("list", "--json").stdout) == []
    for arguments in (("get", "cache", "k"), ("items", "cache"), ("clear", "cache"), ("delete", "cache")):
        ended = invoke(*arguments)
        assert (ended.exit_code, "no server runs" in ended.output) == (1, True)
