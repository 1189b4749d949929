"""Several inputs at once in one container: tasks of one event loop, or threads.

squall run examples/calls/several_at_once.py
"""

import asyncio
import os
import time

import squall

app = squall.App("several-at-once")


@app.function(max_containers=1)
@squall.concurrent(max_inputs=20)
async def fetch(page: int) -> int:
    await asyncio.sleep(0.5)  # as long as somebody else's server may take
    return page


@app.function(max_containers=2)
@squall.concurrent(max_inputs=10, target_inputs=5)
def read(part: int) -> str:
    time.sleep(0.5)  # as long as a disk or a database may take
    return os.environ["SQUALL_CONTAINER_ID"]


@app.local_entrypoint()
def main():
    began = time.monotonic()
    pages = len(list(fetch.map(range(20))))
    containers = len(set(read.map(range(20))))
    took_s = time.monotonic() - began
    print(f"40 waits of half a second took {took_s:.1f} s")
    print(f"{pages} pages by one container, 20 parts by at most two: {containers <= 2 and took_s < 15}")
