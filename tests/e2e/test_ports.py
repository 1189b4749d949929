"""Ports of containers of every kind: who asked for them is led there, and nobody is led anywhere else."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.installation import PROGRAMS, Installation
from tests.e2e.test_http import url_of

PORT = 8141


@pytest.fixture
def web(squall: Installation) -> Iterator[str]:
    """The app is deployed; where the server is."""
    ended = squall.command("deploy", str(PROGRAMS / "listening.py"))
    assert ended.code == 0, ended
    yield url_of(squall)
    assert squall.command("app", "stop", "listening", "-y").code == 0


KINDS = ["plain", "blocked", "strong", "forked", "StrongServer", "ForkedServer"]


def test_what_listens_is_reached_in_containers_of_every_kind(web: str) -> None:
    said = {}
    with socket.create_server(("0.0.0.0", PORT)):  # the node's own listens there, too, and is not what is reached
        for kind in KINDS:
            response = httpx.get(f"{web}/w/listening-{kind.lower()}", timeout=120, follow_redirects=True)
            said[kind] = (response.status_code, response.text.partition(" ")[0])

    assert {status for status, _ in said.values()} == {200}, said
    assert len({container_id for _, container_id in said.values()}) == len(KINDS), "each port is that of its container"


def test_another_container_reaches_neither_a_port_nor_what_leads_to_it(web: str, squall: Installation) -> None:
    address = httpx.get(f"{web}/w/listening-plain", timeout=60).text.partition(" ")[2]
    assert address, "it has an address"
    gateway = f"{address.rpartition('.')[0]}.{int(address.rpartition('.')[2]) - 1}"
    server = web.rpartition(":")[2]
    tried = [f"{address}:{PORT}", f"127.0.0.1:{PORT}", f"127.0.0.1:{server}", f"{gateway}:{server}", f"{gateway}:31000"]

    ended = squall.run("listening.py::neighbour", "--addresses", ",".join(tried))

    assert ended.code == 0, ended
    assert "reached" not in ended.out, ended
    assert len(ended.out.splitlines()) == len(tried), ended
    with socket.create_connection((address, PORT), 5):
        pass  # there it is: its node can
