"""A user's program that measures Squall from the outside: `calls.py MEASUREMENT COUNT` prints one JSON object.

Everything here goes through the public API. Times are wall times in this process, but where said otherwise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import squall

app = squall.App("bench")

LARGE_BYTES = 200_000_000


@app.function()
def identity(value: int) -> int:
    """The value itself."""
    return value


@app.function()
def where(value: int) -> tuple[int, float]:
    """Which container answers (its pid namespace) and since when (the machine's monotonic clock)."""
    entered_s = time.monotonic()
    # Longer than it may take until the last container is there: none takes a second input before that.
    time.sleep(15)
    return os.stat("/proc/self/ns/pid").st_ino, entered_s


@app.function()
def size(value: bytes) -> int:
    """How large the value is."""
    return len(value)


@app.function()
def block(number: int) -> bytes:
    """As many bytes as `LARGE_BYTES`, others for each number."""
    return large(number)


@app.function()
def import_times(count: int) -> list[float]:
    """`import squall` in fresh interpreters inside a container, in ms, without the interpreter's own imports."""
    return [import_ms() for _ in range(count)]


def import_ms() -> float:
    """What `-X importtime` says `import squall` and the first use of App add to an empty interpreter."""
    return importtime_ms("import squall; squall.App") - importtime_ms("pass")


def importtime_ms(statement: str) -> float:
    """The sum of every module's own import time."""
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement], capture_output=True, text=True, timeout=60, check=True
    )
    lines = (line.split("|")[0].removeprefix("import time:").strip() for line in ran.stderr.splitlines())
    return sum(int(line) for line in lines if line.isdigit()) / 1e3


def warm_call(count: int) -> dict[str, float]:
    """One call after the other to a container that is there."""
    with app.run():
        times_ms = [timed_ms(lambda: identity.remote(1)) for _ in range(count + count // 10)]
    times_ms = sorted(times_ms[count // 10 :])
    return {"p50_ms": times_ms[len(times_ms) // 2], "p99_ms": times_ms[len(times_ms) * 99 // 100]}


def map_trivial(count: int) -> dict[str, float]:
    """One map of trivial inputs, its results in order and complete; containers are there already."""
    with app.run():
        list(identity.map(range(100)))
        started = time.perf_counter()
        results = list(identity.map(range(count)))
        took_s = time.perf_counter() - started
    assert results == list(range(count)), "the map lost or reordered results"
    return {"inputs_per_s": count / took_s, "took_s": took_s}


def map_million(count: int) -> dict[str, float]:
    """As `map_trivial`, with results taken as they come and kept by nobody; also the memory of who takes part."""
    tenth = max(1, count // 10)
    marks, peaks = [], [0.0, 0.0, 0.0]
    with app.run():
        list(identity.map(range(100)))
        started = time.perf_counter()
        for number, value in enumerate(identity.map(iter(range(count)))):
            assert value == number, "the map lost or reordered results"
            if value % tenth == tenth - 1:
                marks.append(time.perf_counter())
                peaks = [max(pair) for pair in zip(peaks, resident_mb(), strict=True)]
        took_s = time.perf_counter() - started
    slowest_s = max(end - begin for begin, end in pairwise([started, *marks]))
    client_mb, server_mb, guest_mb = peaks
    return {
        "inputs_per_s": count / took_s,
        "took_s": took_s,
        "slowest_per_s": tenth / slowest_s,
        "client_mb": client_mb,
        "server_mb": server_mb,
        "guest_mb": guest_mb,
    }


def resident_mb() -> tuple[float, float, float]:
    """Memory of this process, of the server that it uses, and of the largest guest there is (with its `init`)."""
    server_mb = guest_mb = 0.0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            argv = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "squall.main.dev" in argv and os.environ["SQUALL_DATA_DIR"] in argv:
                server_mb = max(server_mb, resident_of(path))
            elif argv[-2:] == ["/run/squall/lib/squall/guest/__main__.py", ""]:
                guest_mb = max(guest_mb, resident_of(path))
        except OSError:
            continue  # it has ended
    return resident_of(Path("/proc/self")), server_mb, guest_mb


def resident_of(path: Path) -> float:
    """In MB of a million bytes."""
    return int((path / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def argument(count: int) -> dict[str, float]:
    """A large argument to a container that is there, and a large result from it; never the same bytes twice."""
    out_s, back_s = [], []
    with app.run():
        size.remote(large(-1))
        block.remote(-2)
        for number in range(count):
            out_s.append(timed_ms(partial(size.remote, large(number))) / 1e3)
            back_s.append(timed_ms(partial(block.remote, count + number)) / 1e3)
    megabytes = LARGE_BYTES / 1e6
    return {
        "out_mb_per_s": megabytes / sorted(out_s)[count // 2],
        "back_mb_per_s": megabytes / sorted(back_s)[count // 2],
    }


def large(number: int) -> bytes:
    """`LARGE_BYTES` that are quick to make."""
    seed = str((time.time_ns(), number)).encode().ljust(1_000, b".")
    return seed * (LARGE_BYTES // len(seed))


def cold_start(count: int) -> dict[str, float]:
    """The first call of a function that has no container yet; each time in a new run of the app."""
    times_ms = []
    for _ in range(count + 1):
        with app.run():
            times_ms.append(timed_ms(lambda: identity.remote(1)))
    # The first one may build the image.
    first_ms, times_ms = times_ms[0], sorted(times_ms[1:])
    return {
        "p50_ms": times_ms[len(times_ms) // 2],
        "p95_ms": times_ms[len(times_ms) * 95 // 100],
        "first_ms": first_ms,
    }


def many_containers(count: int) -> dict[str, float]:
    """So many containers of one function from zero, until the last one has begun to answer."""
    with app.run():
        identity.remote(1)
        started_s = time.monotonic()
        answers = list(where.map(range(count)))
    containers = len({container for container, _ in answers})
    return {"last_s": max(entered_s for _, entered_s in answers) - started_s, "containers": containers}


def import_inside(count: int) -> dict[str, float]:
    """`import squall` in a container."""
    with app.run():
        times_ms = sorted(import_times.remote(count))
    return {"p50_ms": times_ms[len(times_ms) // 2], "max_ms": times_ms[-1]}


def import_outside(count: int) -> dict[str, float]:
    """`import squall` here."""
    times_ms = sorted(import_ms() for _ in range(count))
    return {"p50_ms": times_ms[len(times_ms) // 2], "max_ms": times_ms[-1]}


def timed_ms(action: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1e3


MEASUREMENTS: dict[str, Callable[[int], dict[str, float]]] = {
    measurement.__name__: measurement
    for measurement in (
        warm_call,
        map_trivial,
        map_million,
        argument,
        cold_start,
        many_containers,
        import_inside,
        import_outside,
    )
}

if __name__ == "__main__":
    print(json.dumps(MEASUREMENTS[sys.argv[1]](int(sys.argv[2]))))
