"""An app whose functions have nothing in common but their image, one of which cannot be copied once it is loaded."""

from __future__ import annotations

import os
import threading
import time

import squall

app = squall.App("together")


@app.function(cpu=0.5)
def first() -> str:
    return os.environ["SQUALL_FUNCTION_ID"]


@app.function(memory=128)
def second() -> str:
    return os.environ["SQUALL_FUNCTION_ID"]


@app.cls(enable_memory_snapshot=True)
class Watched:
    @squall.enter(snap=True)
    def load(self) -> None:
        threading.Thread(target=time.sleep, args=(3_600,), name="watcher", daemon=True).start()

    @squall.method()
    def last(self) -> int:
        return 1
