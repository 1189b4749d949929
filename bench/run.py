"""`make bench`: measure, print a table with ratios and limits, and one JSON line for each figure.

A ratio compares with a reference measured less than a minute before, on the same machine: machines are noisy, and
absolute times from another day say little. What is not installed has a row that says so.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import chart
from bench.figure import ROOT, Absent, Context, Figure
from squall.runtime.removal import remove_tree

REFERENCE_AGE_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One row: a module of bench/, and what its figure must reach."""

    name: str
    limit: float | None = None
    """At most this, or at least this for a rate; None for what is only compared with, or only watched."""
    ratios: Mapping[str, float | None] = field(default_factory=dict)
    """Names of references, with the ratio to each that must be reached: at most, or at least for a rate."""
    also: Mapping[str, float] = field(default_factory=dict)
    """Other numbers of the same run, with what each must be at most."""


PEERS: dict[str, float | None] = dict.fromkeys(
    ("runc_run", "runc_rested", "podman_run", "runsc_run", "ray_actor_start")
)
"""What a cold start is compared with."""

BENCHMARKS = [
    Benchmark("raw_echo"),
    Benchmark("raw_echo_blocking"),
    Benchmark("ray_actor_call"),
    Benchmark("ray_calls"),
    Benchmark("runsc_run"),
    Benchmark("runc_run"),
    Benchmark("runc_rested"),
    Benchmark("rested_memory"),
    Benchmark("crun_run"),
    Benchmark("podman_run"),
    Benchmark("ray_actor_start"),
    Benchmark("tar_layer"),
    Benchmark("base_run"),
    Benchmark("import_outside", limit=60),
    Benchmark("import_inside", limit=25),
    Benchmark("warm_call", ratios={"raw_echo": 3.0, "raw_echo_blocking": None, "ray_actor_call": 1.0}),
    Benchmark("map_trivial", limit=20_000, ratios={"ray_calls": 10.0}),
    Benchmark("map_million", limit=20_000, also={"client_mb": 400, "server_mb": 400}),
    Benchmark("spawn_durable", limit=5_000),
    Benchmark("spawn_map_durable", limit=5_000),
    Benchmark("spawn_postgres", limit=2_500),
    Benchmark("spawn_map_postgres", limit=2_500),
    Benchmark("dict_get", ratios={"warm_call": 2.0}),
    Benchmark("dict_put", ratios={"warm_call": 2.0}),
    Benchmark("dict_rate", limit=2_000),
    Benchmark("queue_rate", limit=5_000),
    Benchmark("queue_wake", limit=5),
    Benchmark("uvicorn_rate"),
    Benchmark("web_rate", ratios={"uvicorn_rate": 0.6}),
    Benchmark("web_latency", limit=1.5),
    Benchmark("web_first_byte", limit=5),
    Benchmark("web_download", limit=400, also={"server_mb": 50}),
    Benchmark("web_from_zero", limit=40),
    Benchmark("web_sockets", limit=60),
    Benchmark("argument"),
    Benchmark("hello", limit=400),
    Benchmark("start", limit=600),
    Benchmark("cold_start", limit=150, ratios={"runsc_run": None, "runc_run": None, "crun_run": None}),
    Benchmark("hundred_containers", limit=5),
    Benchmark("two_hundred_containers", limit=8),
    Benchmark("scale_to_zero", limit=1),
    Benchmark("fair_remote", limit=5),
    Benchmark("decide", limit=1),
    Benchmark("start_trivial", limit=40, ratios=PEERS),
    Benchmark("start_numpy_plain"),
    Benchmark("start_numpy_fork", limit=15, ratios=PEERS, also={"p99_ms": 60}),
    Benchmark("start_numpy_parked", limit=5, ratios=PEERS),
    Benchmark("start_torch_plain"),
    Benchmark("start_torch_fork", limit=40, ratios=PEERS),
    Benchmark("start_torch_parked", limit=5, ratios=PEERS),
    Benchmark("burst_200", limit=100),
    Benchmark("clone_memory", limit=25),
    Benchmark("adopt_templates", limit=200),
    Benchmark("restore_criu", limit=1_000),
    Benchmark("start_gvisor_plain"),
    Benchmark("restore_gvisor", ratios={"start_gvisor_plain": 0.5}),
    Benchmark("image_root", limit=5),
    Benchmark("image_rebuild", limit=150, ratios={"base_run": None}),
    Benchmark("torch_install", limit=15),
    Benchmark("pack_layer", limit=150, ratios={"tar_layer": 0.667}),
    Benchmark("import_cold"),
    Benchmark("import_directory"),
    Benchmark("import_cached", ratios={"import_directory": 1.2}),
    Benchmark("lazy_traced", ratios={"import_cold": 1.3}),
    Benchmark("lazy_untraced", ratios={"import_cold": 2.5}),
    Benchmark("lazy_bytes", limit=25),
    Benchmark("copy_file"),
    Benchmark("sha256sum"),
    Benchmark("volume_put", limit=300, ratios={"copy_file": None, "sha256sum": None}, also={"client_mb": 200}),
    Benchmark("volume_get", ratios={"copy_file": None}, also={"client_mb": 200}),
    Benchmark("volume_commit_one", limit=300),
    Benchmark("plain_read"),
    Benchmark("volume_read", ratios={"plain_read": 0.9}),
    Benchmark("disk_read"),
    Benchmark("volume_first_read", ratios={"disk_read": 0.5}),
    Benchmark("volume_commit_mounted", limit=300, also={"own_ms": 300}),
    Benchmark("chaos", limit=0),
    Benchmark("idle_server_memory", limit=120),
    Benchmark("idle_server_cpu", limit=1),
]


