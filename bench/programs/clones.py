"""A program that measures many clones of one template: `clones.py MEASUREMENT COUNT` prints one JSON object.

The apps are those of start_numpy.py, start_torch.py, start_large.py and start_many.py, deployed before; their images
are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import squall
from bench.figure import COMMAND
from squall.cli.server_calls import ask_pages
from squall.protocol.template import TemplateList, TemplateListing

EMPTY_S = 60.0
SETTLE_S = 2.0
HOLD_S = 60.0


def many(count: int) -> dict[str, float]:
    """One call of each of so many variants: their templates are there then."""
    calls = [answer_of(number).spawn() for number in range(count)]
    return {"sum": sum(call.get() for call in calls)}


def killed(count: int) -> dict[str, float]:
    """Kill the server and its agent, start them again, and call one of the variants: until its result is there."""
    pid = json.loads((Path(os.environ["SQUALL_DATA_DIR"]) / "server.json").read_text())["pid"]
    answer = answer_of(count - 1)
    answer.remote()
    began_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    subprocess.run([sys.executable, "-c", COMMAND, "server", "start"], check=True, stdout=subprocess.DEVNULL)
    started_s = time.monotonic()
    answer.remote()
    return {"killed_ms": (time.monotonic() - began_s) * 1000, "started_ms": (started_s - began_s) * 1000}


def answer_of(number: int) -> squall.Function[..., float]:
    """Of a variant, which has a template of its own."""
    found: squall.Function[..., float] = squall.Cls.from_name("bench-many", "Sum")(count=number).answer
    return found


def large(count: int) -> dict[str, float]:
    """One call, of a template of 300 MB."""
    return {"size": squall.Cls.from_name("bench-large", "Large")().size.remote()}


def burst(count: int) -> dict[str, float]:
    """So many containers of one function from zero, until the last one has begun to answer; its template is there.

    Twice: the first one finds nothing made ahead, and its node learns from it what such a function wants.
    """
    where = squall.Function.from_name("bench-numpy", "where")
    where.remote(0)
    first = _burst(where, count)
    again = _burst(where, count)
    return {**again, "first_last_s": first["last_s"], "containers": min(again["containers"], first["containers"])}


def _burst(where: Any, count: int) -> dict[str, float]:
    wait_until(lambda: where.get_current_stats().num_total_runners == 0)
    wait_until(_is_settled())
    started_s = time.monotonic()
    answers = list(where.map(range(count)))
    entered = sorted(entered_s - started_s for _, entered_s in answers)
    containers = len({container for container, _ in answers})
    return {"last_s": entered[-1], "half_s": entered[len(entered) // 2], "containers": containers}


def _is_settled() -> Callable[[], bool]:
    """Whether what nodes make ahead has not changed for a while."""
    before: list[tuple[str, int, int]] = []
    since_s = time.monotonic()

    def look() -> bool:
        nonlocal before, since_s
        pages = ask_pages("TemplateList", TemplateList(), TemplateListing)
        there = sorted(
            (one.template.template_id, one.template.cell_count, one.template.parked_count)
            for page in pages
            for one in page.templates
        )
        if there != before:
            before, since_s = there, time.monotonic()
        return time.monotonic() > since_s + SETTLE_S

    return look


def memory(count: int) -> dict[str, float]:
    """What so many further clones add to the memory of a template and its first clone, shared pages divided."""
    model = squall.Cls.from_name("bench-torch", "Model")()
    predict = model.predict
    predict.remote()
    calls = [predict.spawn(HOLD_S)]
    stats = predict.get_current_stats
    wait_until(lambda: stats().num_total_runners == 1 and stats().backlog == 0)
    time.sleep(SETTLE_S)
    one_mb = proportional_mb()
    calls += [predict.spawn(HOLD_S) for _ in range(count)]
    wait_until(lambda: stats().num_total_runners == count + 1 and stats().backlog == 0)
    time.sleep(SETTLE_S)
    all_mb = proportional_mb()
    for call in calls:
        call.cancel()
    return {"clone_mb": (all_mb - one_mb) / count, "first_mb": one_mb, "clones": count}


def proportional_mb() -> float:
    """Of all processes in containers and templates of this data directory: each page divided by those who have it."""
    instance = "i" + hashlib.sha256(os.environ["SQUALL_DATA_DIR"].encode()).hexdigest()[:10]
    total_kb = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"/{instance}" in (path / "cgroup").read_text():
                rollup = (path / "smaps_rollup").read_text()
                total_kb += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue  # it has ended
    return total_kb * 1024 / 1e6


def wait_until(is_so: Callable[[], bool]) -> None:
    """Return when it is so."""
    deadline = time.monotonic() + EMPTY_S
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"not so after {EMPTY_S:g} s")
        time.sleep(0.05)


MEASUREMENTS: dict[str, Callable[[int], dict[str, float]]] = {
    "burst": burst,
    "killed": killed,
    "large": large,
    "many": many,
    "memory": memory,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(MEASUREMENTS[sys.argv[1]](int(sys.argv[2]))) + "\n")
