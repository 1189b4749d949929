"""The local server as a program: started once, found again, ended without a trace, whatever happened before."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from squall.main import ask, dev
from squall.main.data_dir import ServerLock, read_server_file
from squall.main.spawner import instance_name
from squall.runtime.removal import mounts_below

COMMAND = [sys.executable, "-m", "squall.main.dev"]


class LocalServer:
    """Runs the program's commands on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SQUALL_", "SUDO_"))},
            **{name: value for name, value in os.environ.items() if name.startswith("SQUALL_TEST")},
            "SQUALL_HTTP_PORT": "0",
        }

    def run(self, *arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
        """One command; its outcome."""
        return subprocess.run(
            [*COMMAND, *arguments, "--data-dir", str(self.data_dir)],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=user,
        )

    def start(self) -> int:
        """Start it; the server's process."""
        done = self.run("start")
        assert done.returncode == 0, done.stderr
        return self.pid()

    def pid(self) -> int:
        """What server.json says."""
        found = read_server_file(self.data_dir)
        assert found is not None
        return found.pid

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        value: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return value

    def wait_ended(self, seconds: float = 20.0) -> None:
        """Return when no process is the server of this directory."""
        deadline = time.monotonic() + seconds
        while not ServerLock(self.data_dir).is_free():
            assert time.monotonic() < deadline, "the server has not ended"
            time.sleep(0.05)


@pytest.fixture
def server(make_data_dir: Callable[[], Path]) -> Iterator[LocalServer]:
    """A server that has not been started, and is not running afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = LocalServer(make_data_dir())
    yield made
    made.run("stop", "--force")
    made.wait_ended()
    assert spawners(made.data_dir) == []


def is_running(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def spawners(data_dir: Path) -> list[int]:
    """Processes of the spawner of a data directory."""
    instance = instance_name(data_dir).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if instance in arguments and b"squall.runtime.spawner" in arguments:
            found.append(int(path.parent.name))
    return found


def test_started_server_answers_and_stopped_one_leaves_nothing_running(server: LocalServer) -> None:
    before = server.run("status")
    pid = server.start()
    running = server.status()
    stopped = server.run("stop")

    assert (before.returncode, before.stdout) == (3, "Squall does not run\n")
    assert (running["is_running"], running["pid"], running["node_count"]) == (True, pid, 1)
    assert (stopped.returncode, stopped.stdout) == (0, "stopped Squall\n")
    assert not is_running(pid)
    assert spawners(server.data_dir) == []
    assert not {"server.sock", "server.json"} & {path.name for path in server.data_dir.iterdir()}
    assert server.run("stop").stdout == "Squall does not run\n"


def test_start_of_a_running_server_finds_it(server: LocalServer) -> None:
    pid = server.start()

    again = server.run("start")

    assert (again.returncode, server.pid()) == (0, pid)
    assert "runs already" in again.stdout


def test_two_starts_at_once_make_one_server(server: LocalServer) -> None:
    argv = [*COMMAND, "start", "--data-dir", str(server.data_dir)]
    starts = [subprocess.Popen(argv, env=server.environ, stdout=subprocess.PIPE, text=True) for _ in range(3)]

    said = [start.communicate(timeout=60)[0] for start in starts]

    assert [start.returncode for start in starts] == [0, 0, 0]
    assert sum(text.startswith("started") for text in said) == 1
    assert all(f"process {server.pid()}" in text for text in said)


def test_server_after_a_killed_one_takes_its_place(server: LocalServer) -> None:
    killed = server.start()
    os.kill(killed, signal.SIGKILL)
    server.wait_ended()
    is_socket_stale = (server.data_dir / "server.sock").exists()

    fresh = server.start()

    assert is_socket_stale
    assert fresh != killed
    assert server.status()["pid"] == fresh


def test_start_waits_for_a_server_that_is_stopping(server: LocalServer) -> None:
    old = server.start()

    os.kill(old, signal.SIGTERM)
    server.start()

    assert server.status()["is_running"]


def test_sigterm_ends_it_cleanly(server: LocalServer) -> None:
    os.kill(server.start(), signal.SIGTERM)

    server.wait_ended()

    assert not (server.data_dir / "server.sock").exists()
    assert "Traceback" not in (server.data_dir / "server.log").read_text()
    assert spawners(server.data_dir) == []


def test_idle_server_ends_by_itself(server: LocalServer) -> None:
    server.environ["SQUALL_IDLE_EXIT_S"] = "0.5"
    server.start()

    server.wait_ended()

    assert "idle for 0.5 s" in (server.data_dir / "server.log").read_text()


def test_http_answers_with_the_token_in_the_data_directory(server: LocalServer) -> None:
    server.start()
    found = read_server_file(server.data_dir)
    token = (server.data_dir / "token").read_text().strip()
    assert found is not None

    with httpx.Client(base_url=found.url, timeout=20, trust_env=False) as client:
        refused = client.post("/api/v1/ServerStatus")
        answered = client.post("/api/v1/ServerStatus", headers={"Authorization": f"Bearer {token}"})
        health = client.get("/healthz")

    assert refused.status_code == 401
    assert answered.json()["pid"] == found.pid
    assert health.text == "ok\n"


OPEN_TO_OTHERS = {"server.json": 0o644, "network": 0o755, "ranges": 0o644}
"""What every account may see of the data directory; nothing in it is secret."""


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_for_root_only_whatever_the_umask(server: LocalServer, umask: int) -> None:
    before = os.umask(umask)
    try:
        server.start()
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in server.data_dir.iterdir()}

    for_others = {name: oct(mode) for name, mode in modes.items() if mode & 0o007}
    assert for_others == {name: oct(mode) for name, mode in OPEN_TO_OTHERS.items() if name in modes}
    # With a group squall on this machine it reads these two, and connects to the socket; else nobody does.
    for_group = {name for name, mode in modes.items() if mode & 0o070} - OPEN_TO_OTHERS.keys()
    assert for_group <= {"token", "server.log", "server.sock"}
    assert {name for name, mode in modes.items() if mode & 0o020} <= {"server.sock"}
    assert {"token", "squall.db", "server.log", "blobs", "logs", "containers", "layers", "node-id"} <= modes.keys()


def test_not_root_is_told_what_to_do(server: LocalServer) -> None:
    try:
        done = server.run("start", user=65_534)
    except PermissionError:
        pytest.skip("needs an interpreter that everybody may run")
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip("needs a checkout that everybody may read")

    assert done.returncode == 1
    assert "needs root" in done.stderr
    assert "sudo" in done.stderr


def test_why_it_cannot_start_is_said_by_start(server: LocalServer) -> None:
    server.environ["SQUALL_HTTP_HOST"] = "192.0.2.1"

    done = server.run("start")

    assert done.returncode == 1
    assert "SQUALL_TLS_CERT" in done.stderr
    server.wait_ended()


def test_server_that_does_not_answer_is_ended_by_force(server: LocalServer) -> None:
    pid = server.start()
    os.kill(pid, signal.SIGSTOP)
    stopping = subprocess.Popen(
        [*COMMAND, "stop", "--force", "--data-dir", str(server.data_dir)], env=server.environ, stdout=subprocess.PIPE
    )
    time.sleep(0.5)
    os.kill(pid, signal.SIGCONT)

    said, _ = stopping.communicate(timeout=60)

    assert (stopping.returncode, said) == (0, b"stopped Squall\n")


def test_server_that_never_answers_is_killed_by_force_and_leaves_nothing(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = server.start()
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(ask, "ANSWER_S", 1.0)
    monkeypatch.setattr(dev, "STOP_S", 1.0)

    code = dev.main(["stop", "--force", "--data-dir", str(server.data_dir)])

    assert code == 0
    assert "removed what an earlier one left: " in capsys.readouterr().out
    assert not is_running(pid)
    assert mounts_below(str(server.data_dir)) == []


def test_stop_takes_away_what_a_killed_build_left(server: LocalServer) -> None:
    os.kill(server.start(), signal.SIGKILL)
    server.wait_ended()
    unfinished = server.data_dir / "layers" / ".scratch" / "5eed"
    (unfinished / "inside").mkdir(parents=True)

    stopped = server.run("stop")

    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert "1 unfinished image layer" in stopped.stdout
    assert not unfinished.exists()
    assert spawners(server.data_dir) == []


def test_stop_makes_no_directory_and_leaves_somebody_elses_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    said = [LocalServer(path).run("stop", "--force") for path in (tmp_path, tmp_path / "none")]

    assert [(one.returncode, one.stdout) for one in said] == [(0, "Squall does not run\n")] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
