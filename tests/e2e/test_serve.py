"""`squall serve`: real edits of real files, seen by callers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.cli.serve import LOOK_S
from tests.e2e.installation import Installation, Running, wait_until

PROGRAM = """
import squall

app = squall.App("{name}")
image = squall.Image.debian_slim().add_local_file("{folder}/words.txt", "/words.txt")


@app.function(image=image)
def greet() -> str:
    return "{answer} " + open("/words.txt").read()
"""

ASKING = """
import sys, time
import squall

greet = squall.Function.from_name(sys.argv[1], "greet")
while True:
    print(greet.remote(), flush=True)
    time.sleep(0.05)
"""


class Served:
    """A program that is served, and somebody who calls it again and again."""

    def __init__(self, squall: Installation, folder: Path, name: str) -> None:
        self.squall = squall
        self.folder = folder
        self.name = name
        self.file = folder / "greeter.py"
        self.edit("one")
        (folder / "words.txt").write_text("world")
        self.running: Running = squall.start("serve", str(self.file), cwd=folder)
        self.running.wait_said("Watched, until Ctrl-C", 120)
        self.asking = Running([sys.executable, "-c", ASKING, name], squall.environ(), folder)

    def edit(self, answer: str) -> None:
        self.file.write_text(PROGRAM.format(name=self.name, folder=self.folder, answer=answer))

    def wait_answer(self, answer: str) -> None:
        wait_until(lambda: self.asking.said().splitlines()[-1:] == [answer], f"{answer!r} is answered", 30)

    def close(self) -> None:
        self.asking.close()
        self.running.close()


@pytest.fixture
def served(squall: Installation, tmp_path: Path) -> Iterator[Served]:
    one = Served(squall, tmp_path, f"served-{tmp_path.name[-20:]}"[:60].rstrip("-"))
    yield one
    one.close()


def states(squall: Installation, name: str) -> list[str]:
    apps = json.loads(squall.command("app", "list", "--json").out)
    return [one["state"] for one in apps if one["description"] == name]


def test_edits_are_seen_by_who_calls_and_code_that_is_wrong_by_who_edits(served: Served) -> None:
    said = served.running.said
    assert "├─ greeter.py" in said()
    assert "└─ words.txt" in said()
    served.wait_answer("one world")

    served.edit("two")
    served.wait_answer("two world")
    assert "Changed: greeter.py; reloading" in said()

    (served.folder / "words.txt").write_text("moon")
    served.wait_answer("two moon")

    served.file.write_text("def (")
    served.running.wait_said("It was not reloaded: what ran before goes on", 30)
    assert "SyntaxError" in said()
    count = len(served.asking.said().splitlines())
    wait_until(lambda: len(served.asking.said().splitlines()) > count + 3, "what ran before answers", 20)
    served.wait_answer("two moon")

    served.edit("three")
    served.wait_answer("three moon")
    # Nobody who called in all that time was refused.
    assert served.asking.process.poll() is None

    served.asking.close()
    served.running.signal(signal.SIGINT)
    ended = served.running.wait(30)
    assert ended.code == 0, ended
    assert states(served.squall, served.name) == ["stopped"]


def test_serving_beside_a_deployed_app_says_which_one_its_name_means(squall: Installation, tmp_path: Path) -> None:
    file = tmp_path / "twice.py"
    program = "import squall\napp = squall.App('twice')\n@app.function()\ndef one() -> int:\n    return {answer}\n"
    asking = "import squall; print(squall.Function.from_name('twice', 'one').remote())"
    file.write_text(program.format(answer=1))
    assert squall.command("deploy", str(file), timeout_s=120).code == 0
    deployed_id = _app_id(squall, "twice", "deployed")
    file.write_text(program.format(answer=2))

    served = squall.start("serve", str(file), cwd=tmp_path)
    served.wait_said("--name twice-dev", 60)

    assert f"The deployed app {deployed_id} (version 1) has the name twice, too" in served.said()
    assert f"mean {deployed_id}." in served.said()
    assert _program(squall, asking) == "1"

    squall.command("app", "stop", deployed_id, "--yes")
    served.wait_said("The name twice means what is served here again.", 60)

    assert _program(squall, asking) == "2"
    served.close()


def test_of_two_that_are_served_under_one_name_the_later_has_it_and_both_are_told(served: Served) -> None:
    served.wait_answer("one world")
    first_id = _app_id(served.squall, served.name, "ephemeral")
    (served.folder / "other").mkdir()
    other = served.folder / "other" / "greeter.py"
    other.write_text(PROGRAM.format(name=served.name, folder=served.folder, answer="other"))

    later = served.squall.start("serve", str(other))
    later.wait_said("mean what is served here.", 60)

    assert f"The ephemeral app {first_id}" in later.said()
    later_id = next(one for one in _app_ids(served.squall, served.name, "ephemeral") if one != first_id)
    served.running.wait_said(f"mean {later_id}.", 60)
    later.close()


def test_app_that_somebody_stops_ends_the_command(served: Served) -> None:
    served.wait_answer("one world")
    served.asking.close()

    served.squall.command("app", "stop", served.name, "--yes")
    ended = served.running.wait(30)

    assert ended.code == 1, ended
    assert f"{served.name} was stopped by somebody else; nothing is served any more." in ended.err


def test_a_server_that_does_not_answer_keeps_nobody_from_editing(served: Served) -> None:
    os.kill(served.squall.server_pid(), signal.SIGSTOP)
    try:
        time.sleep(LOOK_S + 1.0)  # it is being looked whether the app is still there
        served.edit("two")
        served.running.wait_said("Changed: greeter.py", 10)
    finally:
        os.kill(served.squall.server_pid(), signal.SIGCONT)

    served.wait_answer("two world")


def test_app_that_is_renamed_keeps_the_name_it_is_served_as_and_says_so(served: Served) -> None:
    served.wait_answer("one world")

    served.file.write_text(PROGRAM.format(name="renamed", folder=served.folder, answer="two"))

    served.running.wait_said(f"calls its app renamed now; it is served as {served.name} still", 60)
    assert "end this with Ctrl-C and begin again" in served.running.said()
    served.wait_answer("two world")


def test_schedule_that_a_change_adds_is_said_to_rest_once(served: Served) -> None:
    text = served.file.read_text()
    served.file.write_text(text.replace("(image=image)", "(image=image, schedule=squall.Period(days=1))"))
    served.running.wait_said("The schedule of greet rests", 30)

    served.file.write_text(served.file.read_text().replace("one", "two"))
    served.wait_answer("two world")
    assert served.running.said().count("The schedule of greet rests") == 1


def test_image_that_cannot_be_built_leaves_what_ran(served: Served) -> None:
    served.wait_answer("one world")

    text = served.file.read_text().replace("debian_slim()", 'debian_slim().run_commands("exit 7")')
    served.file.write_text(text.replace("one ", "two "))
    served.running.wait_said("It was not reloaded", 60)

    assert "exit 7" in served.running.said()
    served.wait_answer("one world")


def test_editions_end_with_the_command_whatever_ends_it(served: Served) -> None:
    children = _children(served.running.pid)
    assert len(children) == 1

    os.kill(served.running.pid, signal.SIGKILL)

    wait_until(lambda: not any(map(_is_alive, children)), "the edition ends", 20)
    served.asking.close()
    served.squall.command("app", "stop", served.name, "--yes")


def test_module_is_served_until_its_time_is_over(squall: Installation, tmp_path: Path) -> None:
    package = tmp_path / "greeters"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "polite.py").write_text(
        "import squall\n"
        "app = squall.App('polite')\n"
        "@app.function(schedule=squall.Period(days=1))\n"
        "def greet() -> str:\n"
        "    return 'good day'\n"
    )

    ended = squall.command("serve", "-m", "greeters.polite", "--timeout", "3", timeout_s=120, cwd=tmp_path)

    assert ended.code == 0, ended
    assert f"└─ greeters{os.sep} (2 files)" in ended.err
    assert ended.err.count("The schedule of greet rests") == 1
    assert states(squall, "polite") == ["stopped"]


def test_the_time_also_ends_for_what_is_still_loading(squall: Installation, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(50)\n")

    ended = squall.command("serve", "slow.py", "--timeout", "2", timeout_s=30, cwd=tmp_path)

    assert ended.code == 0, ended
    assert "still loading" in ended.err


@pytest.mark.parametrize(
    ("program", "code", "text"),
    [("def (", 1, "SyntaxError"), ("x = 1", 2, "has no app"), (None, 1, "cannot serve gone.py: no such file")],
)
def test_what_cannot_be_loaded_at_all_is_not_served(
    squall: Installation, tmp_path: Path, program: str | None, code: int, text: str
) -> None:
    if program is not None:
        (tmp_path / "gone.py").write_text(program)

    ended = squall.command("serve", "gone.py", timeout_s=60, cwd=tmp_path)

    assert ended.code == code, ended
    assert text in ended.err


def _app_ids(squall: Installation, name: str, state: str) -> list[str]:
    apps = json.loads(squall.command("app", "list", "--json").out)
    return [one["app_id"] for one in apps if (one["description"], one["state"]) == (name, state)]


def _app_id(squall: Installation, name: str, state: str) -> str:
    (found,) = _app_ids(squall, name, state)
    return found


def _program(squall: Installation, source: str) -> str:
    argv = [sys.executable, "-c", source]
    return subprocess.run(argv, env=squall.environ(), capture_output=True, text=True, check=True).stdout.strip()


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(word) for word in listed.stdout.split()]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
