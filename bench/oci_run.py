"""How long other runtimes take to start a Python: not a benchmark itself, runc_run and its like are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from bench.figure import Absent, Context, Figure, p50, percentile
from squall.runtime.removal import remove_tree

BIND_READ_ONLY = ["rbind", "ro", "nosuid", "nodev"]


def bundle_config() -> dict[str, object]:
    """A container with this machine's /usr, read-only, that runs a Python which does nothing."""
    mounts: list[dict[str, object]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {"destination": "/usr", "type": "bind", "source": "/usr", "options": BIND_READ_ONLY},
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/usr/bin/python3", "-S", "-c", "pass"],
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "bench",
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
    }


def write_bundle(folder: Path) -> None:
    """A bundle whose root file system is made of mount points and links only."""
    rootfs = folder / "rootfs"
    for name in ("proc", "dev", "usr", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (rootfs / name).symlink_to(f"usr/{name}")
    (folder / "config.json").write_text(json.dumps(bundle_config()))


def measure(context: Context, runtime: str, count: int, *options: str, rest_s: float = 0.0) -> Figure:
    """Wall time of `RUNTIME run`, from nothing to the container's end; `options` come before `run`.

    Args:
        rest_s: how long nothing happens before each; 0 for one after the other.

    Raises:
        Absent: not installed, or it cannot run a container on this machine.
    """
    if shutil.which(runtime) is None:
        raise Absent(f"{runtime} is not installed: make bench-peers installs it where Debian has it")
    folder = Path(tempfile.mkdtemp(prefix="sq-oci-", dir="/tmp"))
    try:
        write_bundle(folder)
        times_ms = []
        for number in range(context.times(count) + 1):
            name = f"b{os.getpid()}-{number}"
            place = ["--root", str(folder / "state"), *options]
            time.sleep(rest_s)
            times_ms.append(timed_ms(runtime, *place, "run", "--bundle", str(folder), name))
    finally:
        remove_tree(str(folder))
    when = f", each after {rest_s:g} s of rest" if rest_s else ""
    return figure(times_ms, f"p50, {runtime} run of python3 -S{when}")


def timed_ms(*command: str) -> float:
    """How long a command takes to its end.

    Raises:
        Absent: it fails.
    """
    started = time.perf_counter()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    took_ms = (time.perf_counter() - started) * 1e3
    if ran.returncode != 0:
        raise Absent(f"{command[0]} cannot run here: {(ran.stderr.strip() or ran.stdout.strip())[-140:]}")
    return took_ms


def figure(times_ms: list[float], note: str) -> Figure:
    """Of all but the first, which reads programs from disk."""
    counted = times_ms[1:]
    also = {"p95_ms": percentile(counted, 95), "p99_ms": percentile(counted, 99)}
    return Figure(p50(counted), "ms", note, also, tuple(counted))