class Broken(Absent):
    """A mistake in a benchmark: it is missed, whatever it must reach, and so is what is compared with it."""


class Session:
    """The figures of one run, each reference as fresh as its use needs it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._measured: dict[str, tuple[float, Figure | Absent]] = {}

    def measure(self, name: str, age_s_max: float = REFERENCE_AGE_S_MAX) -> Figure | Absent:
        """The figure of a benchmark, from earlier in this run if that is recent enough."""
        measured_s, outcome = self._measured.get(name, (float("-inf"), Absent("not measured")))
        is_recent = time.monotonic() - measured_s <= age_s_max
        # What was absent once stays absent: only figures age.
        if name in self._measured and (is_recent or isinstance(outcome, Absent)):
            return outcome
        module = importlib.import_module(f"bench.{name}")
        run: Callable[[Context], Figure] = module.run
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            outcome = run(self._context)
        except Absent as absent:
            outcome = absent
        except subprocess.TimeoutExpired as expired:
            outcome = Absent(f"not done after {expired.timeout:.0f} s")
        except Exception as error:  # noqa: BLE001  a mistake in one benchmark is not to cost the figures of all others
            traceback.print_exc()
            outcome = Broken(f"{type(error).__name__}: {error}")
        self._measured[name] = (time.monotonic(), outcome)
        return outcome

    def figures(self) -> dict[str, Figure]:
        """Those there are so far."""
        return {name: outcome for name, (_, outcome) in self._measured.items() if isinstance(outcome, Figure)}

    def row(self, benchmark: Benchmark) -> dict[str, object]:
        """The figure of a benchmark with its ratios and whether it reaches what it must."""
        references = {name: self.measure(name) for name in benchmark.ratios}
        return judge(benchmark, self.measure(benchmark.name), references)


def judge(
    benchmark: Benchmark, outcome: Figure | Absent, references: Mapping[str, Figure | Absent]
) -> dict[str, object]:
    """One row: a figure of ours that could not be measured has not been reached; a reference may be absent."""
    has_demand = benchmark.limit is not None or bool(benchmark.ratios) or isinstance(outcome, Broken)
    if isinstance(outcome, Absent):
        return {"name": benchmark.name, "absent": str(outcome), "is_reached": False if has_demand else None}
    ratios = {
        name: round(outcome.value / reference.value, 3)
        for name, reference in references.items()
        if isinstance(reference, Figure) and reference.value
    }
    demands = [(outcome.value, benchmark.limit), *((ratios.get(name), r) for name, r in benchmark.ratios.items())]
    demanded = [(value, demand) for value, demand in demands if demand is not None]
    judged = [(value, demand) for value, demand in demanded if value is not None]
    is_reached = all(value >= demand if outcome.is_rate else value <= demand for value, demand in judged)
    is_reached = is_reached and all(outcome.also[name] <= demand for name, demand in benchmark.also.items())
    is_broken = any(isinstance(references.get(name), Broken) for name, demand in benchmark.ratios.items() if demand)
    return {
        "name": benchmark.name,
        "value": round(outcome.value, 4),
        "unit": outcome.unit,
        "limit": benchmark.limit,
        "ratios": ratios,
        "ratio_limits": {name: demand for name, demand in benchmark.ratios.items() if demand is not None},
        # Where all it is to be compared with is absent, nothing is shown.
        "is_reached": is_reached and bool(judged) and not is_broken if demanded else None,
        "also": {name: round(value, 4) for name, value in outcome.also.items()},
        "also_limits": dict(benchmark.also),
        "note": outcome.note,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows for people."""
    lines = [f"{'figure':<20} {'value':>18}  {'must reach':<36} {'':<5} ratios, notes"]
    for row in rows:
        verdict = {True: "ok", False: "MISS", None: ""}[row["is_reached"]]
        if "absent" in row:
            lines.append(f"{row['name']:<20} {'-':>18}  {'':<36} {verdict:<5} {row['absent']}")
            continue
        sign = ">=" if row["unit"].endswith("/s") else "<="
        limits = [] if row["limit"] is None else [f"{sign} {row['limit']:,} {row['unit']}"]
        limits += [
            f"{sign} {demand:g} x {name}" for name, demand in row["ratio_limits"].items() if name in row["ratios"]
        ]
        limits += [f"{name} <= {demand:g}" for name, demand in row["also_limits"].items()]
        remarks = [f"{ratio:.2f} x {name}" for name, ratio in row["ratios"].items()]
        remarks += [f"{name} {row['also'][name]:g}" for name in row["also_limits"]] + [row["note"]]
        value = f"{row['value']:,.2f} {row['unit']}"
        lines.append(f"{row['name']:<20} {value:>18}  {', '.join(limits):<36} {verdict:<5} {'; '.join(remarks)}")
    return "\n".join(lines)


