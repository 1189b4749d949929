"""Functions that take more than their share."""

import os
import sys
import time
from pathlib import Path

import squall

app = squall.App("abusing")


@app.function()
def fork_many(count: int) -> None:
    """Fork children that end by themselves; never a loop without end, on a machine that others use, too."""
    print("waiting for the limit", flush=True)
    deadline = time.monotonic() + 20
    while not Path("/tmp/go").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    made, reason = 0, ""
    while made < count and not reason:
        try:
            if os.fork() == 0:
                time.sleep(5)
                os._exit(0)
            made += 1
        except OSError as error:
            reason = os.strerror(error.errno or 0)
    print("forked:", made, reason, flush=True)
    time.sleep(60)


@app.function()
def print_much(mib: int) -> float:
    started = time.monotonic()
    line = "x" * 1023 + "\n"
    for _ in range(mib * 1024):
        sys.stdout.write(line)
    sys.stdout.flush()
    return time.monotonic() - started


@app.local_entrypoint()
def fork(count: int = 400) -> None:
    fork_many.remote(count)


@app.function()
def flood(mib: int) -> None:
    for number in range(mib * 1024):
        print(f"{number:08}", "x" * 1014)
    print("the result is 49")
    raise ValueError("raised after a flood")


@app.local_entrypoint()
def flooded(mib: int = 60) -> None:
    try:
        flood.remote(mib)
    except ValueError as error:
        print("caught:", error)


@app.local_entrypoint()
def output(mib: int = 100) -> None:
    print("seconds:", print_much.remote(mib), file=sys.stderr)
