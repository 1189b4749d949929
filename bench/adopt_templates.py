"""An agent that was killed: until its successor can fork the templates that there were."""

from __future__ import annotations

import json
import os
import re
import signal

from bench.cold_starts import deploy, last_line, starting
from bench.figure import Absent, Context, Figure, p50, percentile

_TOOK_OVER = re.compile(r"took over containers: \d+, templates: (\d+), in ([0-9.]+) ms")


def run(context: Context) -> Figure:
    """What the agent's log says of it, of a template with numpy that is there before and after."""
    own = starting(context, "fork")
    times_ms = []
    try:
        deploy(own, "numpy")
        own.program("clones.py", "once", 1)
        before = _ready(own)
        for _ in range(own.times(30)):
            log = own.data_dir / "server.log"
            said = log.stat().st_size
            os.kill(json.loads((own.data_dir / "server.json").read_text())["pid"], signal.SIGKILL)
            started = own.squall("server", "start")
            if started.returncode != 0:
                raise Absent(f"squall server start: {last_line(started)}")
            found = _TOOK_OVER.findall(log.read_text()[said:])
            if len(found) != 1 or int(found[0][0]) != len(before):
                raise Absent("the log does not say that templates were taken over")
            times_ms.append(float(found[0][1]))
            if _ready(own) != before:
                raise Absent("the templates are not those of before")
    finally:
        own.squall("server", "stop", "--force")
    also = {"p99_ms": percentile(times_ms, 99), "max_ms": max(times_ms)}
    return Figure(p50(times_ms), "ms", "p50 until the templates of a killed agent can be forked again", also)


def _ready(own: Context) -> list[str]:
    """Ids of the templates that can be forked."""
    listed = own.squall("template", "list", "--json")
    if listed.returncode != 0:
        raise Absent(f"squall template list: {last_line(listed)}")
    return sorted(one["template_id"] for one in json.loads(listed.stdout) if one["state"] == "ready")
