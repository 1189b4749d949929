"""An app with many templates: one for each set of parameters of a class that uses numpy."""

from __future__ import annotations

import squall

image = squall.Image.debian_slim("3.11").pip_install("numpy")
app = squall.App("bench-many", image=image)

with image.imports():
    import numpy


@app.cls(enable_memory_snapshot=True, single_use_containers=True)
class Sum:
    """Of so many numbers."""

    count: int = squall.parameter()

    @squall.method()
    def answer(self) -> float:
        """The sum."""
        return float(numpy.arange(self.count).sum())
