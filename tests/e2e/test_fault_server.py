"""Server or spawner killed outright: what runs is adopted or removed, and callers get every result."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from tests.e2e.installation import Installation, wait_until

RESTART_GRACE_S = 30.0
"""How long a new server waits for the clients of the one before."""


def results(text: str) -> list[tuple[int, int, str]]:
    """What the map has printed: input, output, container."""
    found = re.findall(r"^result: (\d+) (\d+) (\S+)$", text, re.MULTILINE)
    return [(int(x), int(squared), container_id) for x, squared, container_id in found]


def test_map_survives_its_server(fresh_squall: Installation) -> None:
    count = 32
    running = fresh_squall.start_run("sleeping.py::mapped", "--count", str(count))
    wait_until(lambda: len(results(running.said())) >= 4, "the first results are there", 40)
    killed = fresh_squall.server_pid()
    before = {container_id for _, _, container_id in results(running.said())}

    os.kill(killed, signal.SIGKILL)
    ended = running.wait(60)

    assert ended.code == 0, ended
    found = results(ended.out)
    assert [(x, squared) for x, squared, _ in found] == [(x, x * x) for x in range(count)], ended
    assert fresh_squall.server_pid() != killed
    late = {container_id for x, _, container_id in found if x >= count // 2}
    assert late <= before, f"containers were replaced and not adopted: {before} then {late}"
    fresh_squall.wait_no_processes(10)
    assert fresh_squall.containers() == []


def test_call_in_flight_survives_its_server(fresh_squall: Installation) -> None:
    running = fresh_squall.start_run("sleeping.py::main", "--duration-s", "3")
    running.wait_said("asleep for")

    os.kill(fresh_squall.server_pid(), signal.SIGKILL)
    ended = running.wait(40)

    assert ended.code == 0, ended
    assert "slept: 3.0" in ended.out, ended


def test_inputs_that_run_while_the_server_is_killed_run_once(fresh_squall: Installation) -> None:
    count, containers = 16, 4
    running = fresh_squall.start_run("sleeping.py::each_once", "--count", str(count))

    def results() -> list[tuple[str, str, str]]:
        return re.findall(r"^result: (\d+) (\S+) (\S+)$", running.said(), re.MULTILINE)

    wait_until(lambda: len(results()) >= containers, "the first results are there", 40)
    # All containers are in the middle of their second inputs.
    time.sleep(1)
    os.kill(fresh_squall.server_pid(), signal.SIGKILL)
    wait_until(lambda: len(results()) >= count or running.process.poll() is not None, "all results are there", 60)
    found = results()
    ended = running.wait(40)

    assert ended.code == 0, ended
    assert sorted(int(x) for x, _, _ in found) == list(range(count)), ended
    said = {container_id: "" for _, container_id, _ in found}
    for _, container_id, begun in found:
        said[container_id] = max(said[container_id], begun, key=len)
    assert sorted(int(x) for begun in said.values() for x in begun.split(",")) == list(range(count)), said


def test_what_was_cancelled_before_the_server_was_killed_is_not_run(fresh_squall: Installation) -> None:
    running = fresh_squall.start_run("sleeping.py::cancelled_for_good")
    running.wait_said("cancelled")

    os.kill(fresh_squall.server_pid(), signal.SIGKILL)
    ended = running.wait(60)

    assert ended.code == 0, ended
    assert ended.out.count("caught:") == 3, ended
    assert "result:" not in ended.out, ended
    assert re.search(r"^begun: \[(0, )?9\]$", ended.out, re.MULTILINE), ended


def test_items_of_a_generator_survive_its_server(fresh_squall: Installation) -> None:
    running = fresh_squall.start_run("sleeping.py::items")
    running.wait_said("item: 4")

    os.kill(fresh_squall.server_pid(), signal.SIGKILL)
    ended = running.wait(40)

    assert ended.code == 0, ended
    assert re.findall(r"^item: (\d+)$", ended.out, re.MULTILINE) == [str(number) for number in range(16)], ended


@pytest.mark.slow
def test_containers_of_a_killed_server_and_client_end_with_the_next_server(fresh_squall: Installation) -> None:
    running = fresh_squall.start_run("sleeping.py::main")
    running.wait_said("asleep for")

    os.kill(fresh_squall.server_pid(), signal.SIGKILL)
    running.signal(signal.SIGKILL)
    running.wait(5)
    survived = fresh_squall.processes()
    started = fresh_squall.command("server", "start")

    assert survived, "the container ended with its server"
    assert started.code == 0, started
    fresh_squall.wait_no_processes(RESTART_GRACE_S + 15)
    assert fresh_squall.containers() == []


def test_server_goes_on_after_its_spawner_was_killed(fresh_squall: Installation) -> None:
    running = fresh_squall.start_run("sleeping.py::main", "--duration-s", "4")
    running.wait_said("asleep for")
    server_pid, killed = fresh_squall.server_pid(), fresh_squall.spawner_pid()

    os.kill(killed, signal.SIGKILL)
    other = fresh_squall.run("square.py", timeout_s=40)
    ended = running.wait(40)

    assert other.code == 0, other
    assert other.out == "49\n", other
    assert ended.code == 0, ended
    assert "slept: 4.0" in ended.out, ended
    assert fresh_squall.server_pid() == server_pid
    assert fresh_squall.spawner_pid() != killed
    fresh_squall.wait_no_processes(10)


def test_idle_server_goes_on_after_its_spawner_was_killed(fresh_squall: Installation) -> None:
    assert fresh_squall.run("square.py").code == 0
    os.kill(fresh_squall.spawner_pid(), signal.SIGKILL)

    ended = fresh_squall.run("square.py", timeout_s=40)

    assert ended.code == 0, ended
    assert ended.out == "49\n", ended


def test_server_and_spawner_killed_together_leave_nothing(fresh_squall: Installation) -> None:
    running = fresh_squall.start_run("sleeping.py::main")
    running.wait_said("asleep for")

    for pid in (fresh_squall.server_pid(), fresh_squall.spawner_pid(), running.pid):
        os.kill(pid, signal.SIGKILL)
    running.wait(5)
    ended = fresh_squall.run("square.py", timeout_s=40)

    assert ended.code == 0, ended
    fresh_squall.wait_no_processes(10)
    assert fresh_squall.containers() == []
