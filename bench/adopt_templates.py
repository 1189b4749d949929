"""An agent that was killed: until its successor can fork the templates that there were."""

from __future__ import annotations

import json
import re

from bench.cold_starts import deploy, last_line, starting
from bench.figure import Absent, Context, Figure, p50, percentile

TEMPLATES = 20
_TOOK_OVER = re.compile(r"took over containers: \d+, templates: (\d+), in ([0-9.]+) ms")


def run(context: Context) -> Figure:
    """What the agent's log says of templates with numpy, which are there before and after; beside it what a user waits:
    from the kill of server and agent over `squall server start` to the result of a call that is forked."""
    own = starting(context, "fork")
    times_ms, killed_ms, started_ms = [], [], []
    try:
        deploy(own, "many")
        own.program("clones.py", "many", TEMPLATES)
        before = _ready(own)
        if len(before) != TEMPLATES:
            raise Absent(f"{len(before)} of {TEMPLATES} templates are ready")
        log = own.data_dir / "server.log"
        for _ in range(own.times(100)):
            said = log.stat().st_size
            numbers = own.program("clones.py", "killed", TEMPLATES)
            found = _TOOK_OVER.findall(log.read_text()[said:])
            if len(found) != 1 or int(found[0][0]) != TEMPLATES:
                raise Absent("the log does not say that templates were taken over")
            times_ms.append(float(found[0][1]))
            killed_ms.append(numbers["killed_ms"])
            started_ms.append(numbers["started_ms"])
            if _ready(own) != before:
                raise Absent("the templates are not those of before")
            if _last_path(own) != "fork":
                raise Absent("the call after the restart was no fork")
    finally:
        own.squall("server", "stop", "--force")
    also = {
        "p99_ms": percentile(times_ms, 99), "max_ms": max(times_ms), "templates": TEMPLATES,
        "killed_to_result_ms": p50(killed_ms), "killed_to_server_ms": p50(started_ms),
    }  # fmt: skip
    note = f"p50 of {len(times_ms)}, until {TEMPLATES} templates of a killed agent can be forked again"
    return Figure(p50(times_ms), "ms", note, also)


def _ready(own: Context) -> list[str]:
    """Ids of the templates that can be forked."""
    return sorted(one["template_id"] for one in _listed(own, "template") if one["state"] == "ready")


def _last_path(own: Context) -> str:
    """By which path the container came to be that was started last."""
    return _listed(own, "container", "--all")[0]["path"]


def _listed(own: Context, what: str, *options: str) -> list[dict[str, str]]:
    listed = own.squall(what, "list", "--json", *options)
    if listed.returncode != 0:
        raise Absent(f"squall {what} list: {last_line(listed)}")
    found: list[dict[str, str]] = json.loads(listed.stdout)
    return found
