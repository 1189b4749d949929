"""An app whose function does nothing and needs nothing: only interpreter and guest can be there before it starts."""

from __future__ import annotations

import squall

app = squall.App("bench-trivial")


@app.function()
def answer() -> int:
    """A number."""
    return 1
