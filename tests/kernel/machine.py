"""A machine of a test's own, whose network is the test's to change, and what is asked of slots on it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute

from squall.runtime.network.names import Names
from squall.runtime.network.namespaces import CLONE_NEWNET, _libc, current_namespace
from squall.runtime.network.pool import NetworkPool
from squall.runtime.spec import NetworkSlot

INSTANCE = f"test-{os.getpid()}"
MACHINE_ADDRESS = "192.0.2.10"
OUTSIDE_ADDRESS = "192.0.2.1"
METADATA_ADDRESS = "169.254.169.254"
UPLINK_MTU = 1380
TOOL_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
MakePool = Callable[..., NetworkPool]


def missing() -> str:
    if os.geteuid() != 0:
        return "network namespaces need root"
    tools = [tool for tool in ("nft", "nsenter", "ip") if shutil.which(tool, path=TOOL_PATH) is None]
    return f"missing tools: {', '.join(tools)}" if tools else ""


PROBE = """
import errno, socket, sys
kind, host, port, text, source = sys.argv[1:6]
probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
probe.settimeout(float(sys.argv[6]))
try:
    if source:
        probe.bind((source, 0))
    probe.connect((host, int(port)))
    probe.sendall(text.encode())
    print(probe.recv(4096).decode(), end="")
except TimeoutError:
    print("timeout", end="")
except OSError as error:
    print(errno.errorcode[error.errno], end="")
"""


LISTENER = """
import socket
listener = socket.create_server(("0.0.0.0", 8080))
listener.settimeout(20)
print("up", flush=True)
listener.accept()
"""


def run_inside(slot: NetworkSlot, *argv: str) -> str:
    return run("nsenter", f"--net={slot.netns_path}", *argv)


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def probe(
    slot: NetworkSlot, host: str, port: int, *, kind: str = "tcp", source: str = "", timeout_s: float = 3
) -> str:
    """What a program in the slot gets from `host:port`: an answer, the name of an errno, or `timeout`."""
    argv = [sys.executable, "-S", "-E", "-c", PROBE, kind, host, str(port), "hello", source, str(timeout_s)]
    return await asyncio.to_thread(run_inside, slot, *argv)


@contextmanager
def inside_namespace(descriptor: int) -> Iterator[None]:
    home = current_namespace()
    os_setns(descriptor)
    try:
        yield
    finally:
        os_setns(home)
        os.close(home)


def os_setns(descriptor: int) -> None:
    assert _libc().setns(descriptor, CLONE_NEWNET) == 0


def new_namespace_fd() -> int:
    home = current_namespace()
    assert _libc().unshare(CLONE_NEWNET) == 0
    made = current_namespace()
    os_setns(home)
    os.close(home)
    return made


class Server:
    """Answers every connection or datagram with its name and the peer's address, until it is closed."""

    def __init__(self, name: str, address: str, port: int, kind: str = "tcp") -> None:
        self.name = name
        self.seen: list[str] = []
        self._is_tcp = kind == "tcp"
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM if self._is_tcp else socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, port))
        self._socket.settimeout(0.1)
        if self._is_tcp:
            self._socket.listen()
        self.port = int(self._socket.getsockname()[1])
        self._is_open = True
        self._thread = threading.Thread(target=self._serve, name=f"server-{name}")
        self._thread.start()

    def _serve(self) -> None:
        while self._is_open:
            try:
                self._answer()
            except TimeoutError:
                continue

    def _answer(self) -> None:
        if self._is_tcp:
            peer, address = self._socket.accept()
            with peer:
                peer.settimeout(2)
                peer.recv(4096)
                self.seen.append(address[0])
                peer.sendall(f"{self.name} {address[0]}".encode())
        else:
            _, address = self._socket.recvfrom(4096)
            self.seen.append(address[0])
            self._socket.sendto(f"{self.name} {address[0]}".encode(), address)

    def close(self) -> None:
        self._is_open = False
        self._thread.join()
        self._socket.close()


class Machine:
    """A namespace that plays the machine, and one that plays the outside, joined by a cable."""

    def __init__(self) -> None:
        self.machine_fd, self.outside_fd = new_namespace_fd(), new_namespace_fd()
        self._servers: list[Server] = []
        with inside_namespace(self.outside_fd), IPRoute() as route:
            peer = {"ifname": "up0", "net_ns_fd": self.machine_fd, "mtu": UPLINK_MTU}
            route.link("add", ifname="cable0", kind="veth", mtu=UPLINK_MTU, peer=peer)
            index = route.link_lookup(ifname="cable0")[0]
            for address, length in ((OUTSIDE_ADDRESS, 24), (METADATA_ADDRESS, 32), ("203.0.113.5", 32)):
                route.addr("add", index=index, address=address, prefixlen=length)
            route.link("set", index=index, state="up")
            route.link("set", index=1, state="up")
        with inside_namespace(self.machine_fd), IPRoute() as route:
            index = route.link_lookup(ifname="up0")[0]
            route.addr("add", index=index, address=MACHINE_ADDRESS, prefixlen=24)
            route.link("set", index=index, state="up")
            route.link("set", index=1, state="up")
            route.route("add", dst="default", gateway=OUTSIDE_ADDRESS, oif=index)
            # A cable is there a moment after both its ends are: what changes later is a test's doing.
            deadline = time.monotonic() + 10
            while route.get_links(index)[0].get_attr("IFLA_OPERSTATE") != "UP" and time.monotonic() < deadline:
                time.sleep(0.01)

    def serve(self, name: str, address: str, port: int = 0, kind: str = "tcp", *, outside: bool = False) -> Server:
        with inside_namespace(self.outside_fd if outside else self.machine_fd):
            self._servers.append(Server(name, address, port, kind))
        return self._servers[-1]

    def close(self) -> None:
        for server in self._servers:
            server.close()
        os.close(self.machine_fd)
        os.close(self.outside_fd)


def remains(state_dir: Path) -> list[str]:
    """Everything of the test's instance that is left in the kernel and on disk."""
    names = Names(INSTANCE)
    with IPRoute() as route:
        found = [str(link.get_attr("IFLA_IFNAME")) for link in route.get_links()]
    left = [name for name in found if name.startswith(f"sq{names.tag}")]
    left += [line for line in nft("list", "tables").splitlines() if names.table in line]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        left += [line for line in file if str(state_dir) in line]
    return left + [str(path) for path in state_dir.glob("*")]


def nft(*argv: str) -> str:
    return run("nft", *argv)


async def settle(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
