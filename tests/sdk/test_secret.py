"""Secrets without a name: where their values come from, and where those never are."""

from __future__ import annotations

from pathlib import Path

import pytest

import squall
from squall.exception import InvalidError, NotFoundError
from squall.protocol.function import Definition
from squall.protocol.guest import SOCKET_PATH as AGENT_SOCKET
from squall.protocol.guest import Boot
from squall.sdk import _container
from tests.sdk.double import ServerDouble


@pytest.fixture
def in_container() -> object:
    """This process takes itself for a container's."""
    _container.enter(Boot("ct-1", "ap-1", "x", "fu-1", "f", Definition("file", "x", "f")), AGENT_SOCKET, "token")
    yield
    _container.leave()


def test_values_of_a_dictionary_are_those_at_that_time() -> None:
    given: dict[str, str | None] = {"A": "1", "NONE": None}
    secret = squall.Secret.from_dict(given)
    given["A"] = "2"

    assert secret.values() == {"A": "1"}
    assert squall.Secret.from_dict().values() == {}


def test_what_is_no_text_is_refused_without_its_value() -> None:
    with pytest.raises(InvalidError, match="'A' must be strings") as caught:
        squall.Secret.from_dict({"A": 12345})  # type: ignore[dict-item]
    assert "12345" not in str(caught.value)
    with pytest.raises(InvalidError, match="takes a dictionary of strings, not list"):
        squall.Secret.from_dict(["A"])  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="cannot be made directly"):
        squall.Secret("A")


def test_variables_of_this_process_are_taken_and_missing_ones_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_HERE", "s3cret")

    assert squall.Secret.from_local_environ(["TOKEN_HERE"]).values() == {"TOKEN_HERE": "s3cret"}
    with pytest.raises(InvalidError, match="NOT_A, NOT_B not set here"):
        squall.Secret.from_local_environ(["TOKEN_HERE", "NOT_A", "NOT_B"])
    with pytest.raises(InvalidError, match="give a list of names"):
        squall.Secret.from_local_environ("TOKEN_HERE")  # type: ignore[arg-type]


def test_a_file_is_searched_for_upwards_and_read_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    secret = squall.Secret.from_dotenv()
    (tmp_path / ".env").write_text("# of this project\nTOKEN='s3 cret'\nEMPTY=\nNOTHING\n")
    (tmp_path / "a" / "other.env").write_text("TOKEN=other\n")

    assert secret.values() == {"TOKEN": "s3 cret", "EMPTY": ""}
    assert squall.Secret.from_dotenv(inner / "program.py").values()["TOKEN"] == "s3 cret"
    assert squall.Secret.from_dotenv(str(inner), filename="other.env").values() == {"TOKEN": "other"}


def test_a_file_that_is_nowhere_is_named(tmp_path: Path) -> None:
    secret = squall.Secret.from_dotenv(tmp_path, filename="no-such.env")

    with pytest.raises(NotFoundError, match=rf"no file 'no-such.env' in {tmp_path} or above"):
        secret.values()


def test_containers_read_nothing_of_their_own(in_container: object, tmp_path: Path) -> None:
    assert squall.Secret.from_local_environ(["NOT_SET_ANYWHERE"]).values() == {}
    assert squall.Secret.from_dotenv(tmp_path, filename="no-such.env").values() == {}


def test_values_are_shown_nowhere() -> None:
    secret = squall.Secret.from_dict({"TOKEN": "very-secret"})
    image = squall.Image.debian_slim("3.11").run_commands("true", secrets=[secret])

    assert "very-secret" not in f"{secret} {secret!r} {secret.__dict__} {image!r} {image.steps!r}"


def test_values_reach_the_server_beside_the_definition(server: ServerDouble) -> None:
    secret = squall.Secret.from_dict({"TOKEN": "very-secret"})

    squall.Image.debian_slim("3.11").run_commands("true", secrets=[secret]).build()

    assert server.images[-1].steps[1].secrets == ("0",)
    assert "very-secret" not in repr(server.images)


def test_names_that_come_later_say_so() -> None:
    with pytest.raises(AttributeError, match=r"^Secret.from_name is not in this version of Squall yet$"):
        squall.Secret.from_name("x")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'invented'"):
        squall.Secret.from_dict().invented()  # type: ignore[attr-defined]
