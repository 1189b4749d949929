"""Isolation as users get it: what functions in containers can and cannot do, to the machine, the server and each other.

The attacks run in few functions (`programs/hostile.py`) and come back as tables; the claims about them are here.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from squall.agent.image.machine.settings import read_machine_settings
from tests.e2e.installation import Installation
from tests.e2e.paths import OF_THE_MACHINES_KERNEL

pytestmark = OF_THE_MACHINES_KERNEL
ATTACKS = Path(__file__).parents[1] / "kernel" / "attacks.py"
NOBODY = 65_534
CONNECTIONS_MAX = 64
CLOSED = ("EOFError: closed", "ECONNRESET", "EPIPE")
Tables = Mapping[str, Mapping[str, Any]]

OWN_DESCRIPTORS = re.compile(r"(pipe|socket|anon_inode):|/dev/(null|urandom|random|pts/\d+)$|/proc/\d+/fd$")


def machine_addresses() -> list[str]:
    """Addresses at which this machine can be reached from itself; those of other servers of ours come and go."""
    said = subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, check=True, timeout=10).stdout
    return [entry["local"] for link in json.loads(said) for entry in link["addr_info"] if link["ifname"][:2] != "sq"]


def mirror() -> tuple[str, int] | None:
    """Host and port of the Debian mirror this machine is configured with, if it answers here."""
    for source in read_machine_settings(os.environ).apt.sources:
        address = urlsplit(source.uri)
        where = (address.hostname or "", address.port or {"http": 80, "https": 443}.get(address.scheme, 0))
        try:
            socket.create_connection(where, 3).close()
        except OSError:
            continue
        return where
    return None


@pytest.fixture(scope="module")
def open_port() -> Iterator[int]:
    """A port of the machine that anybody may connect to."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        threading.Thread(target=_accept_all, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept_all(listener: socket.socket) -> None:
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


@pytest.fixture(scope="module")
def tables(session_installation: Installation, open_port: int) -> Tables:
    """What became of each attempt."""
    data_dir = session_installation.data_dir
    known = json.loads((data_dir / "server.json").read_text())
    files = ("server.json", "server.sock", "token", "squall.db", "squall.db-wal", "server.log", "containers", "layers")
    addresses = machine_addresses()
    for address in addresses:
        socket.create_connection((address, open_port), 2).close()
    where = mirror()
    facts = {
        "host_files": [str(data_dir / name) for name in files],
        "host_pid": os.getpid(),
        "attacks": ATTACKS.read_text(),
        "machine": addresses,
        "server_port": urlsplit(known["url"]).port,
        "open_port": open_port,
        "mirror": where,
        "package": "x = 1",
    }
    ended = session_installation.run("hostile.py::tables", "--facts", json.dumps(facts), timeout_s=90)
    assert ended.code == 0, ended
    said = re.search(r"^TABLES (.*)$", ended.out, re.MULTILINE)
    assert said, ended
    found: Tables = json.loads(said[1])
    return found


def worked(table: Mapping[str, str]) -> dict[str, str]:
    return {name: said for name, said in table.items() if said.startswith("worked")}


def test_container_cannot_open_files_of_machine_server_or_neighbour(tables: Tables) -> None:
    # /proc/<own pid>/root is its own root: a file of the neighbour would be there if it were anywhere.
    assert worked(tables["files"]) == {}
    assert len(tables["files"]) > 100


def test_container_inherits_no_descriptor_of_machine_or_agent(tables: Tables) -> None:
    held = tables["descriptors"]

    assert {name: target for name, target in held.items() if not OWN_DESCRIPTORS.match(target)} == {}
    # The first process of a fork's container takes its signals as a file; nobody else can open that.
    assert held.get("1/3", "anon_inode:[signalfd]") == "anon_inode:[signalfd]", held
    assert "1/4" not in held, held


def test_container_cannot_change_kernel_limits_or_namespaces(tables: Tables) -> None:
    kernel = tables["kernel"]

    assert {name: said for name, said in kernel.items() if said == "worked"} == {}
    assert len(kernel) > 70


def test_container_cannot_reach_ports_of_the_machine_or_its_neighbour(tables: Tables) -> None:
    reached = worked(tables["network"])
    # An address of another sender may be bound; what matters is that nothing arrives.
    forged = {name for name in reached if name.startswith("send to the neighbour")}

    assert set(reached) - forged == set(), reached
    assert tables["neighbour"]["heard"] == []


def test_container_cannot_use_other_apps_or_the_server(tables: Tables) -> None:
    protocol = dict(tables["protocol"])

    assert protocol.pop("own function").startswith("worked")
    assert protocol.pop("own function after forged events").startswith("worked")
    assert protocol.pop("call another app's function") == "failed"
    # What it may make: apps of its own, and what is found by its content and belongs to nobody.
    for name in ("make an app", "make a mount", "build an image"):
        assert protocol.pop(name).startswith("worked"), name
    assert {name: said for name, said in protocol.items() if said not in ("forbidden", "invalid", "not_found")} == {}
    for name in ("stop the server", "list apps", "run a command in a container", "look at another app's function"):
        assert protocol[name] == "forbidden", name
    assert tables["victim"]["still there"] == "of another app"


