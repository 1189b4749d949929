"""`squall shell`: in images, before a step that fails, typed and by a command; and every way that it ends."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from tests.e2e import flows
from tests.e2e.installation import Installation, wait_until
from tests.e2e.terminal import Terminal

PROGRAM = """
    import squall
    secret = squall.Secret.from_dict({"TOKEN": "the-value"})
    good = squall.Image.debian_slim().run_commands("echo whole > /srv/whole")
    broken = (
        squall.Image.debian_slim()
        .run_commands("echo earlier > /srv/earlier")
        .env({"SEEN": "by later steps"})
        .workdir("/srv/here")
        .run_commands("touch /srv/half", "echo tried; exit 9", secrets=[secret])
    )
    app = squall.App("shells", image=good)

    @app.function()
    def whole(): pass

    @app.function(image=broken)
    def fails(): pass

    @app.local_entrypoint()
    def main(): pass
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `shells.py` is."""
    top = tmp_path_factory.mktemp("shells")
    (top / "shells.py").write_text(dedent(PROGRAM))
    return top


def build_broken(installation: Installation, folder: Path) -> str:
    """What the error of the broken image says to type: `im-…/4`, say."""
    ended = flows.command(installation, "run", "shells.py::fails", cwd=folder)
    assert ended.code == 1, ended
    last = ended.err.rstrip().splitlines()[-1]
    found = re.fullmatch(r"to try it by hand: squall shell --image-step (im-[0-9a-f]{32}/5)", last)
    assert found is not None, ended
    return found[1]


@pytest.fixture(scope="module")
def step(session_installation: Installation, folder: Path) -> str:
    return build_broken(session_installation, folder)


@pytest.fixture
def nothing_kept(squall: Installation) -> Iterator[None]:
    """After a test no file of a shell is left, and nothing it wrote."""
    yield
    scratch = squall.data_dir / "layers" / ".scratch"
    wait_until(lambda: not list(scratch.iterdir()), f"{scratch} is empty", 20)


@pytest.mark.usefixtures("nothing_kept")
def test_command_before_the_failing_step_sees_what_the_step_saw(squall: Installation, step: str) -> None:
    look = 'ls /srv; cat /srv/earlier; pwd; echo $SEEN; id -u; test -n "$PIP_NO_CACHE_DIR" && echo settings; exit 5'

    ended = flows.command(squall, "shell", "--image-step", step, "-c", look)

    assert ended.code == 5, ended
    assert ended.out.split("\n")[:-1] == [
        "earlier", "here", "earlier", "/srv/here", "by later steps", "0", "settings"
    ]  # fmt: skip
    assert ended.err == "the step's secrets are not kept, and not set here: TOKEN\n"


@pytest.mark.usefixtures("nothing_kept")
def test_what_is_written_is_there_until_the_end_and_then_nowhere(squall: Installation, step: str) -> None:
    ended = flows.command(squall, "shell", "--image-step", step, "-c", "echo mine > /srv/mine && cat /srv/mine")
    again = flows.command(squall, "shell", "--image-step", step, "-c", "ls /srv")

    assert (ended.out, again.out) == ("mine\n", "earlier\nhere\n")


@pytest.mark.usefixtures("nothing_kept")
def test_steps_commands_are_typed_at_a_terminal(squall: Installation, step: str) -> None:
    with Terminal(squall, "shell", "--image-step", step) as terminal:
        terminal.wait_said("what the step runs:\r\n  touch /srv/half\r\n  echo tried; exit 9\r\n")
        terminal.wait_said("root@build:/srv/here# ")
        terminal.type("touch /srv/half; ls /srv; stty size; echo $TERM\r")
        terminal.wait_said("earlier  half  here")
        terminal.wait_said("40 120\r\nxterm-256color\r\n")
        terminal.type("sleep 60\r")
        time.sleep(0.3)
        terminal.type("\x03")  # of what runs in the shell, not of the command
        # What is typed before the shell asks for it is dropped.
        terminal.wait_said("here# ", after="^C")
        terminal.type("(exit 4)\r")
        terminal.wait_said("here# ", after="(exit 4)")
        terminal.type("\x04")

        assert terminal.wait() == 4
    assert "the-value" not in terminal.said


@pytest.mark.usefixtures("nothing_kept")
def test_input_that_is_no_terminal_is_read_to_its_end(squall: Installation, step: str) -> None:
    ended = flows.command(squall, "shell", "--image-step", step, "--no-pty", given="cat /srv/earlier\nexit 3\n")

    assert (ended.code, ended.out) == (3, "earlier\n")


@pytest.mark.usefixtures("nothing_kept")
def test_built_image_is_opened_by_its_id_and_by_a_function(squall: Installation, folder: Path, step: str) -> None:
    look = "cat /srv/whole; echo ${PIP_NO_CACHE_DIR:-nothing of a build}; pwd"

    by_function = flows.command(squall, "shell", "shells.py::whole", "-c", look, cwd=folder)
    image_id = re.findall(r"im-[0-9a-f]{32}", flows.program(squall, dedent(ID_OF), cwd=folder))[0]
    by_id = flows.command(squall, "shell", image_id, "-c", look)
    default = flows.command(squall, "shell", "-c", "ls /srv; python3 -c 'print(6 * 7)'")
    (folder / "notes").mkdir()
    (folder / "notes/first").write_text("noted\n")
    added = ("--add-local", "notes", "--add-local", "shells.py", "-c", "cat /mnt/notes/first; ls /mnt /srv")
    with_files = flows.command(squall, "shell", *added, image_id, cwd=folder)

    assert by_function.out == by_id.out == "whole\nnothing of a build\n/\n", by_function
    assert default.out == "42\n", default
    assert with_files.out.split() == ["noted", "/mnt:", "notes", "shells.py", "/srv:", "whole"], with_files


ID_OF = """
    import shells
    print(shells.good.build().object_id)
