"""What works where it was loaded and crashes anywhere else, as a native library may that has not expected it."""

from __future__ import annotations

import os
import signal
import time

import squall

app = squall.App("crashing-forks")

LOADED_IN = os.readlink("/proc/self/ns/pid")


def use_library() -> None:
    if os.readlink("/proc/self/ns/pid") != LOADED_IN:
        # By then all that began together are there.
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGSEGV)


@app.cls(enable_memory_snapshot=True, single_use_containers=True, max_containers=3)
class AtItsStart:
    @squall.enter(snap=False)
    def connect(self) -> None:
        use_library()

    @squall.method()
    def square(self, x: int) -> int:
        time.sleep(0.2)
        return x * x


@app.cls(enable_memory_snapshot=True, single_use_containers=True, max_containers=3)
class AtItsFirstCall:
    @squall.method()
    def square(self, x: int) -> int:
        use_library()
        time.sleep(0.2)
        return x * x


@app.local_entrypoint()
def start() -> None:
    print("results:", list(AtItsStart().square.map(range(9))))


@app.local_entrypoint()
def call() -> None:
    print("results:", list(AtItsFirstCall().square.map(range(9))))
