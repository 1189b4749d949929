"""A program that measures many clones of one template: `clones.py MEASUREMENT COUNT` prints one JSON object.

The apps are those of start_numpy.py, start_torch.py and start_large.py, deployed before; their images are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import squall
from squall.cli.server_calls import ask_pages
from squall.protocol.template import TemplateList, TemplateListing

EMPTY_S = 60.0
SETTLE_S = 2.0
HOLD_S = 60.0


def once(count: int) -> dict[str, float]:
    """One call: its template is there then."""
    return {"answer": squall.Function.from_name("bench-numpy", "answer").remote()}


def large(count: int) -> dict[str, float]:
    """The same of a template of 300 MB."""
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
    "once": once,
    "large": large,
    "burst": burst,
    "memory": memory,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(MEASUREMENTS[sys.argv[1]](int(sys.argv[2]))) + "\n")
