"""A client of another version: an idle server is replaced, a busy one is left alone and the client told."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import squall as package
from tests.e2e.installation import Installation

OTHER = "0.0.9"
EXECUTABLE = (sys.executable, "-c", "from squall.cli.main import main; main()")


@pytest.fixture
def other_version(tmp_path: Path) -> Mapping[str, str]:
    """Variables with which Python finds a copy of the package that calls itself by another version."""
    source = Path(str(package.__file__)).parent
    subprocess.run(["cp", "-a", str(source), str(tmp_path / "squall")], check=True, timeout=30)
    version = tmp_path / "squall" / "protocol" / "version.py"
    text, count = re.subn(r'^VERSION = ".*"$', f'VERSION = "{OTHER}"', version.read_text(), flags=re.MULTILINE)
    assert count == 1, text
    version.write_text(text)
    return {"PYTHONPATH": str(tmp_path)}


def test_idle_server_is_replaced_by_the_clients_version(
    fresh_squall: Installation, other_version: Mapping[str, str]
) -> None:
    assert fresh_squall.run("square.py").code == 0
    before, old_pid = fresh_squall.status()["version"], fresh_squall.server_pid()

    ended = fresh_squall.run("square.py", executable=EXECUTABLE, environ=other_version)

    assert ended.code == 0, ended
    assert ended.out == "49\n", ended
    assert f"replacing the idle server of version {before}" in ended.err, ended
    assert fresh_squall.server_pid() != old_pid
    assert f'"version": "{OTHER}"' in (fresh_squall.data_dir / "server.json").read_text()


def test_busy_server_is_left_alone_and_the_client_told(squall: Installation, other_version: Mapping[str, str]) -> None:
    running = squall.start_run("sleeping.py::main")
    running.wait_said("asleep for")

    ended = squall.run("square.py", executable=EXECUTABLE, environ=other_version, timeout_s=30)

    assert ended.code == 1, ended
    assert f"Error: this is Squall {OTHER} and the server is {package.__version__}, which is busy" in ended.err, ended
    assert "stop it by `squall server stop --force`" in ended.err, ended
    assert "Traceback" not in ended.err, ended
    assert running.process.poll() is None, "the running app was disturbed"
    running.signal(signal.SIGINT)
    assert running.wait(10).code == 130
