"""A commit of one changed file among 50,000 in a container: `Volume.commit`, from the call to its end.

The 50,000 are of the version that it has; `own_ms` is the same where it has written them itself.
"""

from __future__ import annotations

from bench import idle_server
from bench.figure import Context, Figure
from bench.volume_file import emptied


def run(context: Context) -> Figure:
    """Median."""
    idle_server.start(context)
    with emptied(context):
        numbers = context.program("volume_mounted.py", "commit", context.times(30))
    note = (
        f"p50 among 50,000 files; p99 {numbers['p99_ms']:.0f} ms; where the container has written all of them itself "
        f"{numbers['own_ms']:.0f} ms; the first commit, of all: {numbers['all_s']:.1f} s"
    )
    return Figure(numbers["p50_ms"], "ms", note, {name: numbers[name] for name in ("own_ms", "p99_ms", "all_s")})
