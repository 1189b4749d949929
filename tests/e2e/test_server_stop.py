"""`squall server stop` where no server runs any more: what a killed one left is told, ended and taken away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

import pytest

from squall.main.data_dir import ServerLock
from tests.e2e.installation import PROGRAMS, Installation, Running, wait_until


def kill_client_and_server(squall: Installation, client: Running) -> None:
    """As the kernel does when memory is short. The client first: it would start another server."""
    client.signal(signal.SIGKILL)
    client.wait(5)
    os.kill(squall.server_pid(), signal.SIGKILL)
    wait_until(lambda: ServerLock(squall.data_dir).is_free(), "the server has ended", 10)


@pytest.fixture
def killed(fresh_squall: Installation) -> Installation:
    """A function sleeps in a container; the server that started it and the program that called it are dead."""
    client = fresh_squall.start_run("sleeping.py::main")
    client.wait_said("asleep for", 60)
    kill_client_and_server(fresh_squall, client)
    return fresh_squall


def test_containers_of_a_killed_server_are_named_and_ended_by_force_only(killed: Installation) -> None:
    refused = killed.command("server", "stop")
    survived = killed.processes()
    stopped = killed.command("server", "stop", "--force")
    running, left, undeleted = killed.processes(), killed.left_behind(), killed.undeleted()
    again = killed.command("server", "stop", "--force")

    assert refused.code == 1, refused
    assert "1 container of an earlier one does" in refused.err, refused
    assert "squall server stop --force" in refused.err, refused
    assert survived, "the refused stop has ended the container"
    assert stopped.code == 0, stopped
    assert "1 running container" in stopped.out, stopped
    assert (running, left, undeleted) == (set(), [], [])
    assert (again.code, again.out) == (0, "Squall does not run\n")


def test_what_a_server_cannot_take_away_itself_goes_by_force(fresh_squall: Installation) -> None:
    assert fresh_squall.run("square.py").code == 0
    pin = fresh_squall.data_dir / "network/netns/999"
    pin.touch()
    other = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    try:
        own = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{other.pid}/ns/net") != own, "it has a network of its own", 10)
        subprocess.run(["mount", "--bind", f"/proc/{other.pid}/ns/net", pin], check=True)

        stopped = fresh_squall.command("server", "stop", "--force")
    finally:
        other.kill()
        other.wait()

    assert (stopped.code, stopped.out) == (0, "stopped Squall, and removed what it had left\n"), stopped
    assert (fresh_squall.left_behind(), fresh_squall.undeleted()) == ([], [])
    assert not os.path.ismount(pin)


def test_templates_of_a_killed_server_go_without_force(
    make_installation: Callable[[Mapping[str, str]], Installation],
) -> None:
    squall = make_installation({"SQUALL_START_PATH": "parked"})
    ended = squall.command("deploy", str(PROGRAMS / "bursting.py"), timeout_s=120)
    assert ended.code == 0, ended
    program = "import squall; squall.Function.from_name('bursting', 'square').remote(1)"
    assert squall.command("-c", program, executable=(sys.executable,)).code == 0
    squall.wait_no_processes(20)
    os.kill(squall.server_pid(), signal.SIGKILL)
    wait_until(lambda: ServerLock(squall.data_dir).is_free(), "the server has ended", 10)

    stopped = squall.command("server", "stop")

    assert stopped.code == 0, stopped
    assert "that wait" in stopped.out, stopped
    assert (squall.left_behind(), squall.undeleted()) == ([], [])


def test_what_is_left_when_the_spawner_was_killed_too_goes_without_force(killed: Installation) -> None:
    os.kill(killed.spawner_pid(), signal.SIGKILL)
    killed.wait_no_processes(10)
    before = killed.left_behind()

    stopped = killed.command("server", "stop")

    assert any(line.startswith("link ") for line in before), before
    assert stopped.code == 0, stopped
    assert "removed what an earlier one left: " in stopped.out, stopped
    assert "network slots" in stopped.out, stopped
    assert killed.left_behind() == []
    assert killed.undeleted() == []


def test_uninstalling_as_the_readme_says_works_after_a_kill(killed: Installation) -> None:
    stopped = killed.command("server", "stop", "--force")
    removed = subprocess.run(["rm", "-rf", "--one-file-system", str(killed.data_dir)], check=False, timeout=60)

    assert stopped.code == 0, stopped
    assert removed.returncode == 0
    assert not killed.data_dir.exists()
    assert killed.left_behind() == []


@pytest.mark.slow
def test_spawner_that_does_not_answer_is_ended_by_force(killed: Installation) -> None:
    os.kill(killed.spawner_pid(), signal.SIGSTOP)

    stopped = killed.command("server", "stop", "--force", timeout_s=60)

    assert stopped.code == 0, stopped
    assert (killed.processes(), killed.left_behind(), killed.undeleted()) == (set(), [], [])
