"""Secrets: where their values come from, and where those never are; those that have a name, with a real server."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path

import cloudpickle
import pytest

import squall
from squall.exception import AlreadyExistsError, InvalidError, NotFoundError
from squall.protocol.function import Definition
from squall.protocol.guest import SOCKET_PATH as AGENT_SOCKET
from squall.protocol.guest import Boot
from squall.sdk import _client, _container
from squall.sdk._asset import client_of
from squall.types import SecretInfo
from tests.sdk.double import ServerDouble
from tests.sdk.real_server import RealServer


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


def test_what_is_pickled_has_no_values() -> None:
    secret = squall.Secret.from_dict({"TOKEN": "very-secret"})
    pickled = cloudpickle.dumps(lambda: secret)

    assert b"very-secret" not in pickled + pickle.dumps(secret)
    with pytest.raises(InvalidError, match="stay in the program that made it"):
        pickle.loads(pickle.dumps(secret)).values()


# Those that have a name


def test_a_secret_is_made_found_and_deleted(real_server: RealServer) -> None:
    squall.Secret.objects.create("token", {"TOKEN": "very-secret"})
    squall.Secret.objects.create("other", {})

    found = squall.Secret.from_name("token").hydrate()
    assert found.name == "token"
    assert found.object_id.startswith("st-")
    info = found.info()
    assert isinstance(info, SecretInfo)
    assert (info.name, info.environment_name, info.last_used) == ("token", "main", None)
    assert info.created_by
    assert [one.name for one in squall.Secret.objects.list()] == ["other", "token"]
    assert [one.name for one in squall.Secret.objects.list(max_objects=1)] == ["other"]
    assert squall.Secret.objects.list()[1].info() == info

    squall.Secret.objects.delete("token")
    with pytest.raises(NotFoundError, match="there is no secret 'token' in environment main"):
        squall.Secret.from_name("token").hydrate()
    with pytest.raises(NotFoundError):
        squall.Secret.objects.delete("token")
    squall.Secret.objects.delete("token", allow_missing=True)


def test_one_that_is_there_is_kept_or_told(real_server: RealServer) -> None:
    squall.Secret.objects.create("token", {"TOKEN": "1"})

    with pytest.raises(AlreadyExistsError, match="'token'"):
        squall.Secret.objects.create("token", {"OTHER": "2"})
    squall.Secret.objects.create("token", {"OTHER": "2"}, allow_existing=True)
    squall.Secret.from_name("token", required_keys=["TOKEN"]).hydrate()


def test_required_keys_are_looked_at_by_the_server(real_server: RealServer) -> None:
    squall.Secret.objects.create("token", {"TOKEN": "1", "USER": "ann"})

    squall.Secret.from_name("token", required_keys=["USER"]).hydrate()
    secret = squall.Secret.from_name("token", required_keys=["USER", "HOST"])
    with pytest.raises(InvalidError, match="secret token has no HOST; it has TOKEN, USER"):
        secret.hydrate()
    secret.update({"HOST": "h"})
    secret.hydrate()
    with pytest.raises(InvalidError, match="must be a list of names"):
        squall.Secret.from_name("token", required_keys="USER")


async def test_all_of_it_can_be_awaited(real_server: RealServer) -> None:
    await squall.Secret.objects.create.aio("token", {"TOKEN": "1"})
    secret = squall.Secret.from_name("token")

    await secret.update.aio({"MORE": "2"})
    assert (await secret.info.aio(refresh=True)).name == "token"
    assert len(await squall.Secret.objects.list.aio()) == 1
    await squall.Secret.objects.delete.aio("token")


def test_what_is_wrong_is_told_without_values(real_server: RealServer) -> None:
    for given in ({"A": 12345}, ["very-secret"], {1: "very-secret"}):
        with pytest.raises(InvalidError) as caught:
            squall.Secret.objects.create("token", given)  # type: ignore[arg-type]
        assert "12345" not in str(caught.value)
        assert "very-secret" not in str(caught.value)
    for name, value in (("A=B", "x"), ("", "x"), ("A", "very-secret\0")):
        with pytest.raises(InvalidError, match="cannot create the secret") as caught:
            squall.Secret.objects.create("token", {name: value})
        assert "very-secret" not in str(caught.value)
    with pytest.raises(InvalidError, match="a secret without a name is what it was made of"):
        squall.Secret.from_dict({"A": "1"}).update({"A": "2"})
    with pytest.raises(InvalidError, match="is on no server before a function names it"):
        squall.Secret.from_dict({"A": "1"}).hydrate()
    with pytest.raises(InvalidError, match="only containers and builds that name it"):
        squall.Secret.from_name("token").values()


def test_a_handle_is_the_same_secret_wherever_it_comes(real_server: RealServer) -> None:
    squall.Secret.objects.create("token", {"TOKEN": "very-secret"})
    secret = squall.Secret.from_name("token", required_keys=["TOKEN"]).hydrate()

    pickled = pickle.dumps(secret)
    again: squall.Secret = pickle.loads(pickled)

    assert (again.name, again.object_id) == ("token", secret.object_id)
    assert b"very-secret" not in pickled
    assert again.info() == secret.info()


async def test_functions_name_secrets_by_ids_that_are_the_same_for_the_same_values(real_server: RealServer) -> None:
    await squall.Secret.objects.create.aio("token", {"TOKEN": "1"})
    client = client_of(None)

    async def id_of(secret: squall.Secret, app_id: str = "ap-0123456789ABCDEFGHIJkl") -> str:
        return await secret.id_for(client, app_id=app_id)

    named = await id_of(squall.Secret.from_name("token"))
    assert named == (await squall.Secret.from_name("token").hydrate.aio()).object_id
    assert await id_of(squall.Secret.from_dict({"A": "1"})) == await id_of(squall.Secret.from_dict({"A": "1"}))
    assert await id_of(squall.Secret.from_dict({"A": "1"})) != await id_of(squall.Secret.from_dict({"A": "2"}))
    assert await id_of(squall.Secret.from_dict({"A": "1"})) != await id_of(squall.Secret.from_dict({"A": "1"}), "ap-2")
    assert await id_of(squall.Secret.from_dict({})) == ""


def test_no_value_is_on_the_disk_of_the_server_in_clear(real_server: RealServer, data_dir: Path) -> None:
    value = "planted-0f9a4c7e5d"
    squall.Secret.objects.create("token", {"TOKEN": value})
    squall.Secret.from_name("token").update({"MORE": value})
    _client.close()

    kept = b"".join(path.read_bytes() for path in data_dir.rglob("*") if path.is_file())
    for form in (
        value.encode(),
        base64.b64encode(value.encode()),
        value.encode().hex().encode(),
        b"c" + value.encode(),
    ):
        assert form not in kept
    assert b"token" in kept


def test_after_a_restart_secrets_are_there(real_server: RealServer) -> None:
    squall.Secret.objects.create("token", {"TOKEN": "1"})
    before = squall.Secret.from_name("token").hydrate()

    real_server.restart()

    assert squall.Secret.from_name("token", required_keys=["TOKEN"]).hydrate().object_id == before.object_id
    before.update({"TOKEN": "2"})
