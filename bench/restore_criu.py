"""A template of 300 MB after a restart of the machine: until it can be forked again, brought back by CRIU."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

from bench.cold_starts import deploy, starting
from bench.figure import Absent, Context, Figure, p50, percentile
from squall.runtime.criu.tool import find_tool

SAVED_S = 120.0
GONE_S = 20.0


def run(context: Context) -> Figure:
    """What the first start waits for its template, as the recorder has it; the kernel has nothing of the files.

    Server, agent and spawner are killed, and with them all containers: the machine itself is not restarted.
    """
    if find_tool() is None:
        raise Absent("no CRIU here: make criu")
    own = starting(context, "auto")
    times_ms = []
    try:
        deploy(own, "large")
        own.program("clones.py", "large", 1)
        _wait_saved(own)
        for _ in range(own.times(100)):
            _kill(own.data_dir)
            _forget_files(own.data_dir / "saved")
            own.program("clones.py", "large", 1)
            times_ms.append(_waited_ms(own))
    finally:
        own.squall("server", "stop", "--force")
    also = {"p99_ms": percentile(times_ms, 99), "max_ms": max(times_ms)}
    note = f"p50 of {len(times_ms)}, until a template of 300 MB is back from a cold disk"
    return Figure(p50(times_ms), "ms", note, also, tuple(times_ms))


def _wait_saved(own: Context) -> None:
    until = time.monotonic() + SAVED_S
    while time.monotonic() < until:
        listed = own.squall("template", "list", "--json")
        found = [one for one in json.loads(listed.stdout) if one["function"] == "Large"]
        if any(one["disk_mib"] for one in found):
            return
        if causes := [one["disk_cause"] for one in found if one["disk_cause"]]:
            raise Absent(f"its template is not saved: {causes[0]}")
        time.sleep(0.5)
    raise Absent(f"its template was not saved within {SAVED_S:g} s")


def _kill(data_dir: Path) -> None:
    """End server, agent and spawner as a power loss does."""
    pids = [json.loads((data_dir / "server.json").read_text())["pid"], *_spawners(data_dir)]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # what launches a spawner looks like one, and ends at once
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + GONE_S
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        if time.monotonic() > until:
            raise Absent("what was killed does not end")
        time.sleep(0.01)


def _spawners(data_dir: Path) -> list[int]:
    wanted = str(data_dir / "spawner")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if wanted in argv and any("spawner" in one and one != wanted for one in argv):
            found.append(int(pid))
    return found


def _forget_files(top: Path) -> None:
    os.sync()
    for path in top.rglob("*"):
        if path.is_file() and not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _waited_ms(own: Context) -> float:
    listed = own.squall("container", "list", "--all", "--json")
    latest = max(one["container_id"] for one in json.loads(listed.stdout))
    shown = json.loads(own.squall("container", "show", latest, "--json").stdout)
    found: float | None = shown["container"]["phase_ms"].get("start.from_disk")
    if found is None:
        raise Absent(f"the template was not brought back: {shown['container']['path_cause'] or 'no cause is told'}")
    return found
