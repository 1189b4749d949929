"""A module that loads where it is deployed from, and in no container."""

from __future__ import annotations

import squall

app = squall.App("not-loading")

if not squall.is_local():
    raise RuntimeError("its database is away")


@app.function()
def hello() -> str:
    return "hello"
