"""What containers are forked from, and those who fork, killed outright: callers get every result, and forks go on."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.e2e.installation import PROGRAMS, Ended, Installation, Running, wait_until

pytestmark = pytest.mark.timeout(300)

BURST = """
import squall
for found in squall.Function.from_name("bursting", "square").map(range({count})):
    print("result:", *found, flush=True)
"""
SLEEP = "import squall; print('slept:', squall.Function.from_name('bursting', 'sleep').remote({seconds}), flush=True)"
AGAIN_S = 60.0
"""Until a template is made anew where one was killed: what has failed rests for a while."""


@pytest.fixture
def deployed(make_installation: Callable[[Mapping[str, str]], Installation]) -> Installation:
    """By the shortest path there is, whatever the tests are run with."""
    installation = make_installation({"SQUALL_START_PATH": "auto", "SQUALL_NETWORK_SLOTS": "8"})
    ended = installation.command("deploy", str(PROGRAMS / "bursting.py"), timeout_s=120)
    assert ended.code == 0, ended
    return installation


def program(squall: Installation, source: str) -> Running:
    return squall.start("-c", source, executable=(sys.executable,))


def results(text: str) -> list[tuple[int, int, str]]:
    found = re.findall(r"^result: (\d+) (\d+) (\S+)$", text, re.MULTILINE)
    return [(int(x), int(squared), container_id) for x, squared, container_id in found]


def slept(squall: Installation, seconds: float = 0.0) -> str:
    """The container of a call of `sleep`."""
    return container_of(program(squall, SLEEP.format(seconds=seconds)).wait(60))


def squared(squall: Installation) -> str:
    """The container of a call of `square`: always another one."""
    return container_of(program(squall, BURST.format(count=1)).wait(60))


def container_of(ended: Ended) -> str:
    assert ended.code == 0, ended
    return ended.out.split()[-1]


def templates(squall: Installation, function: str) -> list[str]:
    """Ids of those that can be forked."""
    ended = squall.command("template", "list", "--json", "--app", "bursting")
    assert ended.code == 0, ended
    return [
        one["template_id"]
        for one in json.loads(ended.out)
        if (one["function"], one["kind"], one["state"]) == (function, "function", "ready")
    ]


def template_of(squall: Installation, container_id: str) -> str:
    """Which one a container that runs is a fork of, as its node has written it down."""
    path = squall.data_dir / "containers" / squall.group_of(container_id) / "agent.json"
    return str(json.loads(path.read_text())["template_id"])


def in_groups(squall: Installation, prefix: str) -> dict[int, tuple[str, str]]:
    """Processes whose control group is called so: what the group is called, and what the process executes."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            group = re.search(rf"/{squall.instance}/({prefix}[\w-]+)", Path(f"/proc/{pid}/cgroup").read_text())
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if group and argv[0]:
            found[int(pid)] = (group[1], os.fsdecode(argv[0]))
    return found


def is_first(executed: str) -> bool:
    """Whether that is what the first process of a template and of a cell executes."""
    return "python" not in executed


def programs_of_templates(squall: Installation) -> list[int]:
    return [pid for pid, (_, executed) in in_groups(squall, "tp-").items() if not is_first(executed)]


def first_processes_of_templates(squall: Installation) -> list[int]:
    return [pid for pid, (_, executed) in in_groups(squall, "tp-").items() if is_first(executed)]


def clones_that_wait(squall: Installation) -> list[int]:
    """Programs in cells that are no containers yet; it may become one while it is looked at."""
    found = []
    for pid, (cell_id, executed) in in_groups(squall, "ce-").items():
        try:
            record = json.loads((squall.data_dir / "containers" / cell_id / "agent.json").read_text())
        except (OSError, ValueError):
            continue
        if not is_first(executed) and not record["container_id"]:
            found.append(pid)
    return found


def spawners(squall: Installation) -> list[int]:
    return [squall.spawner_pid()]


def test_templates_and_their_clones_outlive_a_server_that_is_killed(deployed: Installation) -> None:
    slept(deployed)
    (template_id,) = templates(deployed, "sleep")
    # Longer than a busy machine takes to start a server: else the one that runs it serves the next call, too.
    running = program(deployed, SLEEP.format(seconds=20))
    wait_until(lambda: "busy" in [one["state"] for one in deployed.containers()], "the call runs", 20)
    killed = deployed.server_pid()

    os.kill(killed, signal.SIGKILL)
    assert deployed.command("server", "start").code == 0
    beside = slept(deployed)

    assert deployed.server_pid() != killed
    assert templates(deployed, "sleep") == [template_id]
    assert deployed.path_of(beside) in ("fork", "parked")
    assert template_of(deployed, beside) == template_id
    survivor = container_of(running.wait(60))
    assert survivor != beside
    assert template_of(deployed, survivor) == template_id


@pytest.mark.parametrize(
    "victims",
    [
        programs_of_templates,
        pytest.param(first_processes_of_templates, marks=pytest.mark.slow),
        pytest.param(clones_that_wait, marks=pytest.mark.slow),
        spawners,
    ],
)
def test_every_input_of_a_burst_has_its_result_whatever_is_killed_meanwhile(
    deployed: Installation, victims: Callable[[Installation], list[int]]
) -> None:
    program(deployed, BURST.format(count=24)).wait(60)
    if victims is clones_that_wait:
        wait_until(lambda: bool(clones_that_wait(deployed)), "clones wait", 30)
    count = 120
    running = program(deployed, BURST.format(count=count))
    # Clones that wait are the first to be used, and none is made while containers start.
    kill_one(deployed, running, victims, after=0 if victims is clones_that_wait else 1)
    if victims is not clones_that_wait:
        kill_one(deployed, running, victims, after=50)

    ended = running.wait(120)

    assert ended.code == 0, ended
    assert [(x, squared) for x, squared, _ in results(ended.out)] == [(x, x * x) for x in range(count)], ended
    wait_until(lambda: deployed.path_of(squared(deployed)) != "plain", "starts are forks again", AGAIN_S)


def kill_one(squall: Installation, running: Running, victims: Callable[[Installation], list[int]], after: int) -> None:
    """Kill one of these once the program has so many results, and before it has all."""
    wait_until(lambda: len(results(running.said())) >= after, "the burst is in the middle", 60)
    deadline = time.monotonic() + 60
    while not (found := victims(squall)):
        assert running.process.poll() is None, "the burst ended before there was something to kill"
        assert time.monotonic() < deadline, "there is nothing to kill"
    os.kill(found[0], signal.SIGKILL)
