"""How fast this machine's memory is after a rest: what to read the cold starts by. On some virtual machines a page that
was not touched for some tenths of a second has to be found again by the hypervisor: no process on them sees a fault,
and all are slow.
"""

from __future__ import annotations

import mmap
import time

from bench.figure import Context, Figure, p50
from squall.cli.cold_start import PAUSE_S

PAGES = 2000
"""As many as the processes of a start touch together, or somewhat more."""


def run(context: Context) -> Figure:
    """Time to write one byte to each of 2,000 pages of 4 KiB that were there, after a rest as before a cold start."""
    memory = mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    _touched_ms(memory)
    rested, in_a_row = [], []
    for _ in range(context.times(10)):
        time.sleep(PAUSE_S)
        rested.append(_touched_ms(memory))
        in_a_row.append(_touched_ms(memory))
    memory.close()
    note = f"p50, {PAGES} pages touched again after {PAUSE_S:g} s of rest; {p50(in_a_row):.2f} ms in a row"
    return Figure(p50(rested), "ms", note, {"in_a_row_ms": p50(in_a_row), "max_ms": max(rested)})


def _touched_ms(memory: mmap.mmap) -> float:
    started = time.perf_counter()
    for position in range(0, len(memory), mmap.PAGESIZE):
        memory[position] = 1
    return (time.perf_counter() - started) * 1e3
