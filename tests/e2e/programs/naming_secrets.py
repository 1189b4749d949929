"""Functions that name secrets. What they were given they tell by its hash: results are kept, and values must not be."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import squall

IMAGE = {"P1": "image", "P2": "image", "P3": "image", "P4": "image"}
NAMED = squall.Secret.from_name("e2e-named", required_keys=["PLANTED_NAMED"])
LOCAL = squall.Secret.from_local_environ(["PLANTED_LOCAL"])
OWN = squall.Secret.from_dict({"P3": "function", "P4": "function"})

app = squall.App(
    "naming-secrets",
    image=squall.Image.debian_slim().env(IMAGE),
    secrets=[squall.Secret.from_dict({"P2": "app", "P3": "app", "P4": "app"})],
)
others = squall.App("others")
NAMES = ("PLANTED_NAMED", "PLANTED_LOCAL", "P1", "P2", "P3", "P4")
AT_IMPORT = os.environ.get("PLANTED_NAMED", "")

CHILD = f"import hashlib, json, os; print(json.dumps([os.environ.get(name) for name in {NAMES!r}]))"


def _hash(value: str | None) -> str:
    return "" if value is None else hashlib.sha256(value.encode()).hexdigest()


def _seen() -> dict[str, str]:
    seen = {name: _hash(os.environ.get(name)) for name in NAMES}
    child = json.loads(subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True).stdout)
    seen["child"] = "same" if [_hash(value) for value in child] == list(seen.values()) else "others"
    seen["at import"] = _hash(AT_IMPORT)
    seen["container"] = os.environ["SQUALL_CONTAINER_ID"]
    return seen


@app.function(secrets=[NAMED, LOCAL, OWN], env={"P4": "env"})
def plain() -> dict[str, str]:
    return _seen()


@app.function(secrets=[NAMED, LOCAL, OWN], env={"P4": "env"}, enable_memory_snapshot=True, single_use_containers=True)
def forked() -> dict[str, str]:
    return _seen()


@app.function(secrets=[NAMED, LOCAL, OWN], env={"P4": "env"}, isolation="gvisor", enable_memory_snapshot=True)
def apart() -> dict[str, str]:
    return _seen()


@others.function()
def bare() -> dict[str, str]:
    return _seen()


app.include(others)


@app.local_entrypoint()
def main(names: str) -> None:
    for name in names.split(","):
        print(json.dumps([name, squall.Function.from_name("naming-secrets", name).remote()]))
