"""Ray on this machine: an actor is made, answers and ends, again and again. Run by the Python of .venv-peers."""

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


def main() -> None:
    """Start Ray on two cores without its dashboard, measure, stop it."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    times_ms = []
    try:
        echo = ray.remote(Echo).options(num_cpus=0)
        for value in range(int(sys.argv[1])):
            started = time.perf_counter()
            actor = echo.remote()
            ray.get(actor.answer.remote(value))
            times_ms.append((time.perf_counter() - started) * 1e3)
            ray.kill(actor)
            # As between our starts: what is made ahead is made again meanwhile.
            time.sleep(0.2)
    finally:
        ray.shutdown()
    print(json.dumps({"times_ms": times_ms}))


if __name__ == "__main__":
    main()
