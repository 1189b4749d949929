"""The processes of an idle server are found by what they run and where, whatever the directory is called."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench import idle_server
from bench.figure import Absent, Context

STAND_IN = "import sys; print('up', flush=True); sys.stdin.read()"


@contextmanager
def process(*arguments: object) -> Iterator[int]:
    """A process that does nothing and has these arguments."""
    argv = [sys.executable, "-S", "-c", STAND_IN, *map(str, arguments)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        started.stdout.readline()
        yield started.pid


def found(data_dir: Path) -> set[int]:
    return {int(path.name) for path in idle_server.processes(Context(data_dir=data_dir))}


def test_server_and_spawner_of_a_directory_named_as_the_benchmarks_do_are_found(tmp_path: Path) -> None:
    data_dir = tmp_path / "sq-bench-1"
    with ExitStack() as stack:
        pids = {
            stack.enter_context(process("-m", module, *arguments))
            for module, *arguments in (
                ("squall.main.dev", "serve", "--data-dir", data_dir, "--ready-fd", 5),
                ("squall.runtime.spawner", "--state", data_dir / "spawner", "--instance", "i0"),
            )
        }

        assert found(data_dir) == pids


def test_benchmarks_and_servers_elsewhere_are_left_out(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with (
        process("-m", "bench.run", "--data-dir", data_dir),
        process("-m", "squall.main.dev", "serve", "--data-dir", f"{data_dir}2"),
        process("-m", "squall.main.dev", "serve", "--data-dir", tmp_path / "other"),
        pytest.raises(Absent, match="no process"),
    ):
        found(data_dir)
