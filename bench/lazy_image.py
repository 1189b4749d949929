"""An image that comes from a store while it is used: not a benchmark itself, the lazy_ and import_ ones are of it."""

from __future__ import annotations

from pathlib import Path

from bench.figure import ROOT, Absent, Context

NOTE = "p50 from the request to the end of `import numpy` in a 300 MB image"

_measured: dict[Path, dict[str, float]] = {}


def numbers(context: Context) -> dict[str, float]:
    """Every number of one run: each kind of start in turn, so that what is compared was measured together.

    Raises:
        Absent: there is no base, or no numpy to be had.
    """
    if context.data_dir in _measured:
        return _measured[context.data_dir]
    if not any((context.data_dir / "layers").glob("ly-*")):
        # Whatever runs in a container brings a base.
        made = context.squall("run", str(ROOT / "examples" / "hello.py"))
        if made.returncode != 0:
            raise Absent(f"no base image: {(made.stderr.strip().splitlines() or ['?'])[-1]}")
    measured = _measured[context.data_dir] = context.program("lazy_import.py", context.data_dir, context.times(10))
    return measured
