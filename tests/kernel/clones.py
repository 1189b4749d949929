"""User namespaces as those of clones, and network namespaces that belong to them, without a spawner."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading

from squall.runtime.network.owner import SlotOwner
from squall.runtime.spec import IdRange, NetworkSlot

# Enters the range's user namespace; its child becomes the template's user there, makes another user namespace, and in
# that one network namespaces, as they are asked for.
PROGRAM = """
import os, socket, sys
from squall.runtime import syscalls as sc
from squall.runtime.id_ranges import make_user_namespace
from squall.runtime.spec import IdRange
channel = socket.socket(fileno=int(sys.argv[1]))
start, size, uid = map(int, sys.argv[2:])
sc.setns(make_user_namespace(IdRange(start, size)), sc.CLONE_NEWUSER, "the range")
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(ready[0], 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{name}", "w") as file:
            file.write(f"0 0 {size}")
    channel.send(str(child).encode())
    channel.close()
    os.write(go[1], b"x")
    os.waitpid(child, 0)
    sys.exit()
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
# What changes its user does not show its maps.
sc.prctl(sc.PR_SET_DUMPABLE, 1)
sc.unshare(sc.CLONE_NEWUSER)
os.write(ready[1], b"x")
os.read(go[0], 1)
while channel.recv(1):
    sc.unshare(sc.CLONE_NEWNET)
    made = os.open("/proc/self/ns/net", os.O_RDONLY)
    socket.send_fds(channel, [b"x"], [made])
    os.close(made)
"""
WAIT_S = 20.0


class CloneNamespaces:
    """Of each owner the user namespace its clones live in. Close it: each is held by a process."""

    def __init__(self) -> None:
        self._makers: dict[SlotOwner, tuple[subprocess.Popen[bytes], socket.socket, int]] = {}
        self._lock = threading.Lock()
        self.asked: list[int] = []
        """How many each request was for."""

    def close(self) -> None:
        for process, channel, _ in self._makers.values():
            channel.close()
            process.wait(WAIT_S)

    async def make_namespaces(self, id_range: IdRange, uid: int, count: int) -> list[int]:
        """As `Runtime.make_network_namespaces`."""
        self.asked.append(count)
        return await asyncio.to_thread(self._make, SlotOwner(id_range, uid), count)

    def path_of(self, owner: SlotOwner) -> str:
        """Where its user namespace is to be found."""
        return f"/proc/{self._maker(owner)[2]}/ns/user"

    def run(self, owner: SlotOwner, slot: NetworkSlot, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program in a slot as a clone that has dropped nothing: root of the clones' user namespace."""
        namespaces = (f"--user={self.path_of(owner)}", f"--net={slot.netns_path}")
        command = ("nsenter", *namespaces, "--setuid=0", "--setgid=0", *argv)
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    def _make(self, owner: SlotOwner, count: int) -> list[int]:
        made = []
        with self._lock:
            channel = self._maker(owner)[1]
            for _ in range(count):
                channel.send(b"x")
                made += socket.recv_fds(channel, 1, 1)[1]
        return made

    def _maker(self, owner: SlotOwner) -> tuple[subprocess.Popen[bytes], socket.socket, int]:
        if owner not in self._makers:
            channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            channel.settimeout(WAIT_S)
            numbers = (theirs.fileno(), owner.id_range.start, owner.id_range.size, owner.uid)
            argv = [sys.executable, "-c", PROGRAM, *map(str, numbers)]
            process = subprocess.Popen(argv, pass_fds=(theirs.fileno(),))
            theirs.close()
            self._makers[owner] = process, channel, int(channel.recv(20))
        return self._makers[owner]
