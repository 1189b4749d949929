"""What the way through the ingress adds to one request."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """The difference to the same application under uvicorn, measured right before."""
    direct = context.program("web.py", "uvicorn_latency", context.times(3_000))
    numbers = context.program("web.py", "latency", context.times(3_000))
    added_ms = numbers["p50_ms"] - direct["p50_ms"]
    return Figure(
        added_ms, "ms", "p50 added, one connection", {"p50_ms": numbers["p50_ms"], "p99_ms": numbers["p99_ms"]}
    )
