"""What no fork of a template can get rid of is looked at all the same; here by processes that are none."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from squall.runtime import syscalls as sc
from squall.runtime import verification
from squall.runtime.errors import TemplateUnfit
from squall.runtime.seccomp import build_filter
from squall.runtime.verification import Cell, Expected, verify

ALL = (1 << 64) - 1
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17


@contextmanager
def process(prepare: Callable[[], None]) -> Iterator[int]:
    """One that has done this and waits; it is where this one is, with what this one holds."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            prepare()
            os.write(done, b"x")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(ready, 1) == b"x"
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(done)


def problem(pid: int) -> str:
    """Of one that is in its right place, with nothing around it."""
    expected = Expected(Cell.of(os.getpid()), os.getpid(), "", ALL, 0, frozenset(), 1)
    return verification._of_status(pid, expected)


def wear_filter() -> None:
    sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    sc.install_seccomp(build_filter())


def test_one_that_is_confined_is_fit() -> None:
    with process(wear_filter) as pid:
        assert problem(pid) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="a filter without no_new_privs needs root")
def test_new_privileges_are_to_be_given_up() -> None:
    with process(lambda: sc.install_seccomp(build_filter())) as pid:
        assert "new privileges" in problem(pid)


def test_some_filter_is_to_be_worn() -> None:
    with process(lambda: sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)) as pid:
        assert "no filter" in problem(pid)


def test_nobody_traces_it() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with process(wear_filter) as pid:
        if libc.ptrace(PTRACE_SEIZE, pid, 0, 0) != 0:
            pytest.skip("nobody may trace here")
        try:
            assert "traced" in problem(pid)
        finally:
            libc.ptrace(PTRACE_DETACH, pid, 0, 0)


def test_one_that_has_ended_is_told_as_that() -> None:
    with process(wear_filter) as pid:
        expected = Expected(Cell.of(pid), os.getpid(), "", ALL, 0, frozenset(), 1)

    with pytest.raises(TemplateUnfit, match="it has ended"):
        verify(pid, expected)


def test_where_a_file_is_mounted_is_known() -> None:
    with open(__file__, encoding="utf-8") as file:
        found = sc.find_file(f"/proc/self/fd/{file.fileno()}")

        with open(f"/proc/self/fdinfo/{file.fileno()}", encoding="ascii") as info:
            mount_id = next(int(line.split()[1]) for line in info if line.startswith("mnt_id:"))
        assert (found.inode, found.mount_id) == (os.fstat(file.fileno()).st_ino, mount_id)
    assert sc.find_file("/dev/null").device == os.makedev(1, 3)
    with pytest.raises(FileNotFoundError):
        sc.find_file("/nonexistent")
