"""Whatever happens on the way of a template to the disk, whoever asked for it is answered."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from squall.runtime import syscalls as sc
from squall.runtime.container import Reply
from squall.runtime.criu import saving
from squall.runtime.criu.tool import Tool
from squall.runtime.errors import FeatureMissing, RuntimeFailure, TemplateUnfit
from squall.runtime.launch import Forked, tell
from squall.runtime.poll import Poller
from squall.runtime.procfs import read_children as children_of
from squall.runtime.templates import Template


class Asked:
    """A template that is asked for a copy of itself, and answers from this process."""

    def __init__(self, pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(saving, "find_tool", lambda: Tool("/nonexistent"))
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        entry = SimpleNamespace(
            spec=SimpleNamespace(id_range=None), forked=SimpleNamespace(pidfd=os.pidfd_open(os.getpid())), cgroup=None
        )
        self.template = Template(cast(Any, entry), ours, pid=pid)
        self.poller = Poller()
        self.answers: list[Reply | RuntimeFailure] = []
        self.poller.call_later(5.0, self._stop)
        saving.Saving(self.poller).save(self.template, "/nonexistent", 0, self._answer)
        _, (self.descriptor,), _, _ = socket.recv_fds(self.theirs, 100, 1)

    def _answer(self, outcome: Reply | RuntimeFailure) -> None:
        self.answers.append(outcome)
        self._stop()

    def _stop(self) -> None:
        self.poller.is_stopped = True

    def says(self, data: bytes) -> None:
        with socket.socket(fileno=self.descriptor) as channel:
            channel.send(data)
        self.poller.run()
        self.theirs.close()
        self.template.control.close()


@pytest.fixture
def ended_pid() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_a_template_that_ends_before_its_copy_is_looked_for_is_not_saved(
    ended_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(ended_pid, monkeypatch)

    asked.says(b"{}")

    (answer,) = asked.answers
    assert isinstance(answer, TemplateUnfit)
    assert "no copy of itself" in answer.message


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), FeatureMissing("CRIU is gone")])
def test_a_copy_that_cannot_be_saved_is_forgotten(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork_save(*_: object, **limits: object) -> None:
        raise error

    killed: list[int] = []
    monkeypatch.setattr(saving, "read_children", lambda _: [os.getpid()])
    monkeypatch.setattr(saving, "fork_save", fork_save)
    monkeypatch.setattr(saving, "_kill", killed.append)
    asked = Asked(os.getppid(), monkeypatch)

    asked.says(b"{}")

    (answer,) = asked.answers
    assert isinstance(answer, TemplateUnfit)
    assert str(error) in answer.message
    assert not asked.template.copies, "or a look for strays would spare whoever has the number next"
    assert killed


def test_a_copy_that_nothing_can_be_held_by_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def dup(_: int) -> int:
        raise OSError(24, "Too many open files")

    killed: list[int] = []
    monkeypatch.setattr(saving, "read_children", lambda _: [os.getpid()])
    monkeypatch.setattr(saving, "_kill", killed.append)
    asked = Asked(os.getppid(), monkeypatch)
    monkeypatch.setattr(os, "dup", dup)

    asked.says(b"{}")

    (pidfd,) = killed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pidfd)
    assert isinstance(asked.answers[0], TemplateUnfit)


@pytest.mark.skipif(os.geteuid() != 0, reason="to look for what is left covered needs root")
@pytest.mark.parametrize("has_zombie", [False, True])
def test_what_hangs_is_ended_from_below_and_who_waits_for_it_says_so(
    monkeypatch: pytest.MonkeyPatch, has_zombie: bool
) -> None:
    def fork_save(*_: object, **limits: object) -> Forked:
        """As the real one: whoever waits for a CRIU that hangs has its own to do when that ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            hanging = os.fork()
            if hanging == 0:
                if has_zombie and os.fork() == 0:
                    os._exit(0)
                signal.pause()
            status = os.waitpid(hanging, 0)[1]
            tell(theirs, {"kind": "TemplateUnfit", "error": f"CRIU ended with {os.WTERMSIG(status)}"})
            os._exit(1)
        theirs.close()
        return Forked(pid, os.pidfd_open(pid), ours)

    monkeypatch.setattr(saving, "SAVE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(saving, "read_children", lambda pid: [os.getpid()] if pid == os.getppid() else children_of(pid))
    monkeypatch.setattr(saving, "fork_save", fork_save)
    monkeypatch.setattr(saving, "_kill", lambda _: None)
    asked = Asked(os.getppid(), monkeypatch)

    asked.says(b"{}")

    (answer,) = asked.answers
    assert isinstance(answer, TemplateUnfit)
    assert answer.message == "CRIU ended with 9"


@pytest.fixture
def is_heir() -> Iterator[None]:
    """Whose parent has ended is a child of this process, as of a spawner."""
    sc.prctl(sc.PR_SET_CHILD_SUBREAPER, 1)
    yield
    sc.prctl(sc.PR_SET_CHILD_SUBREAPER, 0)


class Left:
    """Somebody of a save is left when that has been killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(saving, "read_children", lambda _: [os.getpid()])
        monkeypatch.setattr(saving, "_kill", lambda _: None)
        monkeypatch.setattr(saving, "fork_save", self._fork_save)
        monkeypatch.setattr(saving, "uncover", lambda _: None)
        self.asked = Asked(os.getppid(), monkeypatch)

    def _fork_save(self, *_: object, **limits: object) -> Forked:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        told_read, told_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            left = os.fork()
            if left == 0:
                theirs.close()
                os.write(told_write, b".")
                signal.pause()
            os.read(told_read, 1)
            os.kill(os.getpid(), signal.SIGKILL)
        theirs.close()
        self.group = pid
        return Forked(pid, os.pidfd_open(pid), ours)


@pytest.mark.usefixtures("is_heir")
def test_whoever_is_left_of_a_save_that_was_killed_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    left = Left(monkeypatch)

    left.asked.says(b"{}")

    (answer,) = left.asked.answers
    assert isinstance(answer, TemplateUnfit)
    assert "was killed" in answer.message
    with pytest.raises(ChildProcessError):
        os.waitpid(-left.group, os.WNOHANG)


@pytest.mark.usefixtures("is_heir")
def test_whoever_cannot_be_ended_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "SAVE_TIMEOUT_S", 0.2)
    with monkeypatch.context() as waiting:
        # As one that waits for a disk.
        waiting.setattr(os, "killpg", lambda *_: None)
        left = Left(monkeypatch)

        left.asked.says(b"{}")

    assert "was killed" in str(left.asked.answers[0])
    os.killpg(left.group, signal.SIGKILL)
    os.waitpid(-left.group, 0)


@pytest.mark.usefixtures("is_heir")
def test_who_waits_is_told_though_nothing_can_be_tidied_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_aside(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(saving, "run_aside", run_aside)
    left = Left(monkeypatch)
    before = len(os.listdir("/proc/self/fd"))

    left.asked.says(b"{}")

    assert "was killed" in str(left.asked.answers[0])
    assert len(os.listdir("/proc/self/fd")) <= before
