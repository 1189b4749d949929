"""Cold starts by one path, as `squall bench start` measures them: not a benchmark itself, the modules start_... are.

They share a data directory, and so its images. Its server is started anew for each, with the path it is to take: every
start says which one it took, and where one is another there is no figure.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import Any

from bench.figure import PROGRAMS, Absent, Context, Figure, p50, percentile

COUNT = 100
DEPLOY_S = 900.0
MEASURE_S = 900.0


def measure(context: Context, what: str, path: str, count: int = COUNT, function: str = "answer") -> Figure:
    """From a call to its result, with no container there; of a function of app `what`, in programs/start_WHAT.py.

    Raises:
        Absent: it cannot be deployed or called, or a start takes another path.
    """
    # Containers under gVisor are restored wherever they can be: there is nothing to force.
    own = starting(context, "auto" if path == "restore" else path)
    try:
        deploy(own, what)
        found = told(own, f"bench-{what}.{function}", path, own.times(count))
    finally:
        own.squall("server", "stop", "--force")
    times_ms = [one["total_ms"] for one in found["starts"]]
    also = {
        "min_ms": min(times_ms), "p99_ms": percentile(times_ms, 99), "max_ms": max(times_ms),
        "first_ms": found["first"]["total_ms"], "starts": len(times_ms),
    }  # fmt: skip
    note = f"p50 from call to result, {path}; p99 {also['p99_ms']:.1f} ms of {len(times_ms)} starts"
    return Figure(p50(times_ms), "ms", note, also, tuple(times_ms))


def starting(context: Context, path: str) -> Context:
    """Where containers start by this path; the server that was there has ended."""
    more = {**context.more_env, "SQUALL_START_PATH": path}
    own = replace(context, data_dir=context.data_dir / "starts", more_env=more)
    own.data_dir.mkdir(parents=True, exist_ok=True)
    own.squall("server", "stop", "--force")
    return own


def deploy(own: Context, what: str) -> None:
    """Deploy the app; its image is built the first time.

    Raises:
        Absent: that fails.
    """
    ended = own.squall("deploy", str(PROGRAMS / f"start_{what}.py"), timeout_s=DEPLOY_S)
    if ended.returncode != 0:
        raise Absent(f"squall deploy start_{what}.py: {last_line(ended)}")


def told(own: Context, function: str, path: str, count: int) -> dict[str, Any]:
    """What `squall bench start --json` says.

    Raises:
        Absent: a start failed, or took another path.
    """
    options = ["-n", str(count), "--path", path, "--json"]
    ended = own.squall("bench", "start", function, *options, timeout_s=MEASURE_S)
    if ended.returncode != 0:
        raise Absent(f"squall bench start: {last_line(ended)}")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def last_line(ended: subprocess.CompletedProcess[str]) -> str:
    """Why a command failed."""
    return " ".join(ended.stderr.strip().splitlines()[-2:])[-200:] or f"ended with status {ended.returncode}"
