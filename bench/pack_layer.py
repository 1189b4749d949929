"""Packing a layer: one EROFS image of a tree as a build leaves it, from the page cache to the data directory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from bench.figure import Context, Figure, p50


@cache
def tree() -> Path:
    """What a `pip_install` would have written: the packages of the environment that measures."""
    return Path(sys.prefix, "lib")


@cache
def tree_bytes() -> int:
    """The content of its files."""
    found = (os.path.join(folder, name) for folder, _, names in os.walk(tree()) for name in names)
    return sum(os.lstat(path).st_size for path in found)


PROGRAM = """
import sys
from pathlib import Path
from squall.erofs.pack import make
make([sys.argv[1]], Path(sys.argv[2]))
"""


def run(context: Context) -> Figure:
    """Content per second, the start of the program that packs included, without waiting for the disk."""
    rates: list[float] = []
    for _ in range(context.times(10)):
        with tempfile.TemporaryDirectory(dir=context.data_dir) as folder:
            begin_s = time.perf_counter()
            command = [context.python, "-S", "-c", PROGRAM, str(tree()), str(Path(folder, "layer.erofs"))]
            subprocess.run(command, check=True, timeout=300, env={**context.env, "PYTHONPATH": "src"})
            rates.append(tree_bytes() / 1e6 / (time.perf_counter() - begin_s))
    return Figure(p50(rates), "MB/s", f"p50 of {tree_bytes() / 1e6:.0f} MB in {len(rates)} runs")
