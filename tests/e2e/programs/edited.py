"""An app of which one function can be edited without the file that both are in."""

from __future__ import annotations

import os

import squall

app = squall.App("editing")


@app.function(env={"A": "1"}, timeout=int(os.environ.get("EDITED_TIMEOUT", "60")))
def edited() -> str:
    return os.environ["A"]


@app.function(env={"A": "2"})
def kept() -> str:
    return os.environ["A"]
