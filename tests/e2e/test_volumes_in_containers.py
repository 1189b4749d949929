"""Volumes in containers: who sees what when, and what is there after which end."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from tests.e2e.installation import PROGRAMS, Installation, wait_until
from tests.kernel.executors import NEEDS_RUNSC

EXAMPLE = Path(__file__).parent.parent.parent / "examples/storage/checkpoints.py"
WRITES = "keeping.py::sleep_after_writing"


def read(squall: Installation, path: str) -> str:
    """A file of the newest version, as a program outside sees it."""
    running = squall.start(str(PROGRAMS / "reading_volume.py"), path, executable=(sys.executable,))
    ended = running.wait(60)
    assert ended.code == 0, ended
    return str(ended.out).strip()


def test_commits_are_seen_after_a_reload_and_by_new_containers(squall: Installation) -> None:
    ended = squall.command("run", str(PROGRAMS / "keeping.py"))

    assert ended.code == 0, ended
    said = [line for line in ended.out.splitlines() if line]
    assert said[0] == "first ['a'] one"
    assert said[1] == "again ['a', 'b'] two"
    assert said[2] == "not reloaded ['a', 'b'] one", "a container sees what it began with until it reloads"
    assert said[3] == "reloaded changed"
    assert said[4].startswith("read-only [Errno 30] Read-only file system")
    assert said[5].startswith("open OpenFiles: cannot reload volume /kept: files on it are open"), said
    assert said[5].endswith("changed")
    assert said[6] == "below ['a', 'b']"
    assert said[7].startswith("unmounted ConflictError: cannot commit the volume: volume vo-")
    assert said[8].startswith("not committed ['a', 'b', 'c']")
    assert said[9] == "client changed"
    assert said[10] == "removed missing ['a', 'b', 'c', 'd']", "a container keeps what it has seen"


def test_options_mount_other_volumes_in_the_place_of_those_there_were(squall: Installation) -> None:
    ended = squall.command("run", f"{PROGRAMS}/mounting_others.py")

    assert ended.code == 0, str(ended)
    said = [line for line in ended.out.splitlines() if line]
    assert said[:2] == ["functions ['/kept'] ['/other'] ['/other']", "classes ['/other'] ['/kept']"]
    assert said[2].startswith("read-only [Errno 30]")
    assert said[3].startswith("missing ")
    assert "no volume 'no-such'" in said[3]
    got = ("volume", "get", "of-variants", "written", "-")
    wait_until(lambda: squall.command(*got).out == "by a variant", "it is committed", 20)


@NEEDS_RUNSC
def test_under_gvisor_versions_are_committed_and_swapped_as_elsewhere(squall: Installation) -> None:
    ended = squall.command("run", f"{PROGRAMS}/keeping.py::apart", "--name", "g", "--text", "of gvisor")

    assert ended.code == 0, ended
    assert "('OpenFiles', 'of gvisor')" in ended.out
    assert read(squall, "g") == "of gvisor"


def test_what_a_container_has_written_is_there_when_it_has_ended(squall: Installation) -> None:
    ended = squall.command("run", f"{PROGRAMS}/{WRITES}", "--name", "late", "--duration-s", "0")

    assert ended.code == 0, ended
    wait_until(lambda: read(squall, "late") == "before the end", "it is committed", 20)


def test_a_file_that_is_written_in_its_place_is_committed_as_far_as_it_came(squall: Installation) -> None:
    ended = squall.command("run", f"{PROGRAMS}/keeping.py::die_while_writing", "--name", "half")

    assert ended.code != 0, ended
    wait_until(lambda: read(squall, "half") == "one, two,", "what there was when it was killed is committed", 20)
    history = json.loads(squall.command("volume", "history", "kept", "--json", "--limit", "1000").out)
    of_commits = [str(one["version"]) for one in history if one["cause"] == "commit"]
    got = [squall.command("volume", "get", "kept", "half", "-", "--version", one).out for one in of_commits]
    assert "one, " in got


def test_what_is_written_is_there_before_the_container_ends(squall: Installation) -> None:
    running = squall.start("run", f"{PROGRAMS}/{WRITES}", "--name", "early", "--duration-s", "600")
    running.wait_said("written")

    wait_until(lambda: read(squall, "early") == "before the end", "it is committed in the background", 30)
    running.signal(signal.SIGINT)
    running.wait(20)


def test_what_a_killed_server_had_not_committed_the_next_one_commits(fresh_squall: Installation) -> None:
    running = fresh_squall.start("run", "--detach", f"{PROGRAMS}/{WRITES}", "--name", "survives", "--duration-s", "600")
    running.wait_said("written")
    os.kill(fresh_squall.server_pid(), signal.SIGKILL)
    fresh_squall.kill_processes()
    time.sleep(0.2)

    wait_until(lambda: read(fresh_squall, "survives") == "before the end", "the next agent has committed it", 60)
    # The call runs again, and sleeps.
    assert fresh_squall.command("app", "stop", "keeping", "--yes").code == 0
    running.wait(20)


def test_the_example_goes_on_from_its_checkpoint_and_its_model_is_read(squall: Installation) -> None:
    ended = squall.command("run", str(EXAMPLE))

    assert ended.code == 0, ended
    assert "begins at step 0" in ended.out, ended
    assert "begins at step 50" in ended.out, ended
    assert ended.out.splitlines()[-1] == "the slope is 3.00, so of 7 it makes 21.0"
