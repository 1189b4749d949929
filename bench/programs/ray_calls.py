"""Ray on this machine: an actor call at a time, then trivial calls at once. Run by the Python of .venv-peers."""

from __future__ import annotations

import json
import sys
import time

import ray


class Echo:
    """One process that answers."""

    def answer(self, value: int) -> int:
        """The value itself."""
        return value


def identity(value: int) -> int:
    """The value itself."""
    return value


def main() -> None:
    """Start Ray on two cores without its dashboard, measure, stop it."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        echo = ray.remote(Echo).options(num_cpus=0).remote()
        remote_identity = ray.remote(identity)
        times_ms = []
        for value in range(int(sys.argv[1])):
            started = time.perf_counter()
            ray.get(echo.answer.remote(value))
            times_ms.append((time.perf_counter() - started) * 1e3)
        count = int(sys.argv[2])
        ray.get([remote_identity.remote(value) for value in range(100)])
        started = time.perf_counter()
        ray.get([remote_identity.remote(value) for value in range(count)])
        rate = count / (time.perf_counter() - started)
    finally:
        ray.shutdown()
    times_ms = sorted(times_ms[len(times_ms) // 10 :])
    numbers = {"actor_p50_ms": times_ms[len(times_ms) // 2], "actor_p99_ms": times_ms[len(times_ms) * 99 // 100]}
    print(json.dumps({**numbers, "calls_per_s": rate}))


if __name__ == "__main__":
    main()
