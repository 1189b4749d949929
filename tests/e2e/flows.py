"""Ways to use the programs of `programs/flows`: by the command, and in this process through the SDK."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from squall.sdk import _client

ROOT = Path(__file__).resolve().parent.parent.parent
FLOWS = Path(__file__).resolve().parent / "programs" / "flows"
COMMAND = (str(Path(sys.executable).parent / "squall"),)
RUN_S = 90.0


def environment(data_dir: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a user's program has in its environment, with this server's data directory."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("SQUALL_") or "TEST" in name}
    return {**env, "SQUALL_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT / "src"), **(more or {})}


def squall(
    data_dir: Path,
    *arguments: str,
    cwd: Path | None = None,
    given: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = RUN_S,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; what it printed and its exit code are the caller's to judge."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd or FLOWS,
        env=environment(data_dir, env),
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def squall_ok(data_dir: Path, *arguments: str, **more: Any) -> str:
    """As `squall`; fails when the command does, and returns its standard output."""
    done = squall(data_dir, *arguments, **more)
    assert done.returncode == 0, f"squall {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def program(data_dir: Path, source: str, *, python: str = sys.executable, timeout_s: float = RUN_S) -> str:
    """Run Python source as a program of its own, next to the flows; returns what it printed."""
    done = subprocess.run(
        [python, "-c", source],
        cwd=FLOWS,
        env=environment(data_dir),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def client_of(data_dir: Path) -> Iterator[None]:
    """In the block, the SDK in this process talks to the server of that data directory."""
    before = os.environ.get("SQUALL_DATA_DIR")
    _client.close()
    os.environ["SQUALL_DATA_DIR"] = str(data_dir)
    try:
        yield
    finally:
        _client.close()
        if before is None:
            del os.environ["SQUALL_DATA_DIR"]
        else:
            os.environ["SQUALL_DATA_DIR"] = before


@contextmanager
def running(data_dir: Path, name: str) -> Iterator[ModuleType]:
    """A flow's module, imported as a script's sibling would, with its app running in this process."""
    sys.path.insert(0, str(FLOWS))
    try:
        module = importlib.import_module(name)
        with client_of(data_dir), module.app.run():
            yield module
    finally:
        sys.path.remove(str(FLOWS))
        sys.modules.pop(name, None)


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0, what: str = "it") -> Any:
    """Poll until the condition gives something true, and return that."""
    import time

    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:.0f} s"
        time.sleep(0.05)
