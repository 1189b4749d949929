"""Functions that run apps: they work as outside, and end with what started them."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from squall import FunctionCall
from tests.e2e import flows
from tests.e2e.installation import PROGRAMS, Installation, wait_until

CHILDREN = PROGRAMS / "children"
PROGRAM = str(CHILDREN / "family.py")


@pytest.fixture(scope="module")
def family(session_installation: Installation) -> Iterator[Any]:
    """The module `programs/children/family.py`, its app running."""
    sys.path.insert(0, str(CHILDREN))
    try:
        module = importlib.import_module("family")
        with flows.client_of(session_installation), module.app.run():
            yield module
    finally:
        sys.path.remove(str(CHILDREN))
        for name in ("family", "toolbox", "toolbox.words"):
            sys.modules.pop(name, None)


def apps(installation: Installation) -> list[dict[str, Any]]:
    """What `squall app list` shows."""
    ended = installation.command("app", "list", "--limit", "1000", "--json")
    assert ended.code == 0, ended
    found: list[dict[str, Any]] = json.loads(ended.out)
    return found


@pytest.mark.timeout(120)
def test_function_runs_an_app_and_calls_it_in_every_way(family: Any, session_installation: Installation) -> None:
    found = family.one_level.remote(5)

    assert (found["remote"], found["map"], found["spawn"]) == (105, [101, 102, 103], 105)
    assert found["package"] == "HELLO"
    assert found["after"] == 105, "a result is kept when the app has ended"
    assert FunctionCall.from_id(found["call_id"]).get(timeout=30) == 105
    listed = {one["app_id"]: one for one in apps(session_installation)}
    assert listed[found["app_id"]]["state"] == "stopped"
    assert listed[found["app_id"]]["parent_app_id"] == family.app.app_id
    shown = session_installation.command("app", "logs", family.app.app_id).out
    assert "plain of 5" in shown, "enable_output() in a function shows lines of the child"


@pytest.mark.timeout(120)
def test_three_levels(family: Any) -> None:
    assert family.three_levels.remote(5) == 60


@pytest.mark.timeout(120)
def test_app_that_runs_itself(family: Any) -> None:
    assert family.run_again.remote(4) == 4


@pytest.mark.timeout(120)
def test_function_stops_its_app(family: Any) -> None:
    assert "stopped by its program" in family.stop_early.remote()


@pytest.mark.timeout(180)
def test_app_built_in_a_function_has_an_image_of_its_own(family: Any) -> None:
    assert family.built_on_the_spot.remote(4) == {"tripled": 12, "package": True}


@pytest.mark.timeout(120)
def test_app_in_an_event_loop(family: Any) -> None:
    assert family.in_a_loop.remote(1) == 101


@pytest.mark.timeout(120)
def test_function_touches_no_foreign_app(family: Any) -> None:
    with family.child.run():
        call = family.plain.spawn(1)
        call.get(timeout=30)
        facts = {"app_id": family.child.app_id, "call_id": call.object_id, "function": family.plain}

        found = family.touch.remote(facts)
        assert family.plain.remote(2) == 102, "it goes on untouched"

    assert found.pop("own child") == "worked"
    assert found.pop("remote") == "InvalidError", "a call that cannot be opened fails as its inputs do"
    assert set(found.values()) == {"PermissionDeniedError"}, found
    assert len(found) == 8


@pytest.mark.timeout(120)
def test_what_cannot_be_in_a_function_says_why(family: Any) -> None:
    assert "/nowhere/config.json" in (said := family.ship_what_is_not_here.remote())
    assert "add them to the function's image" in said
    assert "ends with its container" in family.detach.remote()


@pytest.mark.timeout(180)
def test_parents_that_hold_all_processors_do_not_keep_their_children_waiting(family: Any) -> None:
    count = 2 * (os.cpu_count() or 2)

    assert list(family.full.map([1] * count)) == [8] * count


@pytest.mark.timeout(120)
def test_ctrl_c_outside_ends_apps_of_all_levels_within_two_seconds(fresh_squall: Installation) -> None:
    running = fresh_squall.start("run", f"{PROGRAM}::holding")
    running.wait_said("waiting on")

    running.signal(signal.SIGINT)

    assert fresh_squall.wait_no_processes(2.0) < 2.0
    assert running.wait(5).code == 130
    listed = apps(fresh_squall)
    assert {one["description"] for one in listed} == {"family", "child"}
    assert {one["state"] for one in listed} == {"stopped"}


@pytest.mark.timeout(120)
def test_app_ends_with_the_container_that_started_it(fresh_squall: Installation) -> None:
    running = fresh_squall.start("run", f"{PROGRAM}::dying")

    running.wait_said("died: ", 60)

    wait_until(lambda: "wait" not in {one["function"] for one in fresh_squall.containers()}, "the child is gone", 5)
    assert running.process.poll() is None, "its own app goes on"
    running.signal(signal.SIGINT)
    running.wait(10)


@pytest.mark.timeout(180)
def test_child_survives_the_death_of_the_server(fresh_squall: Installation) -> None:
    running = fresh_squall.start("run", f"{PROGRAM}::long_map")
    running.wait_said("App family", 60)
    wait_until(lambda: "slow" in {one["function"] for one in fresh_squall.containers()}, "the child is at work", 60)

    os.kill(fresh_squall.server_pid(), signal.SIGKILL)
    ended = running.wait(120)

    assert ended.code == 0, ended
    assert f"SUM {sum(x * x for x in range(20))}" in ended.out, ended
