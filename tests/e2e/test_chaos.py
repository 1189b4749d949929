"""Server, agent, spawner and containers are killed at random while calls are made: none is lost, none comes twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.programs import chaos
from tests.e2e.installation import Installation, link_layers


def live_through(data_dir: Path, calls: int, seed: int) -> dict[str, object]:
    """What became of so many calls; a failure names the seed."""
    found = chaos.run(data_dir, calls, seed)
    assert (found["lost"], found["duplicated"]) == (0, 0), found
    assert isinstance(found["calls"], int)
    assert found["calls"] >= calls * 9 // 10, found
    assert not [name for name in found if name.endswith("by_itself")], f"a program ended that nobody killed: {found}"
    return found


@pytest.fixture
def place(session_installation: Installation, make_data_dir: Callable[[], Path]) -> Path:
    """A directory with the base image, for a server and a node."""
    data_dir = make_data_dir()
    link_layers(session_installation.data_dir, data_dir)
    return data_dir


@pytest.mark.timeout(300)
def test_a_few_hundred_calls_live_through_what_is_killed(place: Path) -> None:
    live_through(place, 600, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_thousands_of_calls_live_through_what_is_killed(place: Path, seed: int) -> None:
    found = live_through(place, 2_500, seed)

    assert {"kills_server", "kills_agent", "kills_container"} <= found.keys(), found
