"""What a deploy is refused, which commit it is of, and which environment is meant."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.function import Definition
from squall.protocol.guest import Boot
from squall.sdk import _container, _environment
from squall.sdk._commit import find_commit


@pytest.fixture
def in_a_container() -> Iterator[None]:
    boot = Boot("ct-1", "ap-1", "hello", "fu-1", "square", Definition("file", "hello", "square"), {}, "im-1", 300.0, 1)
    _container.enter(boot, "", "")
    try:
        yield
    finally:
        _container.leave()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strategy": "blue"}, "strategy='blue'.*rolling.*recreate"),
        ({"strategy": None}, "strategy=None"),
        ({"tag": "a b"}, "tag='a b'"),
        ({"tag": "a" * 51}, "at most 50"),
        ({"name": "a b"}, "app name"),
        ({"environment_name": "a.b"}, "no name of an environment"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_asked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        squall.App("greeter").deploy(**given)


def test_an_app_without_a_name_is_not_deployed() -> None:
    with pytest.raises(InvalidError, match="without a name"):
        squall.App().deploy()


def test_apps_are_not_deployed_in_containers(in_a_container: None) -> None:
    with pytest.raises(InvalidError, match="in a container"):
        squall.App("greeter").deploy()


def test_what_is_not_deployed_has_no_tags_to_change() -> None:
    with pytest.raises(InvalidError, match="neither runs nor is deployed"):
        squall.App("greeter").set_tags({})


@pytest.mark.parametrize("version", [0, -1, True, "3", 1.0])
def test_what_is_no_version_is_refused(version: Any) -> None:
    with pytest.raises(InvalidError, match="must be the number of a version"):
        squall.Function.from_name("greeter", "greet", version=version)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_commit_is_that_of_the_folder(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "trunk")
    assert find_commit(str(tmp_path)) is None
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")

    clean = find_commit(str(tmp_path))
    (tmp_path / "a.py").write_text("2")
    dirty = find_commit(str(tmp_path))

    assert clean is not None
    assert (clean.sha, clean.branch, clean.is_dirty) == (git(tmp_path, "rev-parse", "HEAD"), "trunk", False)
    assert dirty is not None
    assert dirty.is_dirty


def test_nothing_fails_without_git_or_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_commit(str(tmp_path)) is None
    assert find_commit(str(tmp_path / "missing")) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_commit(str(Path(__file__).parent)) is None


def test_the_environment_is_the_one_given_else_chosen_else_of_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQUALL_ENVIRONMENT", raising=False)
    monkeypatch.delenv("MODAL_ENVIRONMENT", raising=False)
    found = [_environment.environment_of(None)]
    monkeypatch.setenv("MODAL_ENVIRONMENT", "theirs")
    found.append(_environment.environment_of(None))
    monkeypatch.setenv("SQUALL_ENVIRONMENT", "ours")
    found.append(_environment.environment_of(None))
    _environment.choose("chosen")
    try:
        found += [_environment.environment_of(None), _environment.environment_of("given")]
    finally:
        _environment.choose("")

    assert found == ["", "theirs", "ours", "chosen", "given"]


def test_environment_of_the_context_has_its_name_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQUALL_ENVIRONMENT", raising=False)
    monkeypatch.delenv("MODAL_ENVIRONMENT", raising=False)
    found = [squall.Environment.from_context().name]
    boot = Boot("ct-1", "ap-1", "app", "fu-1", "f", Definition("file"), environment="staging")
    _container.enter(boot, "socket", "token")
    try:
        found.append(squall.Environment.from_context().name)
    finally:
        _container.leave()
    monkeypatch.setenv("SQUALL_ENVIRONMENT", "ours")
    found.append(squall.Environment.from_context().name)

    assert found == ["main", "staging", "ours"]
    with pytest.raises(AttributeError, match=r"<Environment ours> has no id yet: .* \.hydrate\(\) does that"):
        squall.Environment.from_context().object_id  # noqa: B018


def test_an_environment_is_not_made_directly_or_under_any_name() -> None:
    with pytest.raises(InvalidError, match="from_name"):
        squall.Environment()
    with pytest.raises(InvalidError, match="no name of an environment"):
        squall.Environment.from_name("-a")
    assert squall.Environment.from_name("dev").name == "dev"
