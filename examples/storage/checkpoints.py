"""Training that goes on where it was when its container died, and a model that others read as soon as it is there.

squall run examples/storage/checkpoints.py
squall volume history example-models               # who wrote what, and when
squall volume get example-models / ./models
"""

import json
import os
from pathlib import Path

import squall

app = squall.App("checkpoints")

models = squall.Volume.from_name("example-models", create_if_missing=True)
MODELS = Path("/models")


@app.function(volumes={"/models": models}, retries=3)
def train(name: str, steps: int) -> float:
    """Fit the slope of y = 3x, a checkpoint each 10 steps; dies once on the way, as machines do. The slope."""
    directory = MODELS / name
    directory.mkdir(exist_ok=True)
    checkpoint = directory / "checkpoint.json"
    state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "slope": 0.0}
    print(f"begins at step {state['step']}")
    dies = state["step"] == 0
    while state["step"] < steps:
        state["step"] += 1
        x = state["step"] % 5 + 1
        state["slope"] += 0.01 * (3 * x - state["slope"] * x) * x
        if state["step"] % 10 == 0:
            new = directory / "checkpoint.new"
            new.write_text(json.dumps(state))
            new.replace(checkpoint)
            # From here on it outlives this container, and the machine it runs on: it is on the server's disk.
            models.commit()
            if dies and state["step"] == steps // 2:
                os._exit(1)
    (directory / "model.json").write_text(json.dumps({"slope": state["slope"]}))
    models.commit()
    return float(state["slope"])


@app.function(volumes={"/models": models.with_mount_options(read_only=True)})
def predict(name: str, x: float) -> float:
    """What the newest model says."""
    models.reload()
    return float(json.loads((MODELS / name / "model.json").read_text())["slope"] * x)


@app.local_entrypoint()
def main() -> None:
    if "line" in {entry.path for entry in models.iterdir("/")}:
        models.remove_file("line", recursive=True)
    slope = train.remote("line", 100)
    print(f"the slope is {slope:.2f}, so of 7 it makes {predict.remote('line', 7):.1f}")
