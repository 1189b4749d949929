"""Server, agent, spawner, containers, templates: killed at random while calls are made, none is lost or comes twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.programs import chaos
from bench.programs.chaos_kills import WEIGHTS
from squall.main.websocket import PING_S
from squall.server.model.config import ServerConfig
from tests.e2e.installation import Installation, link_layers

STILL_S = 2 * PING_S + ServerConfig().node_grace_s + 15.0
"""Longer than the server takes to miss a node, and then waits for it."""


@contextmanager
def logs_kept(data_dir: Path, kept: Path, seed: int) -> Iterator[None]:
    """A failure in the block names the seed, shows the ends of the programs' logs and keeps the whole."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"seed {seed}; the logs are kept in {kept}")
        for name, log in chaos.logs(data_dir).items():
            error.add_note(f"--- the end of the {name}'s log\n{chaos.tail(log)}")
            if log.exists():
                shutil.copy(log, kept / f"{name}.log")
        raise


def live_through(data_dir: Path, calls: int, seed: int, kept: Path) -> None:
    """Live through a run of that seed."""
    with logs_kept(data_dir, kept, seed):
        found = chaos.run(data_dir, calls, seed)
        check(found, calls)
        assert {f"kills_{kind}" for kind in WEIGHTS} <= found.keys(), found


def check(found: Mapping[str, object], calls: int) -> None:
    """All calls were made, each has its one output, and no program has ended by itself."""
    assert (found["lost"], found["duplicated"]) == (0, 0), found
    assert isinstance(found["calls"], int)
    assert found["calls"] >= calls * 9 // 10, found
    assert not found["ended_by_itself"], f"a program ended that nobody killed: {found}"


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


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_calls_live_through_an_agent_that_stands_still_until_it_is_given_up(place: Path, tmp_path: Path) -> None:
    with logs_kept(place, tmp_path, seed=5):
        check(chaos.stand_still(place, 600, 5, still_s=STILL_S), 600)

        assert "is lost" in chaos.logs(place)["server"].read_text(), "the server has not noticed"
