"""Bytecode of packages: made once, copied, and valid for as long as the source is as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from squall.agent.image.package.compiling import AFTER_INSTALL, IN_CACHE


class Place:
    """A cache with one package, and an environment that it is installed into."""

    def __init__(self, top: Path) -> None:
        self.began = top / "began"
        self.package = top / "cache/archive-v0/abc"
        (self.package / "pkg").mkdir(parents=True)
        (self.package / "pkg-1.dist-info").mkdir()
        (self.package / "pkg-1.dist-info/METADATA").touch()
        (self.package / "pkg/__init__.py").write_text("VALUE = 1\n")
        os.utime(self.package / "pkg/__init__.py", (1_600_000_000, 1_600_000_000))
        self.fetched = top / "fetched"
        (self.fetched / "pkg-1.dist-info").mkdir(parents=True)
        (self.fetched / "pkg-1.dist-info/METADATA").symlink_to(self.package / "pkg-1.dist-info/METADATA")
        venv.create(top / "venv", symlinks=True)
        self.python = top / "venv/bin/python"
        (self.site,) = (top / "venv/lib").glob("python3.*/site-packages")

    def fetch(self) -> None:
        subprocess.run([sys.executable, "-I", "-S", "-c", IN_CACHE, str(self.fetched)], check=True, timeout=60)

    def install(self) -> None:
        """As uv copies: the times of the sources are those of the copying."""
        self.began.touch()
        time.sleep(0.02)  # times of files are told apart by ticks of the kernel
        shutil.copytree(self.package / "pkg", self.site / "pkg", copy_function=shutil.copyfile)
        self.settle()

    def settle(self) -> None:
        subprocess.run([self.python, "-I", "-c", AFTER_INSTALL, str(self.began)], check=True, timeout=60)

    def imported(self) -> tuple[str, bool]:
        """The value of the package, and whether its bytecode was taken as it is."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        ran = subprocess.run(
            [self.python, "-v", "-c", "import pkg; print(pkg.VALUE)"],
            capture_output=True,
            text=True,
            env=environ,
            timeout=60,
        )
        return ran.stdout.strip(), "matches" in "".join(line for line in ran.stderr.splitlines() if "pkg" in line)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.long
def test_bytecode_made_in_the_cache_is_taken_where_the_package_is_installed(place: Place) -> None:
    place.fetch()
    made = next((place.package / "pkg/__pycache__").iterdir()).read_bytes()

    place.install()

    assert next((place.site / "pkg/__pycache__").iterdir()).read_bytes() == made
    assert place.imported() == ("1", True)


def test_source_without_bytecode_is_compiled(place: Place) -> None:
    place.install()

    assert place.imported() == ("1", True)


def test_source_that_was_changed_before_is_left_to_be_noticed(place: Place) -> None:
    place.fetch()
    place.install()
    (place.site / "pkg/__init__.py").write_text("VALUE = 2\n")
    os.utime(place.site / "pkg/__init__.py", (1_700_000_000, 1_700_000_000))
    os.utime(place.began)

    place.settle()

    assert place.imported() == ("2", False)


@pytest.mark.long
def test_many_sources_are_compiled_by_all_processors(place: Place) -> None:
    for number in range(150):
        (place.package / f"pkg/module{number}.py").write_text(f"VALUE = {number}\n")

    place.install()

    assert len(list((place.site / "pkg/__pycache__").iterdir())) == 151
