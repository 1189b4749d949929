"""An app whose class uses torch and keeps 500 MB of numbers, as a model would."""

from __future__ import annotations

import time

import squall

image = squall.Image.debian_slim("3.11").pip_install("torch==2.13.0", "numpy")
app = squall.App("bench-torch", image=image)
NUMBERS = 500_000_000 // 8

with image.imports():
    import numpy
    import torch


@app.cls(enable_memory_snapshot=True, scaledown_window=30)
class Model:
    """Loaded once on a node."""

    @squall.enter(snap=True)
    def load(self) -> None:
        """500 MB, each page of which is written."""
        self.numbers = numpy.ones(NUMBERS)
        self.layer = torch.nn.Linear(8, 8)

    @squall.method()
    def predict(self, hold_s: float = 0.0) -> float:
        """A number of them, some time later."""
        with torch.no_grad():
            found = self.layer(torch.ones(8)).sum().item()
        time.sleep(hold_s)
        return float(self.numbers[NUMBERS // 2] + found)
