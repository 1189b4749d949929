"""Volumes in steps of images, and in shells: what is written there outlives them, and is no part of an image."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from textwrap import dedent

import pytest

from tests.e2e import flows
from tests.e2e.installation import PROGRAMS, Ended, Installation, wait_until

PROGRAM = PROGRAMS / "building_with_volumes.py"
MARK = b"planted-in-the-volume"
MISSING = """
    import squall
    app = squall.App("missing")
    image = squall.Image.debian_slim().run_commands("true", volumes={"/x": squall.Volume.from_name("no-such")})
    @app.function(image=image)
    def look(): pass
    @app.local_entrypoint()
    def main(): look.remote()
"""
FAILING = """
    import squall
    app = squall.App("failing")
    kept = squall.Volume.from_name("of-failing", create_if_missing=True)
    image = squall.Image.debian_slim().run_commands("echo partly > /x/written; exit 3", volumes={"/x": kept})
    @app.function(image=image)
    def look(): pass
    @app.local_entrypoint()
    def main(): look.remote()
"""
LASTING = """
    import squall
    app = squall.App("lasting")
    kept = squall.Volume.from_name("of-lasting", create_if_missing=True)
    image = squall.Image.debian_slim().run_commands(
        "echo before > /x/written; printf 'is %s' written; echo; sleep 600", volumes={"/x": kept}
    )
    @app.function(image=image)
    def look(): pass
    @app.local_entrypoint()
    def main(): look.remote()
