"""`squall secret`, with a real server: it takes values in, and shows none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import squall
from squall.cli import main
from squall.exception import Error
from squall.sdk import _client
from tests.sdk.real_server import RealServer

VALUE = "very-secret"


@pytest.fixture(autouse=True)
def server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealServer]:
    monkeypatch.setenv("SQUALL_DATA_DIR", str(data_dir))
    monkeypatch.delenv("SQUALL_SERVER_URL", raising=False)
    with RealServer(data_dir) as real:
        yield real
        _client.close()


def invoke(*arguments: str, typed: str | None = None) -> Result:
    ended = CliRunner().invoke(main.squall, ["secret", *arguments], input=typed)
    assert VALUE not in ended.output + str(ended.exception)
    return ended


def has(*names: str, name: str = "token") -> bool:
    """Whether it has just these variables."""
    try:
        squall.Secret.from_name(name, required_keys=["NONE_SUCH"]).hydrate()
    except Error as error:
        return f"it has {', '.join(names) or 'nothing'}" in str(error)
    return False


def test_a_secret_is_made_of_values_and_shown_how_to_use() -> None:
    ended = invoke("create", "token", f"USER=ann={VALUE}", "HOST=")

    assert ended.exit_code == 0, ended.output
    assert "squall.Secret.from_name('token')" in ended.stdout
    assert "os.environ['USER']" in ended.stdout
    assert has("HOST", "USER")


def test_a_value_is_read_from_a_pipe() -> None:
    assert invoke("create", "token", "TOKEN=-", "USER=ann", typed=f"{VALUE}\n").exit_code == 0
    assert has("TOKEN", "USER")

    two = invoke("create", "other", "A=-", "B=-", typed=VALUE)
    assert (two.exit_code, "only one value can be read" in two.output) == (2, True)


def test_values_are_read_of_files(tmp_path: Path) -> None:
    dotenv, values = tmp_path / ".env", tmp_path / "values.json"
    dotenv.write_text(f"# here\nTOKEN='{VALUE}'\nNOTHING\n")
    values.write_text(json.dumps({"A": VALUE, "B": "ä"}))

    assert invoke("create", "token", "--from-dotenv", str(dotenv)).exit_code == 0
    assert has("TOKEN")
    assert invoke("create", "other", "--from-json", str(values)).exit_code == 0
    assert has("A", "B", name="other")


@pytest.mark.parametrize("text", [VALUE, f'["{VALUE}"]', f'{{"A": ["{VALUE}"]}}', "{"])
def test_a_file_of_something_else_is_refused_without_what_is_in_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "values.json"
    path.write_text(text)

    ended = invoke("create", "token", "--from-json", str(path))

    assert ended.exit_code == 1
    assert str(path) in ended.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "give KEY=VALUE"),
        ((VALUE,), "an argument is no KEY=VALUE"),
        ((f"={VALUE}",), "is no name of a variable"),
        (("A=1", "--from-json", "/dev/null"), "one of these"),
    ],
)
def test_what_is_wrong_is_told(arguments: tuple[str, ...], why: str) -> None:
    ended = invoke("create", "token", *arguments)

    assert (ended.exit_code, why in ended.output) == (2, True), ended.output


def test_one_that_is_there_is_replaced_by_force_only() -> None:
    invoke("create", "token", "A=1", "B=2")

    again = invoke("create", "token", "C=3")
    assert again.exit_code != 0
    assert "--force" in str(again.exception) + again.output
    assert has("A", "B")
    assert invoke("create", "token", "C=3", "--force").exit_code == 0
    assert has("C")


def test_secrets_are_listed_and_deleted() -> None:
    invoke("create", "first", "A=1")
    invoke("create", "second", "A=1")

    rows = json.loads(invoke("list", "--json").stdout)
    assert [row["name"] for row in rows] == ["second", "first"]
    assert set(rows[0]) == {"name", "created_at", "created_by", "last_used_at"}
    assert rows[0]["last_used_at"] is None

    assert invoke("delete", "first").exit_code != 0
    assert invoke("delete", "first", typed="n\n").exit_code == 1
    assert invoke("delete", "first", "--yes").exit_code == 0
    missing = invoke("delete", "first", "-y")
    assert missing.exit_code != 0
    assert invoke("delete", "first", "-y", "--allow-missing").exit_code == 0
    assert [row["name"] for row in json.loads(invoke("list", "--json").stdout)] == ["second"]


def test_the_key_is_changed(data_dir: Path) -> None:
    invoke("create", "token", "A=1")
    before = (data_dir / "secret.key").read_bytes()

    ended = invoke("rotate-key")

    assert "Encrypted 1 secret anew." in ended.output
    assert (data_dir / "secret.key").read_bytes() != before
    squall.Secret.from_name("token").update({"B": "2"})
