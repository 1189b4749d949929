"""Tunnels, from clients of the machine to programs in real containers."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.e2e.installation import Installation, Running, wait_until

MEGABYTES = 100
SILENT = 9102
"""Of the program: a port at which nothing listens."""


@dataclass
class Served:
    """What a container has said of its tunnels."""

    running: Running
    url: str
    host: str
    echo: int
    again: int
    silent: int
    endless: int
    upload: int
    container_id: str

    def end(self) -> None:
        """Let its function return."""
        assert httpx.post(self.url, content=b"", timeout=30).status_code == 204


def begin(squall: Installation, function: str) -> Served:
    running = squall.start_run(f"tunnels.py::{function}")
    running.wait_said(".\n", 120)
    found = re.search(r"tunnels: (\S+) (\S+) (\d+) (\d+) (\d+) (\d+) (\d+) (\S+)\.", running.said())
    assert found, running.said()
    echo, again, silent, endless, upload = (int(found[place]) for place in range(3, 8))
    return Served(running, found[1], found[2], echo, again, silent, endless, upload, found[8])


def refusal(host: str, port: int) -> OSError | None:
    """How a connection was cut off, which may be before it was made."""
    try:
        with socket.create_connection((host, port), 30) as one:
            return ending(one)
    except OSError as error:
        return error


def ending(one: socket.socket) -> OSError | None:
    """How a connection was cut off; None: it came to an end."""
    try:
        while one.recv(2**20):
            pass
    except OSError as error:
        return error
    return None


def echoed(host: str, port: int, data: bytes, times: int) -> tuple[int, bytes]:
    """How much comes back of data that is sent so often, and its last bytes."""
    with socket.create_connection((host, port), 60) as one:

        def send() -> None:
            for _ in range(times):
                one.sendall(data)
            one.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        count, last = 0, b""
        while came := one.recv(2**20):
            count += len(came)
            last = (last + came)[-7:]
        sending.join()
    return count, last


@contextmanager
def serving(squall: Installation, function: str) -> Iterator[Served]:
    served = begin(squall, function)
    yield served
    served.end()
    ended = served.running.wait()
    assert ended.code == 0, ended
    assert "closed" in ended.out


@pytest.mark.parametrize("function", ["plain", "strong", "forked"])
def test_program_in_a_container_is_reached_by_http_by_a_websocket_and_by_bytes(
    squall: Installation, function: str
) -> None:
    with serving(squall, function) as served:
        response = httpx.get(f"{served.url}/a?b=c", timeout=30)
        with connect(served.url.replace("http://", "ws://")) as messages:
            messages.send("over the tunnel")
            assert messages.recv() == "over the tunnel"
        count, last = echoed(served.host, served.echo, b"x" * 100_000, 10)
        # The node listens at that port; the container does not, and the tunnel is the container's.
        with socket.create_server(("127.0.0.1", SILENT)):
            refused = refusal(served.host, served.silent)

    assert isinstance(refused, ConnectionResetError)
    assert response.text == f"{served.container_id} at /a?b=c"
    assert (count, last) == (1_000_007, b"the end"), "the other way went on after the end of one"
    with pytest.raises(OSError):
        socket.create_connection((served.host, served.echo), 5)


def test_bytes_go_both_ways_at_once_and_much_of_them_needs_no_memory(squall: Installation) -> None:
    before = memory_mib(squall.server_pid())
    with serving(squall, "plain") as served:
        count, last = echoed(served.host, served.again, bytes(2**20), MEGABYTES)
        after = memory_mib(squall.server_pid())

    assert (count, last) == (MEGABYTES * 2**20 + 7, b"the end")
    assert after < before + 50


def memory_mib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        found = re.search(r"VmRSS:\s+(\d+) kB", status.read())
    assert found
    return int(found[1]) // 1024


def test_nobody_listens_a_client_that_leaves_and_a_container_that_is_killed(squall: Installation) -> None:
    served = begin(squall, "plain")

    assert isinstance(refusal(served.host, served.silent), ConnectionResetError)

    with socket.create_connection((served.host, served.endless), 30) as one:
        one.recv(65_536)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: "endless: " in served.running.said(), "the program is told that its client has gone", 20)

    with socket.create_connection((served.host, served.endless), 30) as one:
        one.recv(65_536)
        squall.kill_processes()
        assert isinstance(ending(one), ConnectionResetError)
    wait_until(lambda: is_refused(served.host, served.endless), "its tunnels are gone", 20)
    served.running.close()


def test_server_that_is_killed_resets_both_sides_and_the_next_one_has_the_tunnels_again(
    fresh_squall: Installation,
) -> None:
    served = begin(fresh_squall, "plain")
    with (
        socket.create_connection((served.host, served.endless), 30) as download,
        socket.create_connection((served.host, served.upload), 30) as upload,
    ):
        download.recv(65_536)
        upload.sendall(b"some")
        served.running.wait_said("upload: begun")

        os.kill(fresh_squall.server_pid(), signal.SIGKILL)

        assert isinstance(ending(download), ConnectionResetError)
        assert isinstance(ending(upload), ConnectionResetError)
    served.running.wait_said("upload: ConnectionResetError")
    wait_until(lambda: not is_refused(served.host, served.echo), "the first of its tunnels is there again", 40)
    wait_until(lambda: not is_refused(served.host, served.again), "and another one", 20)
    assert echoed(served.host, served.again, b"again", 1) == (12, b"the end")
    wait_until(lambda: answers(served), "the last one is there, too", 20)
    served.end()
    ended = served.running.wait()
    assert ended.code == 0, ended
    assert "could not be opened again" not in ended.err


def answers(served: Served) -> bool:
    try:
        return httpx.get(served.url, timeout=10).text.startswith(served.container_id)
    except httpx.TransportError:
        return False


def is_refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_cannot_be(squall: Installation) -> None:
    wrong = squall.run("tunnels.py::wrong")
    many = squall.run("tunnels.py::many", "--count", "40")

    assert wrong.code == 0, wrong
    assert wrong.out.count("a port is a number from 1 to 65535") == 3, wrong
    assert "no unencrypted address: this tunnel has no unencrypted address; say forward(port, unen" in wrong.out
    assert "no TLS: this tunnel is without TLS: the server has no certificate" in wrong.out
    assert "this container has 32 tunnels already; close some" in many.out, many


def test_container_whose_network_is_blocked_has_no_tunnel(squall: Installation) -> None:
    ended = squall.run("tunnels.py::blocked")

    assert ended.code == 0, ended
    assert "blocked has block_network=True, and a tunnel would be a network" in ended.out, ended


def test_example(squall: Installation) -> None:
    example = Path(__file__).parents[2] / "examples" / "web" / "tunnel.py"

    ended = squall.command("run", str(example), "--text", "over there")

    assert ended.code == 0, ended
    assert "leads to a container\nOVER THERE\n" in ended.out, ended
