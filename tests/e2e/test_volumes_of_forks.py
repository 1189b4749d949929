"""Volumes of functions whose containers are forks: what a template has read of them, and what its forks see."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import PROGRAMS, Installation, wait_until
from tests.e2e.test_fault_templates import clones_that_wait

pytestmark = pytest.mark.timeout(300)

CALL = """
import json, squall
print("said", json.dumps(squall.Cls.from_name("weights", {name!r})().{method}.remote({arguments})))
"""
COUNT = "import json, squall; print('said', json.dumps(squall.Function.from_name('weights', 'count').remote()))"
FORKED = ("fork", "parked")


@pytest.fixture
def deployed(make_installation: Callable[[Mapping[str, str]], Installation], tmp_path: Path) -> Installation:
    """By the shortest path there is, whatever the tests are run with; with weights in the volume."""
    installation = make_installation({"SQUALL_START_PATH": "auto", "SQUALL_NETWORK_SLOTS": "8"})
    put(installation, tmp_path, "weights one")
    ended = installation.command("deploy", str(PROGRAMS / "weights.py"), timeout_s=120)
    assert ended.code == 0, ended
    return installation


def put(squall: Installation, directory: Path, text: str) -> None:
    (directory / "weights").write_text(text)
    squall.command("volume", "create", "kept")
    ended = squall.command("volume", "put", "-f", "kept", str(directory / "weights"))
    assert ended.code == 0, ended


def ask(squall: Installation, source: str) -> Any:
    ended = squall.start("-c", source, executable=(sys.executable,)).wait(90)
    assert ended.code == 0, ended
    return json.loads(next(line for line in ended.out.splitlines() if line.startswith("said "))[5:])


def predicted(squall: Installation, name: str = "") -> dict[str, str]:
    found: dict[str, str] = ask(squall, CALL.format(name="Model", method="predict", arguments=repr(name)))
    return found


def looked(squall: Installation) -> dict[str, str]:
    found: dict[str, str] = ask(squall, CALL.format(name="Mapped", method="look", arguments=""))
    return found


def test_a_snapshot_reads_a_volume_and_its_forks_see_the_newest_version(deployed: Installation, tmp_path: Path) -> None:
    first = predicted(deployed)
    assert (first["weights"], first["now"], first["downloaded"]) == ("weights one", "weights one", "by the hook")
    assert deployed.path_of(first["container"]) == "fork"

    second = predicted(deployed, "a")
    put(deployed, tmp_path, "weights two")
    third = predicted(deployed)

    assert second["files"] == "a downloaded weights"
    assert (third["weights"], third["now"], third["files"]) == ("weights one", "weights two", "a downloaded weights")
    for one in (second, third):
        assert deployed.path_of(one["container"]) in FORKED
    history = deployed.command("volume", "history", "kept")
    assert history.out.count("tp-") == 1, "what the hook wrote is one version, made once"

    assert deployed.command("template", "drop", "weights.Model").code == 0
    assert predicted(deployed)["weights"] == "weights two"


def test_what_a_snapshot_has_open_and_mapped_goes_on_while_it_is_the_same_file(
    deployed: Installation, tmp_path: Path
) -> None:
    (tmp_path / "other").write_text("other")
    seen = []
    for number in range(3):
        seen.append(looked(deployed))
        ended = deployed.command("volume", "put", "-f", "kept", str(tmp_path / "other"), f"other-{number}")
        assert ended.code == 0, ended
    for one in seen:
        assert (one["file"], one["mapped"], one["directory"]) == ("ights one", "weights one", "/kept")
        assert one["refused"] == "Read-only file system"
        assert deployed.path_of(one["container"]) in FORKED

    # With another file in its place its forks cannot go on; the next template has loaded that.
    put(deployed, tmp_path, "weights of another size")
    after = looked(deployed)
    assert (after["file"], after["mapped"]) == ("ights of another size", "weights of another size")
    wait_until(lambda: deployed.path_of(looked(deployed)["container"]) in FORKED, "starts are forks again", 60)


def test_functions_without_a_snapshot_are_forked_with_their_volumes(deployed: Installation) -> None:
    ask(deployed, COUNT)
    wait_until(lambda: deployed.path_of(ask(deployed, COUNT)["container"]) in FORKED, "starts are forks", 60)


def test_a_hook_commits_and_reloads(deployed: Installation) -> None:
    assert ask(deployed, CALL.format(name="Committing", method="said", arguments="")) == "committed"


def lingering(squall: Installation, name: str) -> str:
    """The container of a call that has written a file of this name, and goes on."""
    code = CALL.format(name="Model", method="linger", arguments=repr(name))
    squall.start("-c", code, executable=(sys.executable,))
    wait_until(lambda: "busy" in [one["state"] for one in squall.containers()], "the call runs", 20)
    (container_id,) = [one["container_id"] for one in squall.containers() if one["state"] == "busy"]
    assert squall.path_of(container_id) in FORKED
    squall.start("container", "logs", "-f", container_id).wait_said("written")
    return str(container_id)


def names(squall: Installation) -> list[str]:
    return squall.command("volume", "ls", "kept").out.split()


def test_what_forks_write_outlives_everything_that_is_killed(deployed: Installation) -> None:
    predicted(deployed)
    lingering(deployed, "kept-by-a-fork")
    os.kill(deployed.server_pid(), signal.SIGKILL)
    deployed.kill_processes()

    assert deployed.command("server", "start").code == 0
    wait_until(lambda: "kept-by-a-fork" in names(deployed), "it is committed", 60)


def test_the_next_agent_has_templates_and_forks_with_their_volumes(deployed: Installation) -> None:
    predicted(deployed)
    wait_until(lambda: bool(clones_that_wait(deployed)), "clones wait", 30)
    container_id = lingering(deployed, "kept-by-a-fork")
    os.kill(deployed.server_pid(), signal.SIGKILL)
    assert deployed.command("server", "start").code == 0

    wait_until(lambda: "kept-by-a-fork" in names(deployed), "it is committed in the background", 60)
    assert [one["state"] for one in deployed.containers() if one["container_id"] == container_id] == ["busy"]
    after = predicted(deployed)
    assert after["files"] == "downloaded kept-by-a-fork weights"
    assert deployed.path_of(after["container"]) in FORKED
    history = deployed.command("volume", "history", "kept").out
    assert history.count("tp-") == 1, f"the hook has run once:\n{history}"
