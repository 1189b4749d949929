"""A user's program that measures volumes in containers: `volume_mounted.py MEASUREMENT COUNT` prints a JSON object."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import squall
from bench.figure import p50, percentile
from bench.volume_file import MOUNTED, read_through

FILES = 50_000
FOLDER_FILES = 500

app = squall.App("bench-volumes")
image = squall.Image.debian_slim().add_local_python_source("bench")
volume = squall.Volume.from_name(MOUNTED)


@app.function(image=image, volumes={"/data": volume}, timeout=600, startup_timeout=600)
def read(times: int) -> list[float]:
    """Seconds that each read of the file took, one after the other."""
    return [read_through("/data/file") for _ in range(times)]


@app.function(image=image, volumes={"/data": volume}, timeout=600, startup_timeout=600)
def write_many(files: int, times: int) -> tuple[float, list[float]]:
    """Make many files, and a version of them; how long the commit took, in seconds, and what `change_one` says then."""
    from pathlib import Path  # in the container, as the rest

    for number in range(files):
        path = Path(f"/data/{number // FOLDER_FILES:04}/{number:06}.json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"first {number}")
    begin_s = time.perf_counter()
    volume.commit()
    all_s = time.perf_counter() - begin_s
    return all_s, changed_ms(files, times)


@app.function(image=image, volumes={"/data": volume}, timeout=600, startup_timeout=600)
def change_one(files: int, times: int) -> list[float]:
    """Change one file and commit, again and again; how long each commit took, in milliseconds."""
    return changed_ms(files, times)


def changed_ms(files: int, times: int) -> list[float]:
    """See `change_one`."""
    from pathlib import Path

    took_ms = []
    for turn in range(times):
        number = turn * 7919 % files
        Path(f"/data/{number // FOLDER_FILES:04}/{number:06}.json").write_text(f"changed {turn}")
        begin_s = time.perf_counter()
        volume.commit()
        took_ms.append((time.perf_counter() - begin_s) * 1e3)
    return took_ms


def cached(times: int) -> dict[str, float]:
    """Reads of a file that has been read."""
    with app.run():
        took_s = read.remote(times + 1)
    return {"p50_s": p50(took_s[1:]), "slowest_s": max(took_s[1:])}


def first(times: int) -> dict[str, float]:
    """The first read of a file on a node: from the call to its result, the start of the container included."""
    with app.run():
        begin_s = time.perf_counter()
        (read_s,) = read.remote(1)
        return {"whole_s": time.perf_counter() - begin_s, "read_s": read_s}


def commit(times: int) -> dict[str, float]:
    """Commits of one changed file among many."""
    with app.run():
        all_s, own_ms = write_many.remote(FILES, times)
        took_ms = change_one.remote(FILES, times)
    return {"p50_ms": p50(took_ms), "p99_ms": percentile(took_ms, 99), "own_ms": p50(own_ms), "all_s": all_s}


MEASUREMENTS: dict[str, Callable[[int], dict[str, float]]] = {"cached": cached, "first": first, "commit": commit}


if __name__ == "__main__":
    print(json.dumps(MEASUREMENTS[sys.argv[1]](int(sys.argv[2]))))
