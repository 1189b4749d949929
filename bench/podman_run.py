"""Start of a container with podman, to its end: what a cold start is compared with."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from bench.figure import Absent, Context, Figure
from bench.oci_run import figure, timed_ms, write_bundle
from squall.runtime.removal import remove_tree


def run(context: Context) -> Figure:
    """Wall time of one run, of a folder as root file system: no image is unpacked. It has no network, which would take
    longer, and state of its own, of which nothing is left."""
    if shutil.which("podman") is None:
        raise Absent("podman is not installed: make bench-peers installs it where Debian has it")
    folder = Path(tempfile.mkdtemp(prefix="sq-oci-", dir="/tmp"))
    state = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    # What has systemd's cgroups or its journal is another machine.
    state += ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]
    if shutil.which("runc") is not None:
        # crun, its default, refuses machines with cgroups of both versions.
        state += ["--runtime", "runc"]
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    try:
        write_bundle(folder)
        what = ["--rm", "--network", "none", "--read-only", "--volume", "/usr:/usr:ro", *limits]
        what += ["--rootfs", str(folder / "rootfs"), "/usr/bin/python3", "-S", "-c", "pass"]
        times_ms = [timed_ms("podman", *state, "run", *what) for _ in range(context.times(30) + 1)]
    finally:
        remove_tree(str(folder))
    return figure(times_ms, "p50, podman run of python3 -S")
