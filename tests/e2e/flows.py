"""Ways to use the programs of `programs/flows`: by the command, and in this process through the SDK."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from squall.sdk import _client
from tests.e2e.installation import PROGRAMS, RUN_S, SQUALL, Ended, Installation

FLOWS = PROGRAMS / "flows"


def command(
    installation: Installation, *arguments: str, given: str | None = None, cwd: Path = FLOWS, timeout_s: float = RUN_S
) -> Ended:
    """Run the command to its end in the folder of the flows; `given` is its standard input."""
    return _ended([SQUALL, *arguments], installation, given, cwd, timeout_s)


def command_ok(installation: Installation, *arguments: str, cwd: Path = FLOWS, timeout_s: float = RUN_S) -> Ended:
    """As `command`; fails when the command does."""
    ended = command(installation, *arguments, cwd=cwd, timeout_s=timeout_s)
    assert ended.code == 0, f"squall {' '.join(arguments)}: {ended}"
    return ended


def program(installation: Installation, source: str, *, cwd: Path = FLOWS, timeout_s: float = RUN_S) -> str:
    """Run Python source as a program of its own, next to the flows; returns what it printed."""
    ended = _ended([sys.executable, "-c", source], installation, None, cwd, timeout_s)
    assert ended.code == 0, str(ended)
    return ended.out


def script(installation: Installation, path: Path, *arguments: str, timeout_s: float = RUN_S) -> Ended:
    """Run a file with plain Python."""
    return _ended([sys.executable, str(path), *arguments], installation, None, path.parent, timeout_s)


def _ended(argv: Sequence[str], installation: Installation, given: str | None, cwd: Path, timeout_s: float) -> Ended:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=installation.environ(),
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr, 0.0)


@contextmanager
def client_of(installation: Installation) -> Iterator[None]:
    """In the block, the SDK in this process talks to that server."""
    before = os.environ.get("SQUALL_DATA_DIR")
    _client.close()
    os.environ["SQUALL_DATA_DIR"] = str(installation.data_dir)
    try:
        yield
    finally:
        _client.close()
        if before is None:
            del os.environ["SQUALL_DATA_DIR"]
        else:
            os.environ["SQUALL_DATA_DIR"] = before


@contextmanager
def running(installation: Installation, name: str) -> Iterator[ModuleType]:
    """A flow's module, imported as a script's sibling would be, with its app running in this process."""
    sys.path.insert(0, str(FLOWS))
    try:
        module = importlib.import_module(name)
        with client_of(installation), module.app.run():
            yield module
    finally:
        sys.path.remove(str(FLOWS))
        sys.modules.pop(name, None)
