"""The local server as a program, for those who may not use it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
