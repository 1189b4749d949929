"""The file that goes to volumes and back: not a benchmark itself; those of volumes and their references use it.

Each run has new random bytes: what a store has already is not sent again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figure import COMMAND, Absent, Context

SIZE = 2 * 10**9
PIECE = 16 * 2**20
TIMEOUT_S = 240.0
MOUNTED = "bench-mounted"


def size(context: Context) -> int:
    """Of the file."""
    return SIZE // 10 if context.is_quick else SIZE


@contextmanager
def random_file(context: Context) -> Iterator[Path]:
    """It is on the disk, and in the page cache."""
    path = context.data_dir / "bench-file"
    try:
        with path.open("wb") as file:
            for at in range(0, size(context), PIECE):
                file.write(os.urandom(min(PIECE, size(context) - at)))
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def timed(command: list[str], env: dict[str, str] | None = None) -> tuple[float, float]:
    """How long a command took, in seconds, and the most memory that it had, in MB of a million bytes.

    Raises:
        Absent: it failed; with the end of what it said.
    """
    begin_s = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env) as program:
        assert program.stderr is not None
        said = program.stderr.read().decode(errors="replace")
        _, status, usage = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
    took_s = time.perf_counter() - begin_s
    if program.returncode:
        raise Absent(f"{' '.join(command[-4:])}: {(said.strip().splitlines() or ['failed'])[-1][:140]}")
    return took_s, usage.ru_maxrss * 1024 / 1e6


def volume(context: Context, *arguments: str) -> tuple[float, float]:
    """The same of `squall volume …`."""
    return timed([sys.executable, "-c", COMMAND, "volume", *arguments], context.env)


def read_through(path: str) -> float:
    """Read a file from its begin to its end; how long that took, in seconds."""
    buffer = bytearray(PIECE)
    begin_s = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begin_s


def forget(path: Path) -> None:
    """Nothing of a file, or of those in a directory, is in memory."""
    os.sync()
    for one in path.rglob("*") if path.is_dir() else (path,):
        if one.is_file():
            with one.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def emptied(context: Context) -> Iterator[None]:
    """The volume of `programs/volume_mounted.py`, new, and gone afterwards with its blocks."""
    volume(context, "delete", MOUNTED, "--yes", "--allow-missing")
    volume(context, "create", MOUNTED)
    try:
        yield
    finally:
        volume(context, "delete", MOUNTED, "--yes", "--allow-missing")
        volume(context, "gc")


def flush() -> None:
    """What others wrote is on the disk: it is not for the next one to wait for."""
    os.sync()
