"""From a cached image of ten layers to the root file system of a container."""

from __future__ import annotations

from bench.figure import ROOT, Absent, Context, Figure


def run(context: Context) -> Figure:
    """The runtime's own phase: layers taken and id-mapped, overlay mounted, root entered."""
    if not any((context.data_dir / "layers").glob("ly-*")):
        # Whatever runs in a container brings a base.
        made = context.squall("run", str(ROOT / "examples" / "hello.py"))
        if made.returncode != 0:
            raise Absent(f"no base image: {(made.stderr.strip().splitlines() or ['?'])[-1]}")
    numbers = context.program("image_root.py", context.data_dir, context.times(50))
    also = {name: numbers[name] for name in ("first_ms", "one_layer_ms", "min_ms")}
    return Figure(numbers["p50_ms"], "ms", "p50 of ten layers mounted to a ready root", also)