def test_containers_socket_refuses_what_is_not_its_own(tables: Tables) -> None:
    said = dict(tables["socket"])
    kept = int(said.pop("a flood of connections"))

    assert said.pop("another call meanwhile") == "42"
    assert said.pop("a wrong frame later") == "goes on, EOFError: closed"
    assert {
        name: outcome for name, outcome in said.items() if outcome not in ("EOFError: closed", "ECONNRESET", "EPIPE")
    } == {}
    assert len(said) == 17
    assert 0 < kept <= CONNECTIONS_MAX


def test_container_can_use_its_files_processes_and_loopback(tables: Tables) -> None:
    can = {name: said for name, said in tables["can"].items() if "mirror" not in name and name != "look a name up"}

    assert {name: said for name, said in can.items() if not said.startswith("worked")} == {}


def test_container_can_use_the_network(tables: Tables) -> None:
    if "connect to the mirror" not in tables["can"]:
        pytest.skip("no Debian mirror of this machine's configuration answers from the machine itself")

    assert tables["can"]["look a name up"].startswith("worked"), tables["can"]
    assert tables["can"]["connect to the mirror"].startswith("worked"), tables["can"]


def test_blocked_network_leaves_loopback_and_calls(tables: Tables) -> None:
    said = dict(tables["cut_off"])

    assert said.pop("interfaces") == "lo"
    assert said.pop("listen on its loopback").startswith("worked")
    assert said.pop("call another function") == "2"
    assert worked(said) == {}


# ---- other accounts of the machine, and pages in the user's browser


def as_nobody(look: Callable[[], Any]) -> Any:
    """What an unprivileged account gets to see."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writing, json.dumps(look()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        found = json.loads(pipe.read())
    os.waitpid(child, 0)
    return found


def can_open(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def can_connect(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError:
            return False
    return True


def test_other_accounts_of_the_machine_read_where_the_server_is_and_nothing_else(squall: Installation) -> None:
    running = squall.start_run("sleeping.py::main")
    running.wait_said("asleep for")
    data_dir = str(squall.data_dir)
    files: list[str] = []
    sockets: list[str] = []
    for folder, folders, names in os.walk(data_dir):
        folders[:] = [name for name in folders if folder != data_dir or name not in ("layers", "removed")]
        for name in [*names, *folders]:
            path = f"{folder}/{name}"
            (sockets if stat.S_ISSOCK(os.lstat(path).st_mode) else files).append(path)
    of_processes = [
        f"/proc/{pid}/{name}" for pid in squall.processes() for name in ("environ", "root/etc", "mem", "fd")
    ]

    readable = as_nobody(lambda: [path for path in files + of_processes if can_open(path)])
    connected = as_nobody(lambda: [path for path in sockets if can_connect(path)])
    argv = as_nobody(lambda: [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in squall.processes()])

    seen = {os.path.relpath(path, data_dir) for path in readable}
    assert seen <= {"server.json", "id-ranges", "network"}, sorted(seen)
    assert len(files) > 20
    assert connected == []
    assert len(sockets) >= 3, sockets
    assert not any("TOKEN" in line or (squall.data_dir / "token").read_text().strip() in line for line in argv), argv


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic {token}"}, 401),
        ({"Cookie": "token={token}"}, 401),
        ({"Authorization": "Bearer {token}", "Host": "attacker.example"}, 403),
        ({"Authorization": "Bearer {token}", "Host": "localhost.attacker.example"}, 403),
        ({"Authorization": "Bearer {token}", "Host": "127.0.0.1@attacker.example"}, 403),
        ({"Authorization": "Bearer {token}", "Origin": "http://attacker.example"}, 403),
        ({"Authorization": "Bearer {token}", "Origin": "null"}, 403),
        ({"Content-Type": "text/plain", "Origin": "http://attacker.example"}, 403),
        ({"Authorization": "Bearer {token}"}, 200),
    ],
)
@pytest.mark.parametrize("is_upgrade", [False, True], ids=["post", "websocket"])
def test_page_in_a_browser_gets_nowhere(
    squall: Installation, headers: dict[str, str], status: int, is_upgrade: bool
) -> None:
    url = urlsplit(json.loads((squall.data_dir / "server.json").read_text())["url"])
    token = (squall.data_dir / "token").read_text().strip()
    sent = {name: value.format(token=token) for name, value in headers.items()}
    client = http.client.HTTPConnection("127.0.0.1", url.port or 80, timeout=10)

    if is_upgrade:
        sent |= {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        client.request("GET", "/api/v1/channel", headers={**sent, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="})
    else:
        client.request("POST", f"/api/v1/AppList?token={token}", "{}", sent)
    answer = client.getresponse()

    assert answer.status == (101 if is_upgrade and status == 200 else status)
    assert "access-control-allow-origin" not in {name.lower() for name, _ in answer.getheaders()}
    client.close()


# ---- user code that will not go


@pytest.mark.parametrize("way", ["loses stdout", "forges marks", "daemonises", "ignores SIGTERM"])
def test_user_code_that_will_not_go_is_ended(squall: Installation, way: str) -> None:
    ended = squall.run("hostile.py::stay", "--way", way, timeout_s=40)

    assert ended.code == 0, ended
    assert "said: answered" in ended.out, ended
    squall.wait_no_processes(5)


def test_user_code_that_closes_its_descriptors_fails_or_answers_and_is_ended(squall: Installation) -> None:
    ended = squall.run("hostile.py::stay", "--way", "closes descriptors", timeout_s=50)

    assert ended.code == 0, ended
    assert re.search(r"^(said|failed): ", ended.out, re.MULTILINE), ended
    squall.wait_no_processes(5)