"""


def test_what_cannot_be_opened_is_told(squall: Installation, folder: Path, step: str) -> None:
    image_id = step.partition("/")[0]

    def refused(*arguments: str) -> str:
        ended = flows.command(squall, "shell", *arguments, "-c", "true", cwd=folder)
        assert ended.code in (1, 2), ended
        assert ended.out == ""
        return ended.err

    assert f"squall shell --image-step {image_id}/5" in refused(image_id)
    assert "it has 5 steps" in refused("--image-step", f"{image_id}/6")
    assert "nothing is there before step 1" in refused("--image-step", f"{image_id}/1")
    assert "im-…/N" in refused("--image-step", image_id)
    assert "not both" in refused("--image-step", step, "shells.py")
    assert "there is no container ct-1" in refused("ct-1")
    assert "no function or entrypoint 'main'" in refused("shells.py::main")
    assert "name one" in refused("shells.py")


@pytest.mark.usefixtures("nothing_kept")
def test_killed_client_leaves_nothing(squall: Installation, step: str) -> None:
    running = squall.start("shell", "--image-step", step, "-c", "echo begun; touch /srv/more; sleep 600")
    running.wait_said("begun")
    assert squall.processes()

    running.signal(signal.SIGKILL)

    assert squall.wait_no_processes(10) < 10
    # One on a terminal, with somebody typing.
    with Terminal(squall, "shell", "--image-step", step) as terminal:
        terminal.wait_said("# ")
        terminal.type("sleep 600 &\r")
    squall.wait_no_processes(10)


@pytest.mark.timeout(180)
def test_shell_ends_with_its_server_killed_or_stopped(
    make_installation: Callable[[Mapping[str, str]], Installation], folder: Path
) -> None:
    installation = make_installation({})
    step = build_broken(installation, folder)
    shell = ("shell", "--image-step", step, "-c", "echo begun; sleep 600")
    killed = installation.start(*shell)
    killed.wait_said("begun")

    os.kill(installation.server_pid(), signal.SIGKILL)
    ended = killed.wait()

    assert ended.code == 1, ended
    assert "Error:" in ended.err
    # The next server ends what the killed one has left.
    again = installation.start(*shell)
    again.wait_said("begun")
    scratch = installation.data_dir / "layers" / ".scratch"
    assert len(list(scratch.iterdir())) == 1

    assert installation.command("server", "stop", "--force").code == 0
    assert again.wait().code == 1
    installation.wait_no_processes(20)
    assert not list(scratch.iterdir())
