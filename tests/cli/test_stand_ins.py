"""Modules that are loaded when they are used, and what `squall run` loads of them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.cli.stand_ins import StandIn, standing_in

NAME = "squall_test_stood_in"


@pytest.fixture
def stood_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that notes when it is loaded."""
    (tmp_path / f"{NAME}.py").write_text("import sys\nsys.squall_test_loads = 1\nanswer = 42\nclass Kind: pass\n")
    (tmp_path / f"{NAME}_user.py").write_text(f"import {NAME}\ndef ask(): return {NAME}.answer\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield NAME
    for name in (NAME, f"{NAME}_user"):
        sys.modules.pop(name, None)
    vars(sys).pop("squall_test_loads", None)


def is_loaded() -> bool:
    return hasattr(sys, "squall_test_loads")


def test_module_is_loaded_when_it_is_used(stood_in: str) -> None:
    with standing_in({stood_in: {}}):
        user = importlib.import_module(f"{stood_in}_user")
    assert not is_loaded()

    assert user.ask() == 42

    assert is_loaded()


def test_others_get_the_module_itself(stood_in: str) -> None:
    with standing_in({stood_in: {}}):
        importlib.import_module(f"{stood_in}_user")
    assert stood_in not in sys.modules

    found = importlib.import_module(stood_in)

    assert not isinstance(found, StandIn)


def test_module_that_is_used_meanwhile_is_loaded(stood_in: str) -> None:
    with standing_in({stood_in: {}}):
        kind = importlib.import_module(stood_in).Kind

    assert kind is importlib.import_module(stood_in).Kind


def test_what_a_stand_in_can_do_loads_nothing(stood_in: str) -> None:
    with standing_in({stood_in: {"own": lambda: "own"}}):
        made = importlib.import_module(stood_in)

    assert made.own() == "own"
    assert not is_loaded()


def test_module_that_was_there_stays(stood_in: str) -> None:
    before = importlib.import_module(stood_in)

    with standing_in({stood_in: {}}):
        assert importlib.import_module(stood_in) is before

    assert importlib.import_module(stood_in) is before


def test_name_that_the_module_lacks_is_told_by_the_module(stood_in: str) -> None:
    with standing_in({stood_in: {}}):
        made = importlib.import_module(stood_in)

    with pytest.raises(AttributeError, match="squall_test_stood_in"):
        _ = made.no_such_name


UNWANTED = ("asyncio", "dataclasses", "hashlib", "inspect", "ipaddress", "platform", "subprocess", "traceback")
"""Each takes 1 to 7 ms of the 100 in which `squall run` reaches the entrypoint of an app."""


def test_run_loads_nothing_it_does_not_need(tmp_path: Path) -> None:
    program = tmp_path / "app.py"
    program.write_text(
        "import sys\n"
        "import squall\n"
        "import squall.sdk._run, squall.sdk._image_build, squall.sdk._blob  # of a run of an app\n"
        "from squall.cli.signature import bind\n"
        "def main(): 'What it does.'\n"
        "bind(main, 'main', [])\n"
        f"print([name for name in {UNWANTED} if name in sys.modules])\n"
        "sys.exit()\n"
    )

    ran = subprocess.run(
        [Path(sys.executable).parent / "squall", "run", str(program)],
        env={**os.environ, "SQUALL_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (ran.stdout, ran.stderr, ran.returncode) == ("[]\n", "", 0)