def machine() -> dict[str, object]:
    """What the figures depend on, repeated in every JSON line."""
    listed = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": listed.stdout.strip(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


@contextmanager
def data_directory(kept: str | None) -> Iterator[Path]:
    """A directory of this run's own, removed at the end, or the one named; its server is stopped in any case."""
    path = Path(kept) if kept else Path(tempfile.mkdtemp(prefix="sq-bench-", dir="/tmp"))
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        Context(data_dir=path).squall("server", "stop", "--force")
        if not kept:
            remove_tree(str(path))


def keep(line: str) -> None:
    """Put a figure where the others are, as soon as it is known: a run takes long, and may be ended."""
    results = ROOT / "bench" / "results"
    results.mkdir(parents=True, exist_ok=True)
    with (results / "figures.jsonl").open("a") as file:
        file.write(f"{line}\n")


def main() -> int:
    """Measure what was asked for; 1 when a figure misses what it must reach."""
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(names)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions, not for figures")
    parser.add_argument("--data-dir", help="keep images here between runs; a directory of its own if not given")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the cold starts of this run there, as SVG")
    chosen = parser.parse_args()
    # Ended from outside, it still stops its server and removes its directory.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if unknown := set(chosen.names) - set(names):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(names)}")

    wanted = [benchmark for benchmark in BENCHMARKS if not chosen.names or benchmark.name in chosen.names]
    rows, json_lines = [], []
    with data_directory(chosen.data_dir) as data_dir:
        session = Session(Context(data_dir=data_dir, is_quick=chosen.quick))
        for benchmark in wanted:
            rows.append(session.row(benchmark))
            json_lines.append(json.dumps({**rows[-1], **machine(), "is_quick": chosen.quick}))
            keep(json_lines[-1])

    picture = chart.draw(session.figures())
    if chosen.plot is not None and picture:
        chosen.plot.write_text(picture)
    print(table(rows))
    print()
    print("\n".join(json_lines))
    return int(any(row.get("is_reached") is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
