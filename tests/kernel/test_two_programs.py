"""Server and agent as two programs, joined over WebSocket."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from squall.main.ask import ask
from squall.main.data_dir import read_server_file
from squall.protocol.server import ServerStatus, ServerStatusRequest
from tests.certificates import make_certificate
from tests.e2e.flows import FLOWS
from tests.e2e.installation import SQUALL, take_layers_from_cache
from tests.kernel.test_local_server import spawners

TOKEN = "for-tests"


class Programs:
    """Starts programs and ends them."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, module: str, data_dir: Path, **settings: str) -> subprocess.Popen[bytes]:
        """One program, with its log in the data directory."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("SQUALL_", "SUDO_"))}
        environ |= {name: value for name, value in os.environ.items() if name.startswith("SQUALL_TEST")}
        environ |= {"SQUALL_DATA_DIR": str(data_dir), "SQUALL_TOKEN": TOKEN, **settings}
        with open(data_dir / "log", "ab") as log:
            argv = [sys.executable, "-m", f"squall.main.{module}"]
            program = subprocess.Popen(argv, env=environ, stdout=log, stderr=log)
        self._running.append(program)
        return program

    def end_all(self) -> None:
        """End what still runs."""
        for program in self._running:
            if program.poll() is None:
                program.terminate()
                program.wait(timeout=30)


@pytest.fixture
def programs() -> Iterator[Programs]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = Programs()
    yield made
    made.end_all()


def wait_for(is_so: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Return when it is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def node_count(data_dir: Path) -> int:
    """Nodes that the server of a data directory knows; -1 when it does not answer."""
    try:
        status = asyncio.run(ask(data_dir / "server.sock", "ServerStatus", ServerStatusRequest(), ServerStatus))
    except OSError:
        return -1
    return status.node_count


def test_agent_joins_its_server_and_finds_it_again_after_a_crash(
    programs: Programs, make_data_dir: Callable[[], Path]
) -> None:
    server_dir, node_dir = make_data_dir(), make_data_dir()
    server = programs.start("serverd", server_dir, SQUALL_HTTP_PORT="0")
    wait_for(lambda: node_count(server_dir) == 0, "the server does not answer")
    found = read_server_file(server_dir)
    assert found is not None

    agent = programs.start("agentd", node_dir, SQUALL_SERVER_URL=found.url)
    wait_for(lambda: node_count(server_dir) == 1, "the agent did not join")
    server.kill()
    server.wait(timeout=10)
    programs.start("serverd", server_dir, SQUALL_HTTP_PORT=found.url.rpartition(":")[2])
    wait_for(lambda: node_count(server_dir) == 1, "the agent did not find the new server")
    agent.send_signal(signal.SIGTERM)

    assert agent.wait(timeout=30) == 0
    wait_for(lambda: node_count(server_dir) == 0, "the server did not notice that the agent left")
    for pid in spawners(node_dir):
        os.kill(pid, signal.SIGTERM)


def test_lines_come_before_results_on_two_connections(programs: Programs, make_data_dir: Callable[[], Path]) -> None:
    server_dir, node_dir = make_data_dir(), make_data_dir()
    take_layers_from_cache(node_dir)
    programs.start("serverd", server_dir, SQUALL_HTTP_PORT="0")
    wait_for(lambda: node_count(server_dir) == 0, "the server does not answer")
    found = read_server_file(server_dir)
    assert found is not None
    programs.start("agentd", node_dir, SQUALL_SERVER_URL=found.url, SQUALL_NETWORK_SLOTS="2")
    wait_for(lambda: node_count(server_dir) == 1, "the agent did not join")

    environ = {**os.environ, "SQUALL_SERVER_URL": found.url, "SQUALL_TOKEN": TOKEN}
    argv = [SQUALL, "run", "ordered.py::remote", "--n", "200"]
    ran = subprocess.run(argv, cwd=FLOWS, env=environ, capture_output=True, text=True, timeout=240, check=False)

    place = {line: number for number, line in enumerate(ran.stdout.splitlines())}
    assert ran.returncode == 0, ran.stderr
    assert not [x for x in range(200) if place[f"line {x}"] > place[f"result {x}"]]
    programs.end_all()
    for pid in spawners(node_dir):
        os.kill(pid, signal.SIGTERM)


def test_agent_with_a_wrong_token_does_not_join(programs: Programs, make_data_dir: Callable[[], Path]) -> None:
    server_dir, node_dir = make_data_dir(), make_data_dir()
    programs.start("serverd", server_dir, SQUALL_HTTP_PORT="0")
    wait_for(lambda: node_count(server_dir) == 0, "the server does not answer")
    found = read_server_file(server_dir)
    assert found is not None

    programs.start("agentd", node_dir, SQUALL_SERVER_URL=found.url, SQUALL_TOKEN="wrong")

    wait_for(lambda: "SQUALL_TOKEN" in (node_dir / "log").read_text(), "the agent does not say what is wrong")
    assert node_count(server_dir) == 0
    programs.end_all()
    for pid in spawners(node_dir):
        os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize("is_by_tls", [True, False], ids=["tls", "insecure"])
def test_server_beyond_loopback_asks_for_its_token(
    programs: Programs, make_data_dir: Callable[[], Path], tmp_path: Path, is_by_tls: bool
) -> None:
    cert, key = make_certificate(tmp_path)
    how = {"SQUALL_TLS_CERT": cert, "SQUALL_TLS_KEY": key} if is_by_tls else {"SQUALL_HTTP_INSECURE": "1"}
    data_dir = make_data_dir()
    programs.start("serverd", data_dir, SQUALL_HTTP_HOST="0.0.0.0", SQUALL_HTTP_PORT="0", **how)
    wait_for(lambda: node_count(data_dir) == 0, "the server does not answer")
    found = read_server_file(data_dir)
    assert found is not None
    url = found.url.replace("0.0.0.0", "127.0.0.1")

    with httpx.Client(verify=ssl.create_default_context(cafile=cert), timeout=30, base_url=url) as client:
        without = client.post("/api/v1/ServerStatus")
        wrong = client.post("/api/v1/ServerStatus", headers={"Authorization": "Bearer x"})
        given = client.post("/api/v1/ServerStatus", headers={"Authorization": f"Bearer {TOKEN}"})

    assert url.startswith("https://" if is_by_tls else "http://")
    assert (without.status_code, wrong.status_code, given.status_code) == (401, 401, 200)
    assert ("strict-transport-security" in given.headers) == is_by_tls
    assert ("in the clear" in (data_dir / "log").read_text()) != is_by_tls


@pytest.mark.parametrize(
    ("module", "settings", "said"),
    [
        ("agentd", {"SQUALL_SERVER_URL": ""}, "SQUALL_SERVER_URL"),
        ("serverd", {"SQUALL_HTTP_HOST": "0.0.0.0"}, "SQUALL_TLS_CERT"),
        ("serverd", {"SQUALL_HTTP_HOST": "0.0.0.0", "SQUALL_HTTP_INSECURE": "0"}, "SQUALL_TLS_CERT"),
        ("serverd", {"SQUALL_HTTP_INSECURE": "perhaps"}, "must be 1 or 0"),
        ("serverd", {"SQUALL_TLS_CERT": "/none.pem", "SQUALL_TLS_KEY": "/none.pem"}, "SQUALL_TLS_CERT"),
        ("serverd", {"SQUALL_HTTP_PORT": "http"}, "SQUALL_HTTP_PORT"),
    ],
)
def test_missing_setting_is_named(
    programs: Programs, make_data_dir: Callable[[], Path], module: str, settings: dict[str, str], said: str
) -> None:
    data_dir = make_data_dir()

    program = programs.start(module, data_dir, **settings)

    assert program.wait(timeout=30) == 1
    assert said in (data_dir / "log").read_text()
