"""Functions with a snapshot: many short containers, and one that takes its time."""

from __future__ import annotations

import os
import time

import squall

app = squall.App("bursting")


@app.function(enable_memory_snapshot=True, single_use_containers=True, max_containers=6)
def square(x: int) -> tuple[int, int, str]:
    time.sleep(0.1)
    return x, x * x, os.environ["SQUALL_CONTAINER_ID"]


@app.function(enable_memory_snapshot=True)
def sleep(duration_s: float) -> str:
    time.sleep(duration_s)
    return os.environ["SQUALL_CONTAINER_ID"]
