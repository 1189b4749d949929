"""The local server as a program: who may not use it, and one that begins or ends while it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from squall.main import dev
from squall.main.data_dir import ServerFile, ServerLock, read_server_file
from squall.main.dev import main

NOBODY = 65_534
HUNG = """
import os, signal, sys
from pathlib import Path
from squall.main.data_dir import ServerFile, ServerLock, write_server_file

assert ServerLock(Path(sys.argv[1])).acquire()
print(flush=True)
sys.stdin.readline()
write_server_file(Path(sys.argv[1]), ServerFile(os.getpid(), "http://127.0.0.1:1", "0", "sv-1"))
signal.pause()
"""
"""A server that never listens, and says where it does when it is told to."""


@pytest.fixture
def start_hung(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", HUNG, str(tmp_path)]
        started.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "\n"
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize("arguments", [["stop"], ["stop", "--force"], ["status"]])
def test_strangers_are_told_who_may_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    lock = ServerLock(tmp_path)
    assert lock.acquire()
    tmp_path.chmod(0o700)

    os.seteuid(NOBODY)
    try:
        code = main([*arguments, "--data-dir", str(tmp_path)])
    finally:
        os.seteuid(0)
        lock.release()

    assert code == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: may not use ")
    assert "Permission denied; use sudo, or join the group 'squall'" in said


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_server_that_is_ending_already_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    lock = ServerLock(tmp_path)
    assert lock.acquire()
    asked = threading.Event()

    def end() -> None:
        asked.wait(10.0)
        lock.release()

    ending = threading.Thread(target=end)
    ending.start()
    monkeypatch.setattr(dev, "read_server_file", lambda _: asked.set())  # it is looked for again and again

    code = main(["stop", *options, "--data-dir", str(tmp_path)])

    ending.join()

    assert (code, capsys.readouterr().out) == (0, "stopped Squall\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_who_may_not_see_the_lock_waits_for_a_server_that_is_ending_too(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir.chmod(0o711)
    lock = ServerLock(data_dir)
    assert lock.acquire()
    asked = threading.Event()
    monkeypatch.setattr(dev, "read_server_file", lambda _: asked.set())

    def end() -> None:
        asked.wait(10.0)
        lock.release()

    ending = threading.Thread(target=end)
    ending.start()
    os.seteuid(NOBODY)
    try:
        code = main(["stop", "--data-dir", str(data_dir)])
    finally:
        os.seteuid(0)
        asked.set()
        ending.join()

    assert (code, capsys.readouterr().out) == (0, "stopped Squall\n")


def test_server_that_begins_while_it_is_stopped_is_asked_then(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    start_hung: Callable[[], subprocess.Popen[str]],
) -> None:
    monkeypatch.setattr(dev, "STOP_S", 10.0)
    server = start_hung()
    looked = iter([True])

    def look(path: Path) -> ServerFile | None:
        found = read_server_file(path)
        if next(looked, False):
            assert server.stdin is not None
            server.stdin.write("\n")
            server.stdin.flush()
        return found

    monkeypatch.setattr(dev, "read_server_file", look)

    code = main(["stop", "--force", "--data-dir", str(tmp_path)])

    assert (code, capsys.readouterr().out) == (0, "stopped Squall\n")
    assert server.wait(10.0) == -signal.SIGTERM, "by what it says it is"


def test_server_that_neither_begins_nor_ends_is_killed_by_force_only(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    start_hung: Callable[[], subprocess.Popen[str]],
) -> None:
    monkeypatch.setattr(dev, "STOP_S", 0.1)
    server = start_hung()

    code = main(["stop", "--data-dir", str(tmp_path)])

    assert code == 1
    said = capsys.readouterr().err
    assert "it has neither begun nor ended within 0.1 s; see" in said
    assert "with --force it ends" in said
    assert server.poll() is None

    assert main(["stop", "--force", "--data-dir", str(tmp_path)]) == 0
    assert server.wait(10.0) == -signal.SIGKILL
