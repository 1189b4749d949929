"""What `squall doctor` says of the server's own port."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.main.config import Config
from squall.main.data_dir import ServerFile, write_server_file
from squall.main.doctor import check_server_port


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_port_of_another_program_fails_with_what_names_it(tmp_path: Path, taken_port: int) -> None:
    check = check_server_port(Config(data_dir=tmp_path, http_port=taken_port))

    assert (check.name, check.status) == (f"port {taken_port}", "fail")
    assert f"sport = :{taken_port}" in check.fix


def test_port_of_the_running_server_is_its_own(tmp_path: Path, taken_port: int) -> None:
    write_server_file(tmp_path, ServerFile(1, f"http://127.0.0.1:{taken_port}", "0.1.0", "sv-1"))

    check = check_server_port(Config(data_dir=tmp_path, http_port=taken_port))

    assert check.status == "ok"
    assert "the server listens there" in check.finding


def test_default_port_may_be_taken(tmp_path: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squall.main.doctor.DEFAULT_HTTP_PORT", taken_port)

    check = check_server_port(Config(data_dir=tmp_path))

    assert check.status == "ok"
    assert "the server takes any free one" in check.finding


def test_free_port_is_said_to_be_free(tmp_path: Path) -> None:
    assert check_server_port(Config(data_dir=tmp_path, http_port=0)).status == "ok"
