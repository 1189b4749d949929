"""Calls of many inputs while the server is killed again and again: each has one result."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import time
from collections.abc import Callable

import pytest

import squall as sdk
from tests.e2e.flows import client_of
from tests.e2e.installation import PROGRAMS, Installation, Running, wait_until

SEED = 7
KILLS_MIN = 3


def kill_at_random(
    squall: Installation, running: Running, kills: int, how_far: Callable[[], int], steps: int, rng: random.Random
) -> int:
    """Kill the server so often, each time at some moment while the program gets on; how often it was killed."""
    killed = 0
    while killed < kills and running.process.poll() is None:
        before = how_far()
        wait_until(
            lambda before=before: how_far() >= before + steps or running.process.poll() is not None,  # type: ignore[misc]
            "the program gets on",
            60,
        )
        time.sleep(rng.uniform(0.0, 0.3))
        if running.process.poll() is None:
            os.kill(squall.server_pid(), signal.SIGKILL)
            killed += 1
    return killed


def last_number(running: Running, word: str) -> int:
    """The last it has said after this word; a line that is still being written says nothing yet."""
    numbers = re.findall(rf"^{word}(\d+)\n", running.said(), re.MULTILINE)
    return int(numbers[-1]) if numbers else 0


@pytest.mark.timeout(400)
@pytest.mark.parametrize("order", ["--ordered", "--no-ordered"])
def test_map_has_each_output_once_though_its_server_is_killed(fresh_squall: Installation, order: str) -> None:
    count, kills = 100_000, 4
    running = fresh_squall.start_run("counting.py::mapped", "--count", str(count), order)
    rng = random.Random(SEED)

    killed = kill_at_random(fresh_squall, running, kills, lambda: last_number(running, "at "), 10_000, rng)
    ended = running.wait(300)

    assert ended.code == 0, f"{ended.err}\n{fresh_squall.server_log()}"
    assert f"once: {count}\n" in ended.out
    if order == "--ordered":
        assert "in order: True\n" in ended.out
    assert killed >= KILLS_MIN, "the map was over too soon"


@pytest.mark.timeout(400)
def test_spawned_inputs_have_one_result_each_though_the_server_is_killed(fresh_squall: Installation) -> None:
    count, kills = 5_000, 6
    running = fresh_squall.start_run("counting.py::spawned", "--count", str(count))
    rng = random.Random(SEED)

    killed = kill_at_random(fresh_squall, running, kills, lambda: last_number(running, "acknowledged "), 200, rng)
    ended = running.wait(300)

    assert ended.code == 0, f"{ended.err}\n{fresh_squall.server_log()}"
    assert "all: True\n" in ended.out
    assert "same: True\n" in ended.out
    assert killed >= KILLS_MIN, "all was spawned too soon"


@pytest.mark.timeout(200)
def test_client_that_is_killed_while_it_spawns_leaves_what_was_acknowledged_running(
    fresh_squall: Installation,
) -> None:
    running = fresh_squall.start("run", "--detach", f"{PROGRAMS / 'counting.py'}::feed")
    wait_until(lambda: last_number(running, "fed ") >= 2_048, "some portions are fed", 60)
    running.signal(signal.SIGKILL)
    running.wait(5)

    with sqlite3.connect(f"file:{fresh_squall.data_dir}/squall.db?mode=ro", uri=True) as database:
        ((call_id, input_count),) = database.execute("SELECT call_id, input_count FROM calls WHERE kind = 'spawn_map'")
    with client_of(fresh_squall):
        results = list(sdk.FunctionCall.from_id(call_id).iter())
    stopped = fresh_squall.command("app", "stop", "-y", "counting")

    # What was on its way when it was killed may have come, too.
    assert results == list(range(len(results)))
    assert len(results) >= input_count >= 1_024
    assert stopped.code == 0, stopped


def test_result_that_does_not_fit_into_the_container_is_told_as_that(squall: Installation) -> None:
    ended = squall.run("counting.py::large")

    assert ended.code == 0, ended
    assert "caught: function build: the container ran out of memory while it ran this input (" in ended.out, ended
    assert f"afterwards: {20 * 2**20}\n" in ended.out, ended
