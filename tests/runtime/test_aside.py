"""What is done beside the spawner's loop ends with it, and never holds what is the spawner's."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from squall.runtime.launch import fork_aside
from squall.runtime.peer import Peer
from squall.runtime.poll import Poller

# Stands for a spawner: has a lock, and something that it does aside which takes long.
SPAWNER = """
import fcntl, os, signal, sys, time
from squall.runtime import launch
from squall.runtime.spec import IdRange
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
fcntl.flock(lock, fcntl.LOCK_EX)
if sys.argv[2] == "aside":
    forked = launch.fork_aside(signal.pause, (lock,))
else:
    from squall.runtime.id_ranges import make_nested_namespace, make_user_namespace
    id_range = IdRange(0x7A00_0000)
    nested = make_nested_namespace(id_range, make_user_namespace(id_range), 0)
    forked = launch.fork_network_namespaces(nested, 10_000, (lock,))
print(forked.pid, flush=True)
signal.pause()
"""


def is_free(lock: Path) -> bool:
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize("what", ["aside", pytest.param("namespaces", marks=pytest.mark.kernel)])
def test_it_ends_with_the_spawner(tmp_path: Path, what: str) -> None:
    if what == "namespaces" and os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", SPAWNER, str(lock), what], stdout=subprocess.PIPE) as spawner:
        assert spawner.stdout is not None
        aside = os.pidfd_open(int(spawner.stdout.readline()))
        assert not is_free(lock)

        spawner.kill()
        spawner.wait()

        assert select.select([aside], [], [], 10)[0], "it lives on"
        assert is_free(lock)
        os.close(aside)


def test_a_connection_ends_though_something_is_done_aside() -> None:
    poller = Poller()
    ours, theirs = socket.socketpair()
    peer = Peer(ours, poller, lambda peer, message: None, lambda peer: None)
    begun_read, begun_write = os.pipe()

    def work() -> None:
        os.write(begun_write, b".")
        signal.pause()

    forked = fork_aside(work, poller.private)
    try:
        os.read(begun_read, 1)

        peer.close()

        assert select.select([theirs], [], [], 10)[0], "somebody has it open"
        assert theirs.recv(1) == b""
        assert poller.private == set()
    finally:
        os.kill(forked.pid, signal.SIGKILL)
        os.waitpid(forked.pid, 0)
        for channel in (forked.channel, theirs):
            channel.close()
        for descriptor in (forked.pidfd, begun_read, begun_write):
            os.close(descriptor)


def test_what_cannot_be_killed_just_now_does_not_hold_the_spawners_lock(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    begun_read, begun_write = os.pipe()

    def work() -> None:
        os.write(begun_write, b".")
        signal.pause()

    forked = fork_aside(work, (lock,))
    try:
        os.read(begun_read, 1)

        os.close(lock)

        assert is_free(tmp_path / "lock")
    finally:
        os.kill(forked.pid, signal.SIGKILL)
        os.waitpid(forked.pid, 0)
        forked.channel.close()
        for descriptor in (forked.pidfd, begun_read, begun_write):
            os.close(descriptor)
