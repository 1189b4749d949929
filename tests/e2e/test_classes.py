"""Classes with the real command, server and containers: their objects, their hooks at every end, and a server that is
killed."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import squall as package
from squall import exception
from tests.e2e import flows
from tests.e2e.flows import FLOWS
from tests.e2e.installation import Installation, wait_until
from tests.e2e.paths import OF_QUICK_STARTS


@pytest.fixture(scope="module")
def classes(session_installation: Installation) -> Iterator[Any]:
    """The module `programs/flows/classes.py`, its app running."""
    with flows.running(session_installation, "classes") as module:
        yield module


@OF_QUICK_STARTS
def test_each_set_of_parameters_has_its_own_containers(classes: Any) -> None:
    two, three = classes.Model(size=2), classes.Model(size=3)

    found = [one.times.remote(10) for one in (two, three, two)]

    assert [value for value, _ in found] == [20, 30, 20]
    assert found[0][1] == found[2][1] != found[1][1]


def test_objects_are_made_in_containers_and_travel_between_them(classes: Any) -> None:
    two = classes.Model(size=2)

    assert two.other.remote(10) == 30
    assert classes.through.remote(two, classes.Model(size=4).times) == (4, 12)


def test_what_an_enter_hook_raises_is_raised_by_every_call_that_waits(classes: Any) -> None:
    calls = [classes.Broken().run.spawn() for _ in range(5)]

    for call in calls:
        with pytest.raises(LookupError, match="no such model"):
            call.get(timeout=60)
    assert [type(one) for one in classes.Broken().run.map([], return_exceptions=True)] == []


def test_a_class_is_found_by_name_from_elsewhere(session_installation: Installation, classes: Any) -> None:
    found = package.Cls.from_name("classes", "Model")

    assert found(size=6).times.remote(2)[0] == 12
    with pytest.raises(exception.InvalidError, match="needs size="):
        found().times.remote(2)
    with pytest.raises(exception.NotFoundError, match="has no method 'nothing'"):
        found(size=6).nothing.remote()
    with pytest.raises(exception.NotFoundError, match=r"use Cls.from_name"):
        package.Function.from_name("classes", "Model").remote()


def test_lists_and_logs_say_which_object(session_installation: Installation, classes: Any) -> None:
    classes.Model(size=77).times.remote(1)

    listed = flows.command_ok(session_installation, "container", "list").out

    assert "Model(size=77)" in listed
    logged = flows.command_ok(session_installation, "app", "logs", classes.app.app_id, "--function", "Model").out
    assert "enter 77" in logged


def test_numbers_and_lines_are_of_one_object_and_of_all_when_asked(
    session_installation: Installation, classes: Any
) -> None:
    plain, low, high = classes.Echo(), classes.Echo(pitch=1), classes.Echo.with_options(timeout=9)(pitch=2)
    call = low.say.spawn("low")
    plain.say.remote("plain")
    high.say.remote("high")
    container_id = call.get()

    def counted(one: Any, **fields: Any) -> int:
        return int(one.say.stats(**fields).input_success_count)

    assert [counted(one) for one in (plain, low, high)] == [1, 1, 1]
    assert counted(plain, all_variants=True) == 3
    assert counted(low, container=container_id) == 1
    with pytest.raises(exception.NotFoundError, match="is no container of this function"):
        plain.say.stats(container=container_id)
    lines = {name: [entry.message for entry in one.say.logs.tail()] for name, one in (("p", plain), ("h", high))}
    assert lines == {"p": ["plain"], "h": ["high"]}
    (line,) = call.logs.fetch()
    assert (line.message, line.object_id) == ("low", low.say.object_id)

    named = ("function", "logs", f"{classes.app.app_id}/Echo")

    def command(*given: str) -> str:
        return flows.command_ok(session_installation, *given).out

    assert command(*named) == "plain\n"
    assert sorted(command(*named, "--all-variants").split()) == ["high", "low", "plain"]
    shown = command("function", "logs", low.say.object_id, "--show-function-call-id", "--show-container-id")
    assert shown == f"{call.object_id} {container_id} low\n"
    assert "1 succeeded" in command("function", "stats", low.say.object_id, "--container", container_id)
    own, every = (command("function", "calls", named[2], "--json", *more) for more in ([], ["--all-variants"]))
    assert (len(json.loads(own)), len(json.loads(every))) == (1, 3)


@pytest.mark.parametrize("how", ["scaledown", "app", "interrupt"])
def test_exit_hooks_run_to_their_end(fresh_squall: Installation, how: str) -> None:
    running = fresh_squall.start_run(str(FLOWS / "classes.py::ends"), "--how", how)
    if how == "interrupt":
        running.wait_said("waiting")
        running.signal(signal.SIGINT)
    ended = running.wait(60)

    assert "exit 5 after 0" in ended.out, ended
    fresh_squall.wait_no_processes(10)


def test_spawned_methods_of_objects_survive_their_server(fresh_squall: Installation) -> None:
    running = fresh_squall.start_run(str(FLOWS / "classes.py::spawned"), "--count", "3")
    wait_until(lambda: running.said().count("begun") == 3, "all of them run", 60)

    os.kill(fresh_squall.server_pid(), signal.SIGKILL)
    ended = running.wait(90)

    assert ended.code == 0, ended
    found = re.findall(r"^result: (\d+) (\S+)$", ended.out, re.MULTILINE)
    assert [int(size) for size, _ in found] == [0, 1, 2]
    assert len({container_id for _, container_id in found}) == 3
    # They were adopted with what they ran: nothing was begun twice.
    assert ended.out.count("begun") == 3, ended
    assert ended.out.count("enter") == 3, ended
