"""A function in the image an operator's registry has, from the command line to its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from squall.runtime.removal import remove_tree
from tests.e2e.installation import Installation
from tests.kernel import registries
from tests.kernel.registries import Registry, stock
from tests.kernel.rootfs import ensure_rootfs, missing

PROGRAM = """
import os
import sys

import squall

app = squall.App("where")

@app.function(image=squall.Image.debian_slim("3.11").pip_install("six"))
def where():
    import six

    return sys.executable, os.environ["GREETING"], os.getcwd(), six.__name__

@app.local_entrypoint()
def main():
    print("found", *where.remote(), sep="|")
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with an image as the official ones are."""
    if missing() or registries.missing():
        pytest.skip(missing() or registries.missing())
    with Registry(tmp_path / "registry") as running:
        stock(running, ensure_rootfs(), running.folder)
        yield running
    # Larger than what pytest should keep of its last runs.
    remove_tree(str(running.folder))


def test_function_runs_in_the_image_that_the_environment_names(
    registry: Registry, make_data_dir: Callable[[], Path], tmp_path: Path
) -> None:
    installation = Installation(
        make_data_dir(),
        {
            "HOME": str(registry.home),
            "SQUALL_PYTHON_IMAGE": f"{registry.place}/python:{{series}}-slim",
            "SQUALL_NETWORK_SLOTS": "2",
        },
    )
    program = tmp_path / "where.py"
    program.write_text(PROGRAM)
    try:
        ended = installation.command("run", str(program), timeout_s=120)
        tag = f"{registry.place}/python:3.11-slim"
        shell = installation.command("shell", "--image", tag, "-c", "echo $GREETING; pwd", timeout_s=120)
    finally:
        installation.stop()

    assert ended.code == 0, ended
    assert shell.out == "hello there\n/srv/app\n", shell
    assert "found|/usr/local/bin/python3|hello there|/srv/app|six" in ended.out
