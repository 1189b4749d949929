"""A commit of one changed file among 50,000: from `batch_upload` to its end, in a program that has done it before."""

from __future__ import annotations

from bench import idle_server
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Median, over loopback."""
    idle_server.start(context)
    files = 5_000 if context.is_quick else 50_000
    numbers = context.program("volume_commit_one.py", files, context.times(30))
    note = (
        f"p50 among {files:,} files; p99 {numbers['p99_ms']:.0f} ms; the first commit, of all: {numbers['all_s']:.1f} s"
    )
    return Figure(numbers["p50_ms"], "ms", note, {name: numbers[name] for name in ("p99_ms", "all_s")})
