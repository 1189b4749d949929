"""Functions and a class whose containers have a kernel of their own."""

from __future__ import annotations

import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import squall

app = squall.App("apart")


@app.function(isolation="gvisor")
def kernel() -> str:
    print("asked for the kernel")
    print("and on the other", file=sys.stderr)
    return Path("/proc/version").read_text()


@app.function()
def kernel_of_others() -> str:
    return Path("/proc/version").read_text()


@app.function(isolation="gvisor")
def count(to: int) -> Iterator[int]:
    yield from range(to)


@app.function(isolation="gvisor")
def fail() -> None:
    raise LookupError("not there")


@app.function(isolation="gvisor", timeout=1)
def sleep() -> None:
    time.sleep(60)


@app.function(isolation="gvisor", max_containers=1)
def square(number: int) -> int:
    return number * number


@app.function(isolation="gvisor", memory=(64, 160))
def take_memory(mib: int) -> int:
    return len(bytearray(mib * 2**20))


@app.function(isolation="gvisor")
def resolve(host: str, port: int) -> str:
    with socket.create_connection((host, port), 10) as connection:
        return str(connection.getpeername()[0])


@app.function(isolation="gvisor", block_network=True)
def cut_off() -> list[str]:
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines]


@app.function(isolation="gvisor")
def disk(mib: int) -> int:
    with open("/root/large", "wb") as file:
        for _ in range(mib):
            file.write(bytes(2**20))
    return Path("/root/large").stat().st_size


@app.function(isolation="gvisor")
def children() -> str:
    return subprocess.run(["sh", "-c", "sleep 0.01 & wait; echo $?"], capture_output=True, text=True, check=True).stdout


@app.cls(isolation="gvisor", max_containers=1, scaledown_window=2)
class Counter:
    @squall.enter()
    def begin(self) -> None:
        self.count = 10

    @squall.method()
    def add(self, number: int) -> int:
        self.count += number
        return self.count

    @squall.exit()
    def end(self) -> None:
        print("ended at", self.count, flush=True)


LOADED = os.urandom(8).hex()


def drawn() -> dict[str, object]:
    """From generators that are in the memory of this process."""
    return {
        "random": random.random(),
        "ssl": ssl.RAND_bytes(8).hex(),
        "uuid1": (uuid.uuid1().clock_seq, uuid.getnode()),
        "tempfile": os.path.basename(tempfile.mktemp()),
    }


drawn()  # each of them has its seed before the snapshot


@app.function(isolation="gvisor", enable_memory_snapshot=True, single_use_containers=True)
def restored() -> dict[str, object]:
    return {
        "loaded": LOADED,
        "container": os.environ["SQUALL_CONTAINER_ID"],
        "drawn": drawn(),
        "pid": os.getpid(),
        "kernel": Path("/proc/version").read_text(),
    }


@app.cls(isolation="gvisor", enable_memory_snapshot=True, single_use_containers=True)
class Loaded:
    @squall.enter(snap=True)
    def load(self) -> None:
        self.steps = ["load"]
        self.loaded = os.urandom(8).hex()

    @squall.enter()
    def begin(self) -> None:
        self.steps.append("begin")

    @squall.method()
    def told(self) -> tuple[list[str], str]:
        return self.steps, self.loaded
