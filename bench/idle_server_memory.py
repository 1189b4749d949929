"""Memory of a server that has nothing to do."""

from __future__ import annotations

from bench import idle_server
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Resident memory of all its processes; shared pages counted once for each process."""
    idle_server.start(context)
    idle_server.settle()
    found = idle_server.processes(context)
    resident_mb = sum(idle_server.memory_mb(path, "Rss") for path in found)
    shared_mb = sum(idle_server.memory_mb(path, "Pss") for path in found)
    return Figure(resident_mb, "MB", f"resident, {len(found)} processes", {"proportional_mb": shared_mb})
