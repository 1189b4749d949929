"""The data directory: one server, who may reach it, what it says of itself."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from squall.main.data_dir import (
    DataDirError,
    Owners,
    ServerFile,
    ServerLock,
    answers,
    find_owners,
    listen,
    prepare,
    read_or_make_token,
    read_server_file,
    write_server_file,
)

ME = Owners(os.geteuid(), os.getegid(), has_group=False)
GROUP = Owners(os.geteuid(), os.getegid(), has_group=True)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directory_can_be_passed_through_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "squall"

    prepare(path)
    path.chmod(0o777)
    prepare(path)

    assert mode_of(path) == 0o711
    assert list(path.iterdir()) == []


def test_directory_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(DataDirError, match=r"cannot use the data directory .*Not a directory"):
        prepare(tmp_path / "file" / "squall")


def test_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a directory away")
    os.chown(tmp_path, 12_345, 12_345)

    with pytest.raises(DataDirError, match="belongs to user 12345"):
        prepare(tmp_path)


def test_one_lock_at_a_time_and_free_when_released(tmp_path: Path) -> None:
    one, other = ServerLock(tmp_path), ServerLock(tmp_path)

    before = other.is_free()
    taken = one.acquire(), other.acquire(), other.is_free()
    holder = other.holder()
    one.release()

    assert before
    assert taken == (True, False, False)
    assert holder == os.getpid()
    assert other.is_free()
    assert other.holder() is None
    assert other.acquire()
    other.release()


def test_lock_is_free_when_its_process_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from squall.main.data_dir import ServerLock;"
        "lock = ServerLock(Path(sys.argv[1])); print(lock.acquire(), flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"True\n"
    held = not ServerLock(tmp_path).is_free()

    child.kill()
    child.wait(timeout=10)
    child.stdout.close()

    assert held
    assert ServerLock(tmp_path).is_free()


@pytest.mark.parametrize(("owners", "mode"), [(ME, 0o600), (GROUP, 0o660)])
def test_socket_is_for_its_owners_only(make_data_dir: Callable[[], Path], owners: Owners, mode: int) -> None:
    path = make_data_dir() / "server.sock"

    with listen(path, owners):
        assert mode_of(path) == mode
        assert answers(path)
        assert [entry.name for entry in path.parent.iterdir()] == ["server.sock"]


def test_stale_socket_is_replaced_and_does_not_answer(make_data_dir: Callable[[], Path]) -> None:
    path = make_data_dir() / "server.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    stale = answers(path)

    with listen(path, ME):
        assert not stale
        assert answers(path)
    assert not answers(path)


def test_missing_socket_does_not_answer(tmp_path: Path) -> None:
    assert not answers(tmp_path / "server.sock")


@pytest.mark.parametrize(("owners", "mode"), [(ME, 0o600), (GROUP, 0o640)])
def test_token_is_made_once_and_kept_from_others(tmp_path: Path, owners: Owners, mode: int) -> None:
    token = read_or_make_token(tmp_path, owners)

    assert len(token) > 30
    assert read_or_make_token(tmp_path, owners) == token
    assert mode_of(tmp_path / "token") == mode


def test_token_does_not_follow_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "token.new").symlink_to(target)

    read_or_make_token(tmp_path, ME)

    assert target.read_text() == ""


def test_user_behind_sudo_may_reach_the_server() -> None:
    assert find_owners({"SUDO_UID": "1"}).uid == 1
    assert find_owners({"SUDO_UID": "nobody"}).uid == os.geteuid()
    assert find_owners({"SUDO_UID": "3999999999"}).uid == os.geteuid()
    assert find_owners({}).uid == os.geteuid()


def test_server_file_says_what_runs(tmp_path: Path) -> None:
    nothing = read_server_file(tmp_path)
    said = ServerFile(7, "http://127.0.0.1:7855", "0.1.0", "sv-1")

    write_server_file(tmp_path, said)

    assert nothing is None
    assert read_server_file(tmp_path) == said


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}'])
def test_broken_server_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "server.json").write_text(text)

    assert read_server_file(tmp_path) is None
