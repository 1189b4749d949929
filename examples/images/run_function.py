"""A model fetched while the image is built, so that no container has to wait for it.

The function runs once. It runs again when its source, its arguments or the constants it uses change.
"""

import json
from pathlib import Path

import squall

app = squall.App("run-function")

WEIGHTS = Path("/models/line.json")


def fetch(slope: float, intercept: float) -> None:
    """Stands for a download: what it writes stays in the image."""
    WEIGHTS.parent.mkdir(parents=True)
    WEIGHTS.write_text(json.dumps({"slope": slope, "intercept": intercept}))
    print("fetched", WEIGHTS)


image = squall.Image.debian_slim().run_function(fetch, args=(2.0,), kwargs={"intercept": 0.5}, timeout=600)


@app.function(image=image)
def predict(x: float) -> float:
    weights = json.loads(WEIGHTS.read_text())
    return weights["slope"] * x + weights["intercept"]


@app.local_entrypoint()
def main() -> None:
    print("predicted", list(predict.map([1.0, 2.0, 3.0])))
