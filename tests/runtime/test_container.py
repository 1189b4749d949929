"""How a first process ended, read from its wait status; and what comes from those on their way."""

from __future__ import annotations

import os
import socket

import pytest

from squall.runtime.container import receive, status_from_wait
from squall.runtime.spec import ExitStatus


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, ExitStatus(code=0, signal=None)),
        (3 << 8, ExitStatus(code=3, signal=None)),
        (128 << 8, ExitStatus(code=128, signal=None)),
        (137 << 8, ExitStatus(code=None, signal=9)),
        (255 << 8, ExitStatus(code=255, signal=None)),
        (9, ExitStatus(code=None, signal=9)),
    ],
)
def test_status_is_a_code_or_a_signal(status: int, expected: ExitStatus) -> None:
    assert status_from_wait(status, is_oom=False) == expected


@pytest.mark.parametrize("is_expected", [True, False])
def test_descriptors_that_nobody_expects_are_not_kept(is_expected: bool) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(theirs, [b'{"word": 1}'], [ours.fileno(), theirs.fileno()])
        before = set(os.listdir("/proc/self/fd"))
        descriptors: list[int] = []

        message = receive(ours, descriptors if is_expected else None)

        assert message == {"word": 1}
        assert len(set(os.listdir("/proc/self/fd")) - before) == len(descriptors) == (2 if is_expected else 0)
        for descriptor in descriptors:
            os.close(descriptor)
