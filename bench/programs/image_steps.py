"""An app whose image has as many steps as BENCH_STEPS says; its entrypoint prints when it was reached.

Images are built and functions created by then; no container has been asked for.
"""

from __future__ import annotations

import os
import time

import squall

image = squall.Image.debian_slim()
for number in range(1, int(os.environ.get("BENCH_STEPS", "1"))):
    image = image.run_commands(f"echo {number} > /step-{number}")
app = squall.App("bench-image-steps", image=image)


@app.function()
def unused() -> None:
    """What has the image."""


@app.local_entrypoint()
def main() -> None:
    """Say when, by the machine's monotonic clock."""
    print(f"reached={time.monotonic()}")
