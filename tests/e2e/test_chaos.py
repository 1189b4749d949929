"""Server, agent, spawner and containers are killed at random while calls are made: none is lost, none comes twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.programs import chaos
from bench.programs.chaos_kills import WEIGHTS
from tests.e2e.installation import Installation, link_layers


def live_through(data_dir: Path, calls: int, seed: int, kept: Path) -> None:
    """Live through a run of that seed; a failure names it, shows the ends of the programs' logs and keeps the whole."""
    try:
        found = chaos.run(data_dir, calls, seed)
        assert (found["lost"], found["duplicated"]) == (0, 0), found
        assert isinstance(found["calls"], int)
        assert found["calls"] >= calls * 9 // 10, found
        assert not found["ended_by_itself"], f"a program ended that nobody killed: {found}"
        assert {f"kills_{kind}" for kind in WEIGHTS} <= found.keys(), found
    except BaseException as error:
        error.add_note(f"seed {seed}; the logs are kept in {kept}")
        for name, log in chaos.logs(data_dir).items():
            error.add_note(f"--- the end of the {name}'s log\n{chaos.tail(log)}")
            if log.exists():
                shutil.copy(log, kept / f"{name}.log")
        raise


@pytest.fixture
def place(session_installation: Installation, make_data_dir: Callable[[], Path]) -> Path:
    """A directory with the base image, for a server and a node."""
    data_dir = make_data_dir()
    link_layers(session_installation.data_dir, data_dir)
    return data_dir


@pytest.mark.timeout(300)
def test_a_few_hundred_calls_live_through_what_is_killed(place: Path, tmp_path: Path) -> None:
    live_through(place, 600, seed=1, kept=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_thousands_of_calls_live_through_what_is_killed(place: Path, seed: int, tmp_path: Path) -> None:
    live_through(place, 2_500, seed, kept=tmp_path)
