"""A client that goes away, by Ctrl-C or by force, leaves no container behind."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from tests.e2e.installation import PROGRAMS, Installation, wait_until

APP_GRACE_S = 10.0
"""How long the server keeps an app whose client has gone without a word."""


def test_ctrl_c_ends_app_and_containers_within_two_seconds(squall: Installation) -> None:
    running = squall.start_run("sleeping.py::three")
    wait_until(lambda: running.said().count("asleep for") == 3, "three containers sleep", 30)

    running.signal(signal.SIGINT)

    assert squall.wait_no_processes(2.0) < 2.0
    ended = running.wait(5)
    assert ended.code == 130, ended
    assert "App aborted." in ended.err, ended
    assert "\nAborted." not in ended.err, f"said twice: {ended}"
    assert "Traceback" not in ended.err, ended
    assert squall.containers() == []


@pytest.mark.parametrize("form", ["remote", "map", "for_each"])
def test_ctrl_c_in_a_call_ends_its_input_while_the_app_stays(squall: Installation, form: str) -> None:
    running = squall.start(str(PROGRAMS / "interrupted.py"), form, executable=(sys.executable,))
    running.wait_said("interrupted")

    wait_until(lambda: [one["state"] for one in squall.containers()] == ["idle"], "the container is idle", 5)
    ended = running.wait(20)

    assert ended.code == 0, ended
    assert "afterwards: 0.0" in ended.out, ended


@pytest.mark.parametrize("every_s", [0.05, 0.003])
def test_ctrl_c_again_and_again_still_ends_the_app(squall: Installation, every_s: float) -> None:
    running = squall.start_run("sleeping.py::main")
    running.wait_said("asleep for")

    while running.process.poll() is None:
        running.signal(signal.SIGINT)
        time.sleep(every_s)
    ended = running.wait(5)

    assert ended.code == 130, ended
    assert "Traceback" not in ended.err, ended
    squall.wait_no_processes(APP_GRACE_S + 5)


def test_ctrl_c_while_the_app_is_made_leaves_no_app(squall: Installation) -> None:
    running = squall.start_run("sleeping.py::main")
    running.wait_said("App sleeping (")

    running.signal(signal.SIGINT)
    ended = running.wait(10)

    assert ended.code == 130, ended
    wait_until(lambda: squall.status()["app_count"] == 0, "the app is stopped", 15)


def test_containers_of_a_killed_client_end_after_the_grace_time(squall: Installation) -> None:
    running = squall.start_run("sleeping.py::main")
    running.wait_said("asleep for")

    os.kill(running.pid, signal.SIGKILL)
    running.wait(5)

    took_s = squall.wait_no_processes(APP_GRACE_S + 5)
    assert took_s > 2, "a client that only lost its connection would have had no time to come back"
    wait_until(lambda: squall.containers() == [], "they are taken away, too", 10)
    wait_until(lambda: squall.status()["app_count"] == 0, "the app is stopped", 5)


def test_detached_app_outlives_its_killed_client_until_it_is_stopped(squall: Installation) -> None:
    running = squall.start("run", "--detach", f"{PROGRAMS}/sleeping.py::sleep", "--duration-s", "600")
    running.wait_said("asleep for")
    app_id = running.said().partition("(")[2].partition(")")[0]

    running.signal(signal.SIGINT)
    ended = running.wait(5)
    time.sleep(1)
    is_alive = bool(squall.processes())
    stopped = squall.command("app", "stop", app_id, "--yes")

    assert ended.code == 130, ended
    assert f"App {app_id} goes on. Its lines: squall app logs -f {app_id}" in ended.err, ended
    assert is_alive, f"the detached app ended with its client: {ended}"
    assert stopped.code == 0, stopped
    squall.wait_no_processes(5)


def test_sigterm_ends_app_and_containers_as_ctrl_c_does(squall: Installation) -> None:
    running = squall.start_run("sleeping.py::three")
    wait_until(lambda: running.said().count("asleep for") == 3, "three containers sleep", 30)

    running.signal(signal.SIGTERM)

    assert squall.wait_no_processes(2.0) < 2.0
    ended = running.wait(5)
    assert ended.code == 128 + signal.SIGTERM, ended
    assert "App aborted." in ended.err, ended
