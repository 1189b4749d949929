"""A map in batches that takes its time."""

import os
import time

import squall

app = squall.App("batching")


@app.function(max_containers=1)
@squall.batched(max_batch_size=4, wait_ms=200)
def slow_squares(xs: list[int]) -> list[tuple[int, str]]:
    time.sleep(1.5)
    return [(x * x, os.environ["SQUALL_CONTAINER_ID"]) for x in xs]


@app.local_entrypoint()
def main() -> None:
    for x, (squared, container_id) in enumerate(slow_squares.map(range(24))):
        print(f"result: {x} {squared} {container_id}", flush=True)
