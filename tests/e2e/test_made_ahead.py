"""What waits to be a container: one that is killed meanwhile costs nothing; and what one is that an agent took over."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

import pytest

from tests.e2e.installation import PROGRAMS, Installation, wait_until
from tests.e2e.test_fault_templates import SLEEP, clones_that_wait, program, slept, squared, templates

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def deployed(make_installation: Callable[[Mapping[str, str]], Installation]) -> Installation:
    """By the shortest path there is, whatever the tests are run with."""
    installation = make_installation({"SQUALL_START_PATH": "auto", "SQUALL_NETWORK_SLOTS": "8"})
    ended = installation.command("deploy", str(PROGRAMS / "bursting.py"), timeout_s=120)
    assert ended.code == 0, ended
    return installation


def test_a_start_after_all_that_waited_were_killed_is_a_fork(deployed: Installation) -> None:
    squared(deployed)
    (template_id,) = templates(deployed, "square")
    for _ in range(2):
        wait_until(lambda: bool(clones_that_wait(deployed)), "clones wait", 30)
        for pid in clones_that_wait(deployed):
            os.kill(pid, signal.SIGKILL)

        assert deployed.path_of(squared(deployed)) in ("fork", "parked")

    assert templates(deployed, "square") == [template_id]
    wait_until(lambda: bool(clones_that_wait(deployed)), "others wait", 30)


def test_a_command_in_a_fork_has_its_environment_after_the_server_was_killed(deployed: Installation) -> None:
    slept(deployed)
    running = program(deployed, SLEEP.format(seconds=40))
    wait_until(lambda: "busy" in [one["state"] for one in deployed.containers()], "the call runs", 20)
    (container_id,) = [one["container_id"] for one in deployed.containers() if one["state"] == "busy"]
    assert deployed.path_of(container_id) in ("fork", "parked")

    def environment() -> list[str]:
        ended = deployed.command("container", "exec", container_id, "env")
        assert ended.code == 0, ended
        return sorted(line for line in ended.out.splitlines() if not line.startswith("TERM="))

    before = environment()
    os.kill(deployed.server_pid(), signal.SIGKILL)
    assert deployed.command("server", "start").code == 0

    assert environment() == before
    assert [line for line in before if line == f"SQUALL_CONTAINER_ID={container_id}"]
    where = deployed.command("container", "exec", container_id, "pwd")
    assert where.out.strip() == "/root", where
    running.close()
