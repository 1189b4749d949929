"""What works where it was loaded and crashes in every fork: its function is loaded anew, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tests.e2e.installation import PROGRAMS, Installation

SQUARES = [x * x for x in range(9)]
AT_ONCE = 3


@pytest.fixture
def squall(make_installation: Callable[[Mapping[str, str]], Installation]) -> Installation:
    """Starts by the shortest path there is, whatever the tests are run with."""
    return make_installation({"SQUALL_START_PATH": "auto"})


@pytest.mark.parametrize("where", ["start", "call"])
def test_function_whose_forks_crash_is_loaded_anew_before_it_is_given_up(squall: Installation, where: str) -> None:
    # In an app of `squall run`, where few failures in a row fail all that waits; three forks crash at once.
    ended = squall.run(f"{PROGRAMS / 'crashing_forks.py'}::{where}")

    assert ended.code == 0, ended
    assert f"results: {SQUARES}" in ended.out
    assert AT_ONCE <= ended.err.count("container ended: SIGSEGV") <= 2 * AT_ONCE, ended
    assert "was loaded anew, and not copied from a memory snapshot: 2 containers forked from it" in ended.err


def test_forks_that_wait_for_their_first_call_cost_it_one_attempt(squall: Installation) -> None:
    ended = squall.run(f"{PROGRAMS / 'crashing_idle_forks.py'}")

    assert ended.code == 0, ended
    assert f"results: {SQUARES[:4]}" in ended.out
    assert ended.err.count("container ended: SIGSEGV") == 1, ended
    assert "not copied from a memory snapshot: a container forked from its template ended while it ran" in ended.err
