"""How a first process ended, read from its wait status."""

from __future__ import annotations

import pytest

from squall.runtime.container import status_from_wait
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
