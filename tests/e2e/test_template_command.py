"""What quick starts are forked from can be seen and let go of, and what cannot be forked says why."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.e2e.installation import PROGRAMS, Installation, wait_until

pytestmark = pytest.mark.timeout(240)


def deployed_alone(make_installation: Callable[[Mapping[str, str]], Installation], program: str) -> Installation:
    """A program on a server of its own, which takes the shortest path there is, whatever the tests are run with."""
    squall = make_installation({"SQUALL_START_PATH": "auto"})
    ended = squall.command("deploy", str(PROGRAMS / program), timeout_s=120)
    assert ended.code == 0, ended
    return squall


@pytest.fixture
def deployed(make_installation: Callable[[Mapping[str, str]], Installation]) -> Installation:
    return deployed_alone(make_installation, "snapshots.py")


def templates(squall: Installation, *options: str) -> list[dict[str, Any]]:
    ended = squall.command("template", "list", "--json", *options)
    assert (ended.code, ended.err) == (0, ""), ended
    found: list[dict[str, Any]] = json.loads(ended.out)
    return found


def measured(squall: Installation, function: str, *options: str) -> dict[str, Any]:
    ended = squall.command("bench", "start", function, "-n", "3", "--json", *options, timeout_s=120)
    assert ended.code == 0, ended
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_starts_after_the_first_are_copies_and_what_they_were_copied_from_goes_with_the_measurement(
    deployed: Installation,
) -> None:
    found = measured(deployed, "snapshots.Quick.last")

    assert found["first"]["total_ms"] > 500, "the first one has run the hook"
    assert {one["path"] for one in found["starts"]} <= {"fork", "parked"}
    assert found["p50_ms"] < 500, "the others have not"
    wait_until(lambda: not [one for one in templates(deployed) if one["state"] == "ready"], "it is let go of", 10)


def test_a_template_is_listed_until_it_is_dropped(deployed: Installation) -> None:
    program = "import squall; squall.Cls.from_name('snapshots', 'Quick')().last.remote()"
    assert deployed.command("-c", program, executable=(sys.executable,)).code == 0

    (listed,) = templates(deployed, "--app", "snapshots")
    shown = deployed.command("template", "list")
    wrong = deployed.command("template", "drop", "snapshots.Quik")
    dropped = deployed.command("template", "drop", "snapshots.Quick.last")

    assert (listed["app"], listed["function"], listed["kind"], listed["state"]) == (
        "snapshots", "Quick", "function", "ready",
    )  # fmt: skip
    assert listed["memory_mib"] > 5
    assert f"{listed['template_id']}  snapshots.Quick  function  ready" in shown.out
    assert (wrong.code, "did you mean snapshots.Quick?" in wrong.err) == (1, True), wrong
    assert f"Dropped {listed['template_id']}: function template of snapshots.Quick" in dropped.out, dropped
    wait_until(lambda: not [one for one in templates(deployed) if one["state"] == "ready"], "it is gone", 20)


def test_counted_starts_wait_for_the_template_of_their_own_function(
    make_installation: Callable[[Mapping[str, str]], Installation],
) -> None:
    squall = deployed_alone(make_installation, "measured.py")
    program = "import squall; squall.Function.from_name('measured.starts', 'hello').remote()"
    assert squall.command("-c", program, executable=(sys.executable,)).code == 0
    wait_until(lambda: [one["state"] for one in templates(squall)] == ["ready"], "another function has one", 30)

    found = measured(squall, "measured.starts.in_latin")

    assert found["first"]["path"] == "plain", "its variables are in no template"
    assert {one["path"] for one in found["starts"]} <= {"fork", "parked"}


def test_files_that_a_hook_keeps_open_are_each_containers_own(deployed: Installation) -> None:
    found = measured(deployed, "snapshots.Reading.read")
    program = "import squall; print(squall.Cls.from_name('snapshots', 'Reading')().read.remote())"
    said = deployed.command("-c", program, executable=(sys.executable,))

    assert {one["path"] for one in found["starts"]} <= {"fork", "parked"}
    assert said.out.startswith("('and more', "), said
    assert ", 0" not in said.out, said


def test_what_would_be_missing_in_copies_is_named(deployed: Installation) -> None:
    found = measured(deployed, "snapshots.Serving.last")

    for one in found["starts"]:
        assert "the program 'sleep' is running in the background" in one["cause"]
        assert "shared memory of System V is in use, which would be missing in containers" in one["cause"]


def test_what_cannot_be_forked_with_its_function_says_why_wherever_one_looks(deployed: Installation) -> None:
    found = measured(deployed, "snapshots.Watched.last")
    failed = deployed.command("bench", "start", "snapshots.Watched.last", "-n", "1", "--path", "restore", timeout_s=120)

    # Plainly, or from its image once that has a template: the cause is why not from the function.
    assert {one["path"] for one in found["starts"]} <= {"plain", "fork", "parked"}
    assert all("watcher" in one["cause"] for one in found["starts"])
    assert failed.code == 1
    assert failed.err.strip().endswith("; asked for was restore"), failed
    container = deployed.command("container", "show", found["starts"][0]["container_id"])
    assert f"path       {found['starts'][0]['path']}: " in container.out
    assert "watcher" in container.out


def test_the_log_of_an_app_says_so_where_an_image_template_was_there_before_what_cannot_be_forked(
    make_installation: Callable[[Mapping[str, str]], Installation],
) -> None:
    squall = deployed_alone(make_installation, "functions_of_one_app.py")
    calls = "import squall; print(squall.{}('together', '{}'){}.remote())"
    first = squall.command("-c", calls.format("Function.from_name", "first", ""), executable=(sys.executable,))
    assert first.code == 0, first
    wait_until(lambda: [one["state"] for one in templates(squall)] == ["ready"], "the image has a template", 30)

    watched = squall.command("-c", calls.format("Cls.from_name", "Watched", "().last"), executable=(sys.executable,))

    assert watched.out == "1\n", watched
    lines = squall.command("app", "logs", "together", "--function", "Watched").err.splitlines()
    (told,) = [line for line in lines if "from a memory snapshot" in line]
    assert "was copied from its image's template, and not from a memory snapshot: " in told
    assert "'watcher'" in told


def test_a_hook_that_fails_once_costs_its_function_the_snapshot_for_a_while_only(
    make_installation: Callable[[Mapping[str, str]], Installation],
) -> None:
    squall = deployed_alone(make_installation, "failing_once.py")
    program = "import squall; print(squall.Cls.from_name('failing-once', 'Downloading')().which.remote())"

    first = squall.command("-c", program, executable=(sys.executable,))
    (unfit,) = [one for one in templates(squall) if one["state"] == "unfit"]
    time.sleep(6)
    later = [squall.command("-c", program, executable=(sys.executable,)) for _ in range(2)]

    assert first.out == "2\n", "loaded anew, after the template had failed"
    assert "TimeoutError: the server did not answer" in unfit["cause"]
    assert [one.out for one in later] == ["3\n"] * 2, "both of a template that was made meanwhile"


def test_the_second_function_of_an_app_is_forked_at_its_first_start(
    make_installation: Callable[[Mapping[str, str]], Installation],
) -> None:
    squall = deployed_alone(make_installation, "functions_of_one_app.py")
    program = "import squall; print(squall.Function.from_name('together', '{}').remote())"
    first = squall.command("-c", program.format("first"), executable=(sys.executable,))
    assert first.code == 0, first

    wait_until(lambda: [one["state"] for one in templates(squall)] == ["ready"], "the image has a template", 30)
    (listed,) = templates(squall)
    second = squall.command("-c", program.format("second"), executable=(sys.executable,))
    shown = squall.command("template", "list")

    assert second.code == 0, second
    assert first.out != second.out, "each is told which function it is"
    assert (listed["kind"], listed["app"], listed["function"]) == ("image", "together", None)
    containers = json.loads(squall.command("container", "list", "--json").out)
    paths = [squall.command("container", "show", one["container_id"]).out for one in containers]
    assert len([one for one in paths if "path       plain" in one]) == 1, paths
    assert len([one for one in paths if "path       fork" in one or "path       parked" in one]) == 1, paths
    assert " together " in shown.out, shown


def test_templates_go_when_their_function_is_edited_and_not_when_another_one_is_or_the_server_starts_again(
    make_installation: Callable[[Mapping[str, str]], Installation],
) -> None:
    squall = make_installation({"SQUALL_START_PATH": "auto"})

    def deploy(timeout_s: int) -> None:
        environ = {"EDITED_TIMEOUT": str(timeout_s)}
        ended = squall.command("deploy", str(PROGRAMS / "edited.py"), environ=environ, timeout_s=120)
        assert ended.code == 0, ended

    def ready() -> list[str]:
        return [one["template_id"] for one in templates(squall) if one["state"] == "ready"]

    deploy(60)
    deploy(70)
    for count, name in enumerate(("edited", "kept"), 1):
        program = f"import squall; print(squall.Function.from_name('editing', '{name}').remote())"
        assert squall.command("-c", program, executable=(sys.executable,)).out == f"{count}\n"
        wait_until(lambda: len(ready()) == count, "the image has a template", 30)  # noqa: B023 - called here only
    known = set(ready())

    os.kill(squall.server_pid(), signal.SIGKILL)
    assert squall.command("server", "start").code == 0
    time.sleep(2)  # the node is told what there is
    assert set(ready()) == known

    deploy(80)
    wait_until(lambda: len(ready()) == 1, "that of what was edited is gone", 10)
    deploy(90)
    time.sleep(1)
    assert set(ready()) < known, "and that of the other one stays"
