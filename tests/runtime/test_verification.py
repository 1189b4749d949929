"""What no fork of a template can get rid of is looked at all the same; here by processes that are none."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    return verification._of_status(pid, expected(os.getpid()))


def expected(cell_pid: int, **fields: Any) -> Expected:
    """Of one in the cell of another process."""
    known: dict[str, Any] = {"channel_inode": (0, 0), "output_inodes": frozenset()}
    return Expected(Cell.of(cell_pid), os.getpid(), "", ALL, filter_count=1, **{**known, **fields})


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
        wanted = expected(pid)

    with pytest.raises(TemplateUnfit, match="it has ended"):
        verify(pid, wanted)


def test_pipe_is_known_by_more_than_its_number(tmp_path: Path) -> None:
    # Whoever makes enough files in memory of its own gets one of any number.
    os.mkfifo(tmp_path / "fifo")
    fifo, (output, write) = sc.find_file(str(tmp_path / "fifo")), os.pipe()
    try:
        pipe = sc.find_file(f"/proc/self/fd/{output}")
        assert pipe.inode == sc.inode_of(output)
    finally:
        os.close(output)
        os.close(write)
    device, _ = pipe.inode
    wanted = expected(os.getpid(), output_inodes=frozenset({pipe.inode, (device, fifo.inode[1])}))

    assert verification._is_harmless(pipe, wanted)
    assert not verification._is_harmless(fifo, wanted)


def test_channel_is_known_by_more_than_its_number(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.bind(str(tmp_path / "socket"))
        ours, file = sc.find_file(f"/proc/self/fd/{channel.fileno()}"), sc.find_file(str(tmp_path / "socket"))
    device, _ = ours.inode

    assert verification._is_harmless(ours, expected(os.getpid(), channel_inode=ours.inode))
    assert not verification._is_harmless(file, expected(os.getpid(), channel_inode=(device, file.inode[1])))


def test_where_a_file_is_mounted_is_known() -> None:
    with open(__file__, encoding="utf-8") as file:
        found = sc.find_file(f"/proc/self/fd/{file.fileno()}")

        with open(f"/proc/self/fdinfo/{file.fileno()}", encoding="ascii") as info:
            mount_id = next(int(line.split()[1]) for line in info if line.startswith("mnt_id:"))
        assert (found.inode, found.mount_id) == (sc.inode_of(file.fileno()), mount_id)
    assert sc.find_file("/dev/null").device == os.makedev(1, 3)
    with pytest.raises(FileNotFoundError):
        sc.find_file("/nonexistent")
