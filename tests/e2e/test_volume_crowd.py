"""Many containers write and read one volume, and are killed, and the server with them: every version is whole."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.installation import PROGRAMS, Ended, Installation, Running, wait_until

pytestmark = pytest.mark.timeout(400)

WRITERS_AND_READERS = 6


def crowding(squall: Installation, *arguments: object) -> Running:
    return squall.start(str(PROGRAMS / "crowding.py"), *map(str, arguments), executable=(sys.executable,))


def done(ended: Ended) -> str:
    assert ended.code == 0, ended
    return str(ended.out)


def kill_a_container(squall: Installation, chance: random.Random) -> None:
    """One whose files have no names before they are whole."""
    busy = [one for one in squall.containers() if one["state"] == "busy" and one["function"] == "write_renaming"]
    if not busy:
        return
    group = squall.group_of(chance.choice(busy)["container_id"])
    for pid in squall.processes():
        try:
            is_its = f"/{group}" in Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            continue
        if is_its:
            os.kill(pid, signal.SIGKILL)


def kill_the_server(squall: Installation) -> None:
    os.kill(squall.server_pid(), signal.SIGKILL)
    assert squall.command("server", "start").code == 0


def versions(squall: Installation) -> list[int]:
    ended = squall.command("volume", "history", "crowded", "--json", "--limit", "10000")
    return [one["version"] for one in json.loads(done(ended))]


def hold(squall: Installation, seed: int, seconds: float) -> None:
    assert squall.command("volume", "create", "crowded").code == 0
    assert squall.command("volume", "retention", "crowded", "--count", "10000", "--days", "1").code == 0
    chance, running = random.Random(seed), crowding(squall, "crowd", seed, seconds)
    wait_until(lambda: len(versions(squall)) > 2, "they write", 60)
    until = time.monotonic() + seconds * 0.7
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.5, 2.0))
        if chance.random() < 0.25:
            kill_the_server(squall)
        else:
            kill_a_container(squall, chance)

    said = done(running.wait(180))
    written = [int(count) for count in re.findall(r"^wrote (\d+)$", said, re.MULTILINE)]
    looks = re.findall(r"^read (\d+), torn (.*)$", said, re.MULTILINE)
    assert len(written) + len(looks) == WRITERS_AND_READERS, said
    assert all(count > 5 for count in written), said
    assert all(int(count) > 5 and torn == "[]" for count, torn in looks), said

    wait_until(lambda: not list((squall.data_dir / "volumes" / "written").iterdir()), "all of it is committed", 60)
    numbers = versions(squall)
    assert len(numbers) > 10
    looked_at = done(crowding(squall, "look", *numbers).wait(120)).splitlines()
    assert looked_at == [f"version {number}, torn []" for number in numbers]


@pytest.mark.parametrize("seed", [1])
def test_every_version_is_whole_whoever_writes_and_is_killed(fresh_squall: Installation, seed: int) -> None:
    hold(fresh_squall, seed, 6.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_every_version_is_whole_after_a_minute_of_kills(fresh_squall: Installation, seed: int) -> None:
    hold(fresh_squall, seed, 60.0)
