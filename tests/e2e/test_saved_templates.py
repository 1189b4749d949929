"""A machine that was restarted has its templates back, without loading anything again."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from squall.runtime.criu.tool import find_tool
from tests.e2e.installation import PROGRAMS, Installation, wait_until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(find_tool() is None, reason="missing: CRIU (make criu)"),
]


@pytest.fixture
def deployed(make_installation: Callable[[Mapping[str, str]], Installation]) -> Installation:
    installation = make_installation({"SQUALL_START_PATH": "auto"})
    ended = installation.command("deploy", str(PROGRAMS / "saved.py"), timeout_s=120)
    assert ended.code == 0, ended
    return installation


def called(squall: Installation) -> list[str]:
    """What the function says of when it was loaded; no container of it lives afterwards."""
    program = "import json, squall; print(json.dumps(squall.Cls.from_name('saved', 'Slow')().loaded.remote()))"
    ended = squall.command("-c", program, executable=(sys.executable,))
    assert ended.code == 0, ended
    found: list[str] = json.loads(ended.out)
    return found


def templates(squall: Installation) -> list[dict[str, Any]]:
    ended = squall.command("template", "list", "--json")
    assert ended.code == 0, ended
    found: list[dict[str, Any]] = json.loads(ended.out)
    return found


def on_disk(squall: Installation) -> list[dict[str, Any]]:
    return [one for one in templates(squall) if one["disk_mib"]]


def reboot(squall: Installation) -> None:
    """As a power loss would: server, agent and spawner are gone at once, and all containers with them."""
    spawner = squall.spawner_pid()
    for pid in (squall.server_pid(), spawner):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{spawner}"), "the spawner is gone", 20)
    started = squall.command("server", "start")
    assert started.code == 0, started
    wait_until(lambda: bool(on_disk(squall)), "the next agent finds what was saved", 20)


def test_after_a_restart_of_the_machine_nothing_is_loaded_again(deployed: Installation) -> None:
    before = called(deployed)
    wait_until(lambda: bool(on_disk(deployed)), "its template is saved", 90)
    shown = deployed.command("template", "list")
    assert " Disk " in shown.out, shown

    reboot(deployed)
    (listed,) = on_disk(deployed)
    begun = time.monotonic()
    after = called(deployed)
    took_s = time.monotonic() - begun

    assert listed["state"] == "saved"
    assert after == before, "its module, its hook and its file are those of before"
    (template,) = [one for one in templates(deployed) if one["state"] == "ready"]
    assert template["is_brought_back"]
    containers = deployed.command("container", "list", "--all", "--json")
    latest = max(json.loads(containers.out), key=lambda one: str(one["container_id"]))
    flight = deployed.command("container", "show", latest["container_id"])
    assert "path       fork" in flight.out, flight
    assert "from disk" in flight.out, flight
    assert took_s < 30
    # What comes back is as good as any: others are forked from it.
    assert called(deployed)[:2] == before[:2]


@pytest.mark.slow
def test_a_saved_template_goes_when_it_is_dropped_and_with_its_app(deployed: Installation) -> None:
    called(deployed)
    wait_until(lambda: bool(on_disk(deployed)), "its template is saved", 90)
    reboot(deployed)
    (listed,) = on_disk(deployed)

    dropped = deployed.command("template", "drop", "saved.Slow")

    assert f"Dropped {listed['template_id']}: function template of saved.Slow" in dropped.out, dropped
    assert "of the disk" in dropped.out
    assert not on_disk(deployed)
    before = called(deployed)
    wait_until(lambda: bool(on_disk(deployed)), "another one is saved", 90)
    assert deployed.command("app", "stop", "saved", "--yes").code == 0
    wait_until(lambda: not list((deployed.data_dir / "saved").iterdir()), "it goes with its app", 20)
    assert before


@pytest.mark.slow
def test_a_damaged_one_is_loaded_anew(deployed: Installation) -> None:
    before = called(deployed)
    wait_until(lambda: bool(on_disk(deployed)), "its template is saved", 90)
    reboot(deployed)
    (pages,) = (deployed.data_dir / "saved").glob("*/template/pages-*.img")
    os.truncate(pages, pages.stat().st_size // 2)

    after = called(deployed)

    assert after[0] != before[0]
    assert after[1] == after[2]
    (template,) = [one for one in templates(deployed) if one["state"] == "ready"]
    assert "not as they were saved" in template["disk_cause"]
    assert not template["is_brought_back"]
