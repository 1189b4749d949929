"""A program that measures how Squall scales and shares: `scaling.py MEASUREMENT COUNT` prints one JSON object."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

import squall

WINDOW_S = 5
MAP_INPUTS = 1_000_000

app = squall.App("bench-scaling")


@app.function()
def identity(value: int) -> int:
    """The value itself."""
    return value


@app.function(scaledown_window=WINDOW_S)
def hold(value: int) -> int:
    """Long enough that each input gets a container of its own."""
    time.sleep(15)
    return value


def scale_to_zero(count: int) -> dict[str, float]:
    """Containers that have nothing to do any more, until none is left."""
    with app.run():
        list(hold.map(range(count)))
        ended_s = time.monotonic()
        most = left = hold.get_current_stats().num_total_runners
        while left:
            time.sleep(0.02)
            left = hold.get_current_stats().num_total_runners
        after_s = time.monotonic() - ended_s - WINDOW_S
    return {"after_s": after_s, "containers": most}


def fair_remote(count: int) -> dict[str, float]:
    """Calls one after the other, without and with a map of another user beside them: one with a session of his own,
    for the kernel shares the processors out between sessions first."""
    with app.run():
        unloaded = calls_ms(count)
        with subprocess.Popen(
            [sys.executable, __file__, "endless_map", str(MAP_INPUTS)],
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()  # it has its first results
            loaded = calls_ms(count)
            is_going = other.poll() is None
            other.terminate()
    assert is_going, "the map ended before the calls did"
    numbers = {
        "unloaded_p99_ms": p99(unloaded),
        "loaded_p99_ms": p99(loaded),
        "loaded_p50_ms": sorted(loaded)[count // 2],
    }
    return {"ratio": numbers["loaded_p99_ms"] / numbers["unloaded_p99_ms"], **numbers}


def endless_map(count: int) -> dict[str, float]:
    """A map that says when it is under way."""
    with app.run():
        for number, _ in enumerate(identity.map(range(count))):
            if number == 20_000:
                sys.stdout.write("going\n")
                sys.stdout.flush()
    return {}


def calls_ms(count: int) -> list[float]:
    """How long single calls take, the first tenth left out."""
    times = []
    for _ in range(count + count // 10):
        started = time.perf_counter()
        identity.remote(1)
        times.append((time.perf_counter() - started) * 1e3)
    return times[count // 10 :]


def p99(times: list[float]) -> float:
    """The time that a hundredth of them exceeds."""
    return sorted(times)[len(times) * 99 // 100]


MEASUREMENTS: dict[str, Callable[[int], dict[str, float]]] = {
    "scale_to_zero": scale_to_zero,
    "fair_remote": fair_remote,
    "endless_map": endless_map,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(MEASUREMENTS[sys.argv[1]](int(sys.argv[2]))) + "\n")
