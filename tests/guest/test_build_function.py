"""Functions of image builds in a process of their own, from the call that the SDK writes to the exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import squall
from squall.protocol.image import CALL_PATH
from squall.sdk._image_steps import flat

pytestmark = pytest.mark.long

SOURCE = Path(squall.__file__).parent.parent
SCRIPT = """
import asyncio, os, sys, threading, time
import squall

app = squall.App("x", image=squall.Image.debian_slim("3.11"))
SIZE = 3

def write(path, text="", times=1):
    print("writing", path, squall.is_local())
    with open(path, "w") as file:
        file.write(text * times * SIZE)

async def write_later(path, text):
    await asyncio.sleep(0)
    write(path, text)

@app.function()
def decorated(path):
    write(path, "decorated")

def deeper(path):
    raise LookupError(f"nothing at {path}")

def fail(path):
    try:
        deeper(path)
    except LookupError as error:
        raise RuntimeError("could not fetch") from error

def leave(code):
    sys.exit(code)

def leave_a_thread(path):
    write(path, "x")
    threading.Thread(target=time.sleep, args=(600,)).start()

def interrupt():
    raise KeyboardInterrupt

def needs():
    import no_such_package_of_squall
"""


class Step:
    """What one step would see and run, below a directory in place of the container's root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self, function: Callable[..., Any], *args: object, **options: Any) -> None:
        """Write the files of the step."""
        image = squall.Image.debian_slim("3.11").run_function(function, args=args, **options)
        files = flat(image.steps)[1].files
        assert files is not None
        mount = files()
        for file in mount.manifest.files:
            place = self.root / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            part = mount.parts.get(file.sha256)
            place.write_bytes(Path(part.path).read_bytes() if part else mount.contents[file.sha256])

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run the call, as the builder does."""
        return subprocess.run(
            [sys.executable, "-u", "-B", "-m", "squall.guest.build_function", str(self.root / CALL_PATH)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{self.root}/root:{SOURCE}", "SQUALL_IS_REMOTE": "1"},
            capture_output=True,
            text=True,
            cwd=self.root,
            timeout=60,
            check=False,
        )


@pytest.fixture
def step(tmp_path: Path) -> Step:
    return Step(tmp_path / "image")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """The functions above, of a file; nobody else imports one of that name."""
    name = "script_" + "".join(letter for letter in request.node.name if letter.isalnum())
    (tmp_path / f"{name}.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield __import__(name)
    sys.modules.pop(name)


def test_a_function_of_a_file_is_called_with_its_arguments(step: Step, script: Any, tmp_path: Path) -> None:
    step.prepare(script.write, str(tmp_path / "made"), kwargs={"text": "ab", "times": 2})

    ended = step.run()

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"writing {tmp_path}/made False\n"
    assert (tmp_path / "made").read_text() == "ab" * 6


def test_a_function_of_a_package_sees_its_neighbours(
    step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "here" / "fetching" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package.parent / "data.txt").write_text("data of the package")
    (package / "__init__.py").write_text("")
    (package / "other.py").write_text("WORD = 'from beside'")
    (package / "work.py").write_text(
        "import pathlib\nfrom fetching.inner.other import WORD\n"
        "def fetch(path):\n"
        "    beside = pathlib.Path(__file__).parent.parent / 'data.txt'\n"
        "    pathlib.Path(path).write_text(WORD + ' ' + beside.read_text())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    step.prepare(__import__("fetching.inner.work", fromlist=["fetch"]).fetch, str(tmp_path / "made"))

    ended = step.run()

    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "made").read_text() == "from beside data of the package"


def test_a_function_in_a_function_brings_what_is_around_it(step: Step, tmp_path: Path) -> None:
    word = "from around"

    def write(path: str) -> None:
        Path(path).write_text(word)

    step.prepare(write, str(tmp_path / "made"))

    ended = step.run()

    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "made").read_text() == word


def test_an_async_function_is_awaited(step: Step, script: Any, tmp_path: Path) -> None:
    step.prepare(script.write_later, str(tmp_path / "made"), "later")

    assert step.run().returncode == 0
    assert (tmp_path / "made").read_text() == "later" * 3


def test_a_function_of_an_app_is_called_itself(step: Step, script: Any, tmp_path: Path) -> None:
    step.prepare(script.decorated, str(tmp_path / "made"))

    ended = step.run()

    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "made").read_text() == "decorated" * 3


def test_an_exception_is_shown_with_the_users_frames_alone(step: Step, script: Any) -> None:
    step.prepare(script.fail, "/nowhere")

    ended = step.run()

    assert ended.returncode == 1
    frames = [line.split(", ")[-1] for line in ended.stderr.splitlines() if line.startswith("  File ")]
    assert frames == ["in fail", "in deeper", "in fail"]
    assert "LookupError: nothing at /nowhere" in ended.stderr
    assert ended.stderr.endswith("RuntimeError: could not fetch\n")
    assert str(SOURCE / "squall") not in ended.stderr


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (None, 0), (3, 3), ("a reason", 1)])
def test_the_exit_code_is_what_the_function_says(step: Step, script: Any, code: object, ends: int) -> None:
    step.prepare(script.leave, code)

    ended = step.run()

    assert ended.returncode == ends
    assert ended.stderr == (f"{code}\n" if isinstance(code, str) else "")


def test_threads_that_are_left_keep_nobody_waiting(step: Step, script: Any, tmp_path: Path) -> None:
    step.prepare(script.leave_a_thread, str(tmp_path / "made"))

    assert step.run().returncode == 0


def test_an_interrupt_is_a_failure(step: Step, script: Any) -> None:
    step.prepare(script.interrupt)

    ended = step.run()

    assert ended.returncode == 1
    assert ended.stderr.endswith("KeyboardInterrupt\n")


def test_a_package_that_the_image_lacks_is_named(step: Step, script: Any) -> None:
    step.prepare(script.needs)

    ended = step.run()

    assert ended.returncode == 1
    assert "No module named 'no_such_package_of_squall'" in ended.stderr
    assert "image.pip_install('no_such_package_of_squall')" in ended.stderr


def test_a_source_that_did_not_travel_is_named(step: Step, script: Any) -> None:
    step.prepare(script.interrupt, include_source=False)

    ended = step.run()

    assert ended.returncode == 1
    assert f"cannot load function interrupt: No module named '{script.__name__}'" in ended.stderr


def test_a_pickle_of_another_python_is_refused_with_what_to_do(step: Step) -> None:
    step.prepare(lambda: None)
    call = step.root / CALL_PATH
    here = f'"{sys.version_info[0]}.{sys.version_info[1]}"'
    call.write_bytes(call.read_bytes().replace(here.encode(), b'"3.99"', 1))

    ended = step.run()

    assert ended.returncode == 1
    assert "was serialized by Python 3.99" in ended.stderr
    assert "use an image with Python 3.99" in ended.stderr


def test_arguments_of_classes_the_image_lacks_are_told(step: Step, script: Any, tmp_path: Path) -> None:
    module = tmp_path / "classes_of_here.py"
    module.write_text("class Thing: pass\n")
    thing = __import__("classes_of_here").Thing()
    step.prepare(script.write, thing)

    ended = step.run()

    assert ended.returncode == 1
    assert "classes_of_here" in ended.stderr
