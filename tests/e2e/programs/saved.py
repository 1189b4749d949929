"""An app that takes its time to load, and remembers which time that was."""

from __future__ import annotations

import time
import uuid

import squall

app = squall.App("saved")

time.sleep(1.0)
LOADED = uuid.uuid4().hex


@app.cls(enable_memory_snapshot=True)
class Slow:
    @squall.enter(snap=True)
    def load(self) -> None:
        self.told = uuid.uuid4().hex
        with open("/srv/written", "w") as file:
            file.write(self.told)

    @squall.method()
    def loaded(self) -> tuple[str, str, str]:
        with open("/srv/written") as file:
            return LOADED, self.told, file.read()