"""


def run(squall: Installation, name: str, **environ: str) -> str:
    """What a function of the program finds in its image."""
    ended = squall.start("run", str(PROGRAM), "--name", name, environ=environ).wait(120)
    assert ended.code == 0, str(ended)
    return next(line for line in ended.out.splitlines() if line.startswith("found "))[len("found ") :]


def in_volume(squall: Installation, volume: str, path: str) -> str:
    """A file of the newest version."""
    got = squall.command("volume", "get", volume, path, "-")
    return got.out if got.code == 0 else "missing"


def files_with(mark: bytes, top: Path) -> list[str]:
    found = []
    for directory, _, names in os.walk(top):
        for path in (Path(directory, name) for name in names):
            if path.is_file() and not path.is_symlink() and mark in path.read_bytes():
                found.append(str(path))
    return found


def write_program(folder: Path, text: str) -> str:
    (folder / "program.py").write_text(dedent(text))
    return str(folder / "program.py")


@pytest.mark.timeout(240)
def test_what_a_step_writes_to_a_volume_is_committed_and_in_no_layer(squall: Installation) -> None:
    assert run(squall, "look") == "(False, False)", "the step's mount point is no part of the image"

    assert in_volume(squall, "cache", "made").encode() == MARK
    assert not files_with(MARK, squall.data_dir / "layers")
    history = squall.command("volume", "history", "cache")
    assert "im-" in history.out, history


@pytest.mark.timeout(240)
def test_what_is_in_a_volume_makes_no_step_run_again_but_force_build_does(squall: Installation) -> None:
    before = int(run(squall, "count"))
    assert squall.command("volume", "rm", "cache", "made").code == 0

    assert int(run(squall, "count")) == before
    assert in_volume(squall, "cache", "made") == "missing", "no step has run"
    assert int(run(squall, "count", FORCED="1")) == before + 1, "it has, and found what was there"


@pytest.mark.timeout(240)
def test_a_function_that_runs_as_a_step_fetches_into_a_volume(squall: Installation) -> None:
    text, said, has_mount_point = eval(run(squall, "use"))

    assert text == "fetched by a step"
    reload, _, write = said.partition("; ")
    assert reload == "Volume.reload: a step of an image's build sees what there was when it began"
    assert "Read-only file system" in write
    assert not has_mount_point


@pytest.mark.timeout(240)
def test_the_next_step_sees_what_the_one_before_has_written(squall: Installation) -> None:
    assert run(squall, "handed") == "one"


@pytest.mark.timeout(240)
def test_a_step_with_a_volume_that_is_missing_is_named(squall: Installation, tmp_path: Path) -> None:
    ended = squall.command("run", write_program(tmp_path, MISSING))

    assert ended.code == 1, ended
    assert "image step run_commands true: " in ended.err, ended
    assert "no volume 'no-such'" in ended.err, ended


@pytest.mark.timeout(240)
def test_what_a_failed_step_has_written_is_committed_and_can_be_looked_at(squall: Installation, tmp_path: Path) -> None:
    ended = squall.command("run", write_program(tmp_path, FAILING))
    assert ended.code == 1, ended
    assert "exit status 3" in ended.err
    assert in_volume(squall, "of-failing", "written") == "partly\n"

    step = ended.err.rstrip().splitlines()[-1].rpartition(" ")[2]
    shell = shell_of(squall, "--image-step", step, "-c", "cat /x/written; echo by hand > /x/written")

    assert shell.out == "partly\n"
    assert shell.err == "the step's volumes are mounted, and what is written to them stays: /x\n"
    assert in_volume(squall, "of-failing", "written") == "by hand\n"


def shell_of(squall: Installation, *arguments: str) -> Ended:
    ended = squall.command("shell", *arguments)
    assert ended.code == 0, str(ended)
    return ended


@pytest.mark.timeout(240)
def test_what_a_step_had_written_when_its_agent_was_killed_is_committed(
    fresh_squall: Installation, tmp_path: Path
) -> None:
    running = fresh_squall.start("run", write_program(tmp_path, LASTING))
    running.wait_said("is written", 120)
    os.kill(fresh_squall.server_pid(), signal.SIGKILL)
    running.signal(signal.SIGINT)
    running.wait(30)

    wait_until(lambda: in_volume(fresh_squall, "of-lasting", "written") == "before\n", "it is committed", 60)
    wait_until(lambda: not os.listdir(fresh_squall.data_dir / "volumes/written"), "nothing is left of it", 60)
    assert not os.listdir(fresh_squall.data_dir / "layers/.scratch")


@pytest.mark.timeout(240)
def test_a_shell_has_the_volumes_that_it_names_and_what_it_writes_stays(squall: Installation) -> None:
    for name in ("first", "second"):
        assert squall.command("volume", "create", name).code == 0

    of_function = (f"{PROGRAM}::look", "--volume", "first", "--volume", "second", "-c")
    shell_of(squall, *of_function, "echo by a shell > /mnt/first/written; cp /mnt/first/written /mnt/second/")
    of_image = shell_of(squall, "--volume", "second", "-c", "cat /mnt/second/written; ls /mnt")

    assert of_image.out == "by a shell\nsecond\n"
    assert in_volume(squall, "first", "written") == "by a shell\n"
    missing = squall.command("shell", "--volume", "thrid", "-c", "true")
    assert missing.code == 1, missing
    assert "there is no volume 'thrid'" in missing.err
    twice = squall.command("shell", "--volume", "first", "--volume", "first", "-c", "true")
    assert twice.code == 1, twice
    assert "at /mnt/first" in twice.err


@pytest.mark.timeout(240)
def test_a_shell_that_is_killed_leaves_what_it_has_written(squall: Installation) -> None:
    assert squall.command("volume", "create", "typed").code == 0
    running = squall.start("shell", "--volume", "typed", "-c", "echo so far > /mnt/typed/written; echo is written; cat")
    running.wait_said("is written", 60)

    running.signal(signal.SIGKILL)
    running.wait(10)

    wait_until(lambda: in_volume(squall, "typed", "written") == "so far\n", "it is committed", 30)


def test_a_shell_in_what_runs_takes_no_volumes(squall: Installation) -> None:
    refused = flows.command(squall, "shell", "ct-0123456789abcdef", "--volume", "x")

    assert refused.code == 2
    assert "--volume is for images" in refused.err
