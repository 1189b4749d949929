"""An app whose function uses numpy, which its module imports."""

from __future__ import annotations

import os
import time

import squall

image = squall.Image.debian_slim("3.11").pip_install("numpy")
app = squall.App("bench-numpy", image=image)

with image.imports():
    import numpy


@app.function(enable_memory_snapshot=True)
def answer() -> float:
    """The sum of a few numbers."""
    return float(numpy.arange(10).sum())


@app.function(enable_memory_snapshot=True, scaledown_window=2)
def where(value: int) -> tuple[int, float]:
    """Which container answers (its pid namespace) and since when (the machine's monotonic clock)."""
    entered_s = time.monotonic()
    # Longer than it may take until the last container is there: none takes a second input before that.
    time.sleep(10)
    return os.stat("/proc/self/ns/pid").st_ino, entered_s


@app.function(isolation="gvisor")
def plain_gvisor() -> float:
    """As `answer`, in a container with a kernel of its own that begins by booting."""
    check_kernel()
    return float(numpy.arange(10).sum())


@app.function(isolation="gvisor", enable_memory_snapshot=True)
def restored_gvisor() -> float:
    """The same, restored from what was saved."""
    check_kernel()
    return float(numpy.arange(10).sum())


def check_kernel() -> None:
    """Whether there is another one than the machine's: a wrong figure is worse than none."""
    if os.uname().release != "4.4.0":
        raise RuntimeError(f"this is no gVisor: {os.uname().release}")
