"""Tunnels of a server with a certificate, whose node is another program; that is killed, and the tunnels are not."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from squall.main.data_dir import read_server_file
from tests.certificates import make_certificate
from tests.e2e.installation import PROGRAMS, SQUALL, take_layers_from_cache
from tests.kernel.test_local_server import spawners
from tests.kernel.test_two_programs import TOKEN, Programs, node_count, programs, wait_for

__all__ = ["programs"]


@pytest.fixture
def ending() -> Iterator[ExitStack]:
    """Left when the test is over, however that went."""
    with ExitStack() as stack:
        yield stack


def end(running: subprocess.Popen[bytes], programs: Programs, node_dir: Path) -> None:
    """Nothing is left of a command, the programs and what these have started."""
    running.kill()
    running.wait(10)
    programs.end_all()
    for pid in spawners(node_dir):
        os.kill(pid, signal.SIGTERM)


def test_agent_that_is_killed_resets_clients_and_leaves_the_tunnels(
    programs: Programs,
    make_data_dir: Callable[[], Path],
    tmp_path: Path,
    ending: ExitStack,
) -> None:
    cert, key = make_certificate(tmp_path)
    trusted = {"SSL_CERT_FILE": cert}
    server_dir, node_dir = make_data_dir(), make_data_dir()
    take_layers_from_cache(node_dir)
    programs.start("serverd", server_dir, SQUALL_HTTP_PORT="0", SQUALL_TLS_CERT=cert, SQUALL_TLS_KEY=key)
    wait_for(lambda: node_count(server_dir) == 0, "the server does not answer")
    found = read_server_file(server_dir)
    assert found is not None
    agent = programs.start("agentd", node_dir, SQUALL_SERVER_URL=found.url, SQUALL_NETWORK_SLOTS="2", **trusted)
    wait_for(lambda: node_count(server_dir) == 1, "the agent did not join")
    context = ssl.create_default_context(cafile=cert)
    environ = {**os.environ, "SQUALL_SERVER_URL": found.url, "SQUALL_TOKEN": TOKEN, **trusted}
    said = tmp_path / "said"
    with said.open("wb") as out:
        argv = [SQUALL, "run", str(PROGRAMS / "tunnels.py::plain")]
        running = subprocess.Popen(argv, env=environ, stdout=out, stderr=out)
    ending.callback(end, running, programs, node_dir)
    wait_for(lambda: ".\n" in said.read_text() or running.poll() is not None, "no tunnels", 120)
    tunnels = re.search(r"tunnels: (\S+) (\S+) (\d+) \d+ \d+ (\d+) \d+ (\S+)\.", said.read_text())
    assert tunnels, said.read_text()
    url, host, echo, endless, container_id = tunnels.groups()

    def answers() -> bool:
        try:
            return httpx.get(url, verify=context, timeout=30).text.startswith(container_id)
        except httpx.TransportError:
            return False

    assert url.startswith("https://")
    assert answers()
    with socket.create_connection((host, int(echo)), 30) as plain:
        plain.sendall(b"in the clear")
        assert plain.recv(100) == b"in the clear", "it was asked for, and is for this machine only"
        with (
            socket.create_connection((host, int(endless)), 30) as raw,
            context.wrap_socket(raw, server_hostname=host, suppress_ragged_eofs=False) as by_tls,
        ):
            assert by_tls.recv(100) == bytes(100)

            agent.kill()
            agent.wait(timeout=10)

            # Python's ssl says so of a reset, too.
            assert isinstance(how_it_ends(by_tls), (ssl.SSLEOFError, ConnectionResetError))
        assert isinstance(how_it_ends(plain), ConnectionResetError)

    agent = programs.start("agentd", node_dir, SQUALL_SERVER_URL=found.url, SQUALL_NETWORK_SLOTS="2", **trusted)
    wait_for(answers, "it is not reached any more", 60)
    assert httpx.post(url, content=b"", verify=context, timeout=30).status_code == 204
    assert running.wait(timeout=60) == 0, said.read_text()


def how_it_ends(one: socket.socket) -> OSError | None:
    """How a connection was cut off; None: it came to an end."""
    try:
        while one.recv(2**20):
            pass
    except OSError as error:
        return error
    return None
