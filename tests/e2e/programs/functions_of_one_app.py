"""An app whose functions have nothing in common but their image."""

from __future__ import annotations

import os

import squall

app = squall.App("together")


@app.function(cpu=0.5)
def first() -> str:
    return os.environ["SQUALL_FUNCTION_ID"]


@app.function(memory=128)
def second() -> str:
    return os.environ["SQUALL_FUNCTION_ID"]
