"""What crashes at its first call in a fork, of which some wait for theirs."""

from __future__ import annotations

import os
import signal
import time

import squall

app = squall.App("crashing-idle-forks")

LOADED_IN = os.readlink("/proc/self/ns/pid")


@app.function(enable_memory_snapshot=True, min_containers=4)
def square(x: int) -> int:
    if os.readlink("/proc/self/ns/pid") != LOADED_IN:
        os.kill(os.getpid(), signal.SIGSEGV)
    return x * x


@app.local_entrypoint()
def main() -> None:
    while square.get_current_stats().num_total_runners < 4:
        time.sleep(0.1)
    time.sleep(1.0)
    print("results:", [square.remote(x) for x in range(4)])
