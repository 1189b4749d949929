"""The reference of packing: GNU tar of the same tree, to a file."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from bench.figure import Absent, Context, Figure, p50
from bench.pack_layer import tree, tree_bytes


def run(context: Context) -> Figure:
    """Content per second."""
    rates: list[float] = []
    for _ in range(context.times(10)):
        with tempfile.TemporaryDirectory(dir=context.data_dir) as folder:
            begin_s = time.perf_counter()
            command = ["tar", "--create", "--file", str(Path(folder, "layer.tar")), "--directory", str(tree()), "."]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=300)
            except FileNotFoundError:
                raise Absent("tar is not installed") from None
            rates.append(tree_bytes() / 1e6 / (time.perf_counter() - begin_s))
    return Figure(p50(rates), "MB/s", f"tar of {tree_bytes() / 1e6:.0f} MB")
