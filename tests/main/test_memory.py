"""Memory that a busy moment has left goes back to the machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, json, threading, time
from squall.main.memory import memory_given_back, resident_bytes

def work(kept, barrier):
    # Freed between blocks that stay: the C library has it, and the machine not.
    blocks = [bytearray(100_000) for _ in range(400)]
    barrier.wait()
    # Long enough for a look at the heap while all of it is in use: what comes free later is given back as well.
    time.sleep(1)
    kept.append(blocks[::100])

async def main(is_given_back):
    kept, barrier, before = [], threading.Barrier(4), resident_bytes()
    async def busy():
        threads = [threading.Thread(target=work, args=(kept, barrier)) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: await asyncio.to_thread(thread.join)
        after = resident_bytes()
        await asyncio.sleep(1)
        print(json.dumps([after - before, resident_bytes() - before]))
    if not is_given_back:
        return await busy()
    async with memory_given_back(period_s=0.1):
        await busy()

asyncio.run(main(IS_GIVEN_BACK))
"""


def grown_mib(is_given_back: bool) -> tuple[float, float]:
    program = PROGRAM.replace("IS_GIVEN_BACK", str(is_given_back))
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    after, later = json.loads(ran.stdout)
    return after / 2**20, later / 2**20


@pytest.mark.long
def test_what_is_free_goes_back_to_the_machine() -> None:
    without, with_it = grown_mib(False), grown_mib(True)

    assert without[1] > 50, (without, with_it)
    assert with_it[1] < 20, (without, with_it)
