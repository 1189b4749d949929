"""An app with what can be forked and what cannot."""

from __future__ import annotations

import threading
import time

import squall

app = squall.App("snapshots")


@app.cls(enable_memory_snapshot=True)
class Quick:
    @squall.enter(snap=True)
    def load(self) -> None:
        time.sleep(0.5)
        self.table = list(range(1_000_000))

    @squall.method()
    def last(self) -> int:
        return self.table[-1]


@app.cls(enable_memory_snapshot=True)
class Watched:
    @squall.enter(snap=True)
    def load(self) -> None:
        threading.Thread(target=time.sleep, args=(3_600,), name="watcher", daemon=True).start()

    @squall.method()
    def last(self) -> int:
        return 1
