"""An app with what can be forked and what cannot."""

from __future__ import annotations

import ctypes
import subprocess
import threading
import time
from pathlib import Path

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


@app.cls(enable_memory_snapshot=True)
class Reading:
    @squall.enter(snap=True)
    def load(self) -> None:
        """Files that stay open: of its image, of its code, and one that it has written."""
        Path("/root/model").write_text("weights and more")
        self.model = open("/root/model")  # noqa: SIM115
        self.model.seek(8)
        self.source = open(__file__)  # noqa: SIM115
        self.system = open("/etc/os-release")  # noqa: SIM115

    @squall.method()
    def read(self) -> tuple[str, int, int]:
        found = self.model.read(), len(self.source.read()), len(self.system.read())
        Path("/root/model").write_text("what it says to nobody else")
        return found


@app.cls(enable_memory_snapshot=True)
class Serving:
    @squall.enter(snap=True)
    def load(self) -> None:
        """What would be missing in copies: a program in the background, nobody's child, and memory of System V."""
        subprocess.run(["sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 &"], check=True)
        ctypes.CDLL(None).shmget(1, 4_096, 0o1600)

    @squall.method()
    def last(self) -> int:
        return 1
