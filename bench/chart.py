"""The picture of docs/cold-starts.md: cold starts of one run, and what they are compared with."""

from __future__ import annotations

from collections.abc import Mapping

from bench.figure import Figure
from squall.cli.start_chart import Series, svg

PEERS = {
    "runc_run": "runc run",
    "runc_rested": "runc run, after a rest",
    "runsc_run": "runsc run",
    "podman_run": "podman run",
    "ray_actor_start": "Ray actor",
}
OURS = {
    "start_numpy_parked": "numpy, parked",
    "start_torch_parked": "torch + 500 MB, parked",
    "start_numpy_fork": "numpy, forked",
    "start_torch_fork": "torch + 500 MB, forked",
    "start_trivial": "image template",
    "start_numpy_plain": "numpy, no template",
    "restore_gvisor": "numpy, gVisor, restored",
    "start_gvisor_plain": "numpy, gVisor, booted",
    "start_torch_plain": "torch + 500 MB, no template",
}
"""In the order of the rows."""


def draw(figures: Mapping[str, Figure]) -> str:
    """The picture of those that there are; empty where there is none."""
    found = [
        Series(label, figures[name].values_ms, name in PEERS)
        for name, label in {**OURS, **PEERS}.items()
        if name in figures and figures[name].values_ms
    ]
    if not found:
        return ""
    said = (
        "from a call, or a command, to its result; median · 99th percentile; grey: containers of others that do nothing"
    )
    return svg("Cold starts", said, found)
