"""A server that has one path for all containers (`SQUALL_START_PATH`) takes it, from the first start on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from squall.agent.config import FORK, PARKED, PLAIN, RESTORE
from tests.e2e.installation import Installation
from tests.kernel.executors import NEEDS_RUNSC


@pytest.mark.timeout(240)
@pytest.mark.parametrize("path", [PLAIN, FORK, PARKED, pytest.param(RESTORE, marks=NEEDS_RUNSC)])
def test_each_start_takes_the_path_that_is_for_all(
    make_installation: Callable[[Mapping[str, str]], Installation], path: str
) -> None:
    squall = make_installation({"SQUALL_START_PATH": path})

    ended = [squall.run("square.py", timeout_s=120) for _ in range(2)]

    assert [one.code for one in ended] == [0, 0], ended
    started = squall.started()
    assert len(started) >= 2
    assert [one.path for one in started] == [path] * len(started), started
