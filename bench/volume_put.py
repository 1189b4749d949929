"""`squall volume put` of a large file over loopback, the start of the command included: on the disk when it ends."""

from __future__ import annotations

from bench import idle_server
from bench.figure import Context, Figure, p50
from bench.volume_file import flush, random_file, size, volume

NAME = "bench-put"


def run(context: Context) -> Figure:
    """Content per second, and the memory of the command."""
    idle_server.start(context)
    rates: list[float] = []
    memory_mb = 0.0
    try:
        for _ in range(context.times(3)):
            volume(context, "create", NAME)
            with random_file(context) as path:
                flush()
                took_s, used_mb = volume(context, "put", NAME, str(path), "file")
            rates.append(size(context) / 1e6 / took_s)
            memory_mb = max(memory_mb, used_mb)
            volume(context, "delete", NAME, "--yes")
            volume(context, "gc")
    finally:
        volume(context, "delete", NAME, "--yes", "--allow-missing")
        volume(context, "gc")
    note = f"p50 of {len(rates)} x {size(context) / 1e9:g} GB; the command had {memory_mb:.0f} MB"
    return Figure(p50(rates), "MB/s", note, {"client_mb": memory_mb, "least_mb_per_s": min(rates)})
