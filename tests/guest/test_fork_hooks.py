"""What hooks of `os.register_at_fork` find in a fork of a template: they run before it is anybody, and with all powers
that it ever has."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from squall.guest.clone import receive
from squall.protocol.guest import GuestHello
from tests.guest.started_template import Start

pytestmark = pytest.mark.long

PEEKING = """
import array, os, socket, stat

GATE = {gate!r}
seen = {{}}

def look():
    found = []
    for number in range(3, 1_000):
        try:
            is_socket = stat.S_ISSOCK(os.fstat(number).st_mode)
        except OSError:
            continue
        if is_socket:
            found.append((os.fstat(number).st_ino, peek(number)))
    return found

def peek(number):
    with socket.socket(fileno=os.dup(number)) as held:
        try:
            # By hand: Python's `recv_fds` does not pass flags on.
            data, ancillary, *_ = held.recvmsg(
                65_536, socket.CMSG_SPACE(128), socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        given = array.array("i", ancillary[0][2] if ancillary else b"")
        return data, [(os.fstat(one).st_mode, take(one)) for one in given]

def take(number):
    # What comes over a sibling's own socket: the way into its cell, and who it is.
    return peek(number) if stat.S_ISSOCK(os.fstat(number).st_mode) else None

def before():
    if os.path.exists(GATE):
        open(GATE).read()
        seen["before"] = look()

def after():
    if "before" in seen:
        seen["after"] = look()

os.register_at_fork(before=before, after_in_child=after)

def run():
    return seen
"""


def test_no_hook_of_a_fork_gets_at_the_socket_that_its_siblings_come_by(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    one = start(PEEKING.format(gate=str(gate)))
    one.ready("run")
    hostile = one.template.fork()
    one.forks.append(hostile)
    with gate.open("w"):
        # Its hook waits there, and nobody else takes what is sent to the template.
        gate.unlink()
        one.template.process.send_signal(signal.SIGSTOP)
        sibling = one.template.fork()
        one.forks.append(sibling)

    hostile.joined().begin("ct-1")
    one.template.process.send_signal(signal.SIGCONT)
    one.agent.expect("GuestHello", GuestHello)
    one.say_boot("ct-1")
    seen: dict[str, list[tuple[int, Any]]] = one.call()

    assert set(seen) == {"before", "after"}
    for found in seen.values():
        assert [peeked for _, peeked in found if peeked] == []
        assert len({inode for inode, _ in found}) == 1, "its own, to the spawner"
    sibling.joined()


DRAWING = """
import os

drawn = {}
# Before any of these has been imported: hooks run in the order in which they were registered.
os.register_at_fork(after_in_child=lambda: drawn.update(values()))

import random, numpy.random, ssl, tempfile, uuid

def values():
    return {
        "random": random.random(),
        "numpy": numpy.random.random(),
        "ssl": ssl.RAND_bytes(8).hex(),
        "tempfile": next(tempfile._get_candidate_names()),
        "uuid1": [uuid.uuid1().clock_seq, uuid.getnode()],
    }

values()

def run():
    return drawn
"""


def test_hooks_of_two_forks_draw_different_values(start: Start) -> None:
    one = start(DRAWING)
    one.ready("run")
    drawn = []

    for number in range(2):
        fork = one.fork(f"ct-{number}")
        drawn.append(one.call())
        one.stop(fork)

    first, second = drawn
    assert set(first) == {"random", "numpy", "ssl", "tempfile", "uuid1"}
    assert {name for name, value in first.items() if value == second[name]} == set()


FAILING = """
import numpy.random

def seed():
    raise OSError("no seed")

numpy.random.mtrand.seed = seed

def run():
    pass
"""


def test_fork_whose_randomness_cannot_be_made_anew_ends(start: Start) -> None:
    one = start(FAILING)
    one.ready("run")

    fork = one.template.fork()
    one.forks.append(fork)

    assert fork.said() == {"error": "OSError: no seed"}
    assert fork.said() == {}


def test_nothing_that_comes_from_the_spawner_is_inherited_by_what_a_hook_starts() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        os.set_inheritable(ours.fileno(), True)
        socket.send_fds(ours, [b"way"], [ours.fileno(), 0])

        data, descriptors = receive(theirs)

        assert (data, len(descriptors)) == (b"way", 2)
        assert [os.get_inheritable(one) for one in descriptors] == [False, False]
        for one in descriptors:
            os.close(one)
