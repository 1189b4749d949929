"""A program in the foreground has its data directory alone, and says in one line why it cannot start."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path

import pytest

from squall.main.config import Config, ConfigError
from squall.main.data_dir import ServerLock, prepare
from squall.main.foreground import run_in_foreground


@pytest.fixture
def data_dir_in_environment(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SQUALL_DATA_DIR", str(data_dir))
    return data_dir


def test_it_is_run_with_the_environments_configuration(data_dir_in_environment: Path) -> None:
    seen: list[Path] = []

    async def serve(config: Config) -> None:
        seen.append(config.data_dir)

    run_in_foreground(serve)

    assert seen == [data_dir_in_environment]


def test_data_directory_that_another_holds_is_refused(data_dir_in_environment: Path) -> None:
    prepare(data_dir_in_environment)
    lock = ServerLock(data_dir_in_environment)
    assert lock.acquire()

    def serve(config: Config) -> Coroutine[None, None, None]:
        raise AssertionError("it must not start")

    with pytest.raises(SystemExit, match=rf"^squall: .* runs in {data_dir_in_environment} already$"):
        run_in_foreground(serve)

    lock.release()


def test_what_keeps_it_from_starting_is_said_in_one_line(data_dir_in_environment: Path) -> None:
    async def serve(config: Config) -> None:
        raise ConfigError("an agent needs SQUALL_TOKEN")

    with pytest.raises(SystemExit, match=r"^squall: an agent needs SQUALL_TOKEN$"):
        run_in_foreground(serve)
