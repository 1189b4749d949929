"""`squall volume get` of a large file over loopback, the start of the command included."""

from __future__ import annotations

from bench import idle_server
from bench.figure import Context, Figure, p50
from bench.volume_file import flush, random_file, size, volume

NAME = "bench-get"


def run(context: Context) -> Figure:
    """Content per second, and the memory of the command."""
    idle_server.start(context)
    rates: list[float] = []
    memory_mb = 0.0
    target = context.data_dir / "bench-got"
    try:
        volume(context, "create", NAME)
        with random_file(context) as path:
            volume(context, "put", NAME, str(path), "file")
        for _ in range(context.times(3)):
            flush()
            took_s, used_mb = volume(context, "get", NAME, "file", str(target))
            target.unlink()
            rates.append(size(context) / 1e6 / took_s)
            memory_mb = max(memory_mb, used_mb)
    finally:
        target.unlink(missing_ok=True)
        volume(context, "delete", NAME, "--yes", "--allow-missing")
        volume(context, "gc")
    note = f"p50 of {len(rates)} x {size(context) / 1e9:g} GB, from the page cache; the command had {memory_mb:.0f} MB"
    return Figure(p50(rates), "MB/s", note, {"client_mb": memory_mb})
