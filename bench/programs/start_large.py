"""An app with a class that has 300 MB in memory, of which no two pages are the same."""

from __future__ import annotations

import os

import squall

app = squall.App("bench-large")
PAGES = 300 * 256


@app.cls(enable_memory_snapshot=True)
class Large:
    """Loads once on a node."""

    @squall.enter(snap=True)
    def load(self) -> None:
        """What random bytes take is what nothing makes smaller."""
        self.pages = b"".join(os.urandom(4096) for _ in range(PAGES))

    @squall.method()
    def size(self) -> int:
        """In bytes."""
        return len(self.pages)
