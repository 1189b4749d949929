"""The local server as a program: who may not use it, and one that begins or ends while it is stopped."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from squall.main import dev
from squall.main.data_dir import ServerLock
from squall.main.dev import main

NOBODY = 65_534


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


def test_server_that_neither_begins_nor_ends_is_said_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "STOP_S", 0.1)
    lock = ServerLock(tmp_path)
    assert lock.acquire()

    code = main(["stop", "--force", "--data-dir", str(tmp_path)])

    lock.release()
    assert code == 1
    assert "it has neither begun nor ended within 0.1 s; see" in capsys.readouterr().err
