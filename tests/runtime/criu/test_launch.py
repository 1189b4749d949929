"""What saves and restores templates beside the spawner's loop ends with it, and never holds what is the spawner's."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from squall.runtime.criu import launch
from squall.runtime.criu.tool import Tool
from squall.runtime.launch import Forked, LaunchKit
from squall.runtime.spec import IdRange

WAIT_S = 10.0


def test_who_is_begun_in_another_pid_namespace_ends_with_its_parent() -> None:
    gate, open_gate = os.pipe()
    went_on, goes_on = os.pipe()
    parent = os.fork()
    if parent == 0:
        life, own_life = os.pipe()
        if os.fork() == 0:
            os.close(own_life)
            os.close(open_gate)
            os.write(goes_on, b".")
            os.read(gate, 1)
            launch.end_with_holder(life)
            os.write(goes_on, b"it goes on")
            os._exit(0)
        signal.pause()
    os.close(goes_on)
    assert os.read(went_on, 1) == b"."

    # Before the child could say that it is to end, too.
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    os.close(open_gate)

    assert os.read(went_on, 100) == b""
    for descriptor in (gate, went_on):
        os.close(descriptor)


@pytest.mark.parametrize("what", ["save", "restore"])
def test_what_cannot_be_killed_just_now_does_not_hold_what_is_the_spawners(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    # Stands for the disk that it waits for.
    for name in ("_number_inside", "carry_out", "context_of"):
        monkeypatch.setattr(launch, name, lambda *_: signal.pause())
    released, lock = os.pipe()
    with helper(what, lock):
        os.close(lock)

        assert select.select([released], [], [], WAIT_S)[0], "it is held"
    os.close(released)


@contextmanager
def helper(what: str, lock: int) -> Iterator[Forked]:
    """Of a template that is saved or restored."""
    tool, id_range = Tool("/nonexistent"), IdRange(0x7A00_0000)
    if what == "save":
        forked = launch.fork_save(tool, id_range, -1, os.getpid(), "/nonexistent", "/nonexistent", (lock,))
    else:
        kit, control = cast(LaunchKit, None), socket.socket()
        forked = launch.fork_restore(kit, tool, id_range, (), -1, (1, 2), control, "/nonexistent", -1, (lock,))
        control.close()
    try:
        yield forked
    finally:
        assert os.waitpid(forked.pid, os.WNOHANG) == (0, 0), "it has ended, and holds nothing for that"
        os.kill(forked.pid, signal.SIGKILL)
        os.waitpid(forked.pid, 0)
        os.close(forked.pidfd)
        forked.channel.close()
