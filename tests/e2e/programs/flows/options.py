"""What the parameters of a function change in its containers."""

from __future__ import annotations

import glob
import os
import socket
import sys
from typing import Any

import squall

image = squall.Image.debian_slim().env({"FROM_IMAGE": "image", "BOTH": "image"}).workdir("/srv/here")
app = squall.App("options", image=image)


@app.function(env={"FROM_FUNCTION": "function", "BOTH": "function", "GONE": None})
def variables() -> dict[str, str]:
    names = ("FROM_IMAGE", "FROM_FUNCTION", "BOTH", "GONE", "SQUALL_IS_REMOTE", "SQUALL_CONTAINER_ID")
    return {name: os.environ[name] for name in names if name in os.environ}


@app.function()
def directory() -> tuple[str, str]:
    return os.getcwd(), sys.path[0]


@app.function(cpu=(0.5, 1.5), memory=(64, 256))
def limits() -> dict[str, Any]:
    found: dict[str, Any] = {"threads": os.environ.get("OMP_NUM_THREADS")}
    for path in (
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/cpu.max",
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
        "/sys/fs/cgroup/pids.max",
        "/sys/fs/cgroup/pids/pids.max",
    ):
        if os.path.exists(path):
            with open(path) as file:
                found[path.rpartition("/")[2]] = file.read().strip()
    return found


@app.function(memory=(64, 128))
def take_memory(mib: int) -> int:
    return len(bytearray(mib * 2**20))


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
def single_use() -> str:
    return os.environ["SQUALL_CONTAINER_ID"]
