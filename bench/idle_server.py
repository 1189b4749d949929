"""What a server costs that has nothing to do: not a benchmark itself, idle_server_memory and idle_server_cpu are."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

from bench.figure import Absent, Context


def start(context: Context) -> None:
    """Start the local server of the context's data directory, if it does not run already.

    Raises:
        Absent: it does not start.
    """
    ran = context.squall("server", "start")
    if ran.returncode != 0:
        raise Absent(f"squall server start: {(ran.stderr.strip().splitlines() or ['failed without a word'])[-1][:140]}")


def processes(context: Context) -> list[Path]:
    """Every process of that server: what runs a module of ours with the context's data directory, or one below it."""
    found = [path for path in Path("/proc").glob("[0-9]*") if _is_servers(_arguments(path), str(context.data_dir))]
    if not found:
        raise Absent("no process of the server was found")
    return found


def _arguments(path: Path) -> list[str]:
    try:
        return (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _is_servers(arguments: list[str], data_dir: str) -> bool:
    runs_ours = any(option == "-m" and module.startswith("squall.") for option, module in pairwise(arguments))
    return runs_ours and any(one == data_dir or one.startswith(f"{data_dir}/") for one in arguments)


def memory_mb(path: Path, field: str) -> float:
    """One line of smaps_rollup, in MB of a million bytes: Rss counts shared pages in full, Pss its share of them."""
    for line in (path / "smaps_rollup").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def cpu_ticks(path: Path) -> int:
    """Processor time used so far, user and system."""
    fields = (path / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def settle() -> None:
    """Wait until what follows a start (pools, migrations, late imports) is over."""
    time.sleep(5)
