"""What the parameters of a function change in its containers."""

from __future__ import annotations

import glob
import os
import resource
import socket
import subprocess
import sys
import time
from typing import Any

import squall

image = squall.Image.debian_slim().env({"FROM_IMAGE": "image", "BOTH": "image"}).workdir("/srv/here")
app = squall.App("options", image=image)


@app.function(env={"FROM_FUNCTION": "function", "BOTH": "function", "GONE": None})
def variables() -> dict[str, str]:
    names = ("FROM_IMAGE", "FROM_FUNCTION", "BOTH", "GONE", "SQUALL_IS_REMOTE", "SQUALL_CONTAINER_ID")
    return {name: os.environ[name] for name in names if name in os.environ}


@app.function()
def directory() -> str:
    return os.getcwd()


@app.function(cpu=(0.5, 1.5), memory=(64, 256))
def limits() -> tuple[str | None, str]:
    return os.environ.get("OMP_NUM_THREADS"), os.environ["SQUALL_CONTAINER_ID"]


@app.function(memory=(64, 128))
def take_memory(mib: int) -> int:
    return len(bytearray(mib * 2**20))


@app.function(memory=(2, 3))
def far_too_little_memory() -> None: ...


def burn(wall_s: float) -> float:
    """How much time of a processor it gets in so much time."""
    began, before = time.monotonic(), time.process_time()
    while time.monotonic() - began < wall_s:
        sum(range(10_000))
    return time.process_time() - before


@app.function(cpu=(0.1, 0.2))
def throttled(wall_s: float) -> float:
    return burn(wall_s)


@app.function()
def free_running(wall_s: float) -> float:
    return burn(wall_s)


@app.function(ephemeral_disk=64)
def write(mib: int) -> int:
    """Write so much, in pieces, and stay a while."""
    with open("/root/written", "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(2**20))
            file.flush()
            time.sleep(0.02)
    time.sleep(2)
    size = os.path.getsize("/root/written")
    os.remove("/root/written")
    return size


@app.function(block_network=True)
def cut_off() -> dict[str, Any]:
    devices = sorted(os.path.basename(path) for path in glob.glob("/sys/class/net/*"))
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=2).close()
    except OSError as error:
        return {"devices": devices, "error": type(error).__name__}
    return {"devices": devices, "error": ""}


@app.function()
def connected() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 80))
        return bool(probe.getsockname()[0] != "127.0.0.1")


@app.function(scaledown_window=2, max_containers=1)
def short_lived() -> str:
    return os.environ["SQUALL_CONTAINER_ID"]


@app.function(single_use_containers=True)
def single_use(_: int) -> str:
    return os.environ["SQUALL_CONTAINER_ID"]


@app.function()
def import_ms(program: str) -> float:
    """How much more of a processor a program takes that imports something than an empty one, at best."""

    def used_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def least(source: str) -> float:
        times = []
        for _ in range(5):
            before = used_s()
            subprocess.run([sys.executable, "-B", "-c", source], check=True)
            times.append(used_s() - before)
        return min(times) * 1000

    return least(program) - least("pass")
