"""Functions that take more than their share."""

import os
import sys
import time

import squall

app = squall.App("abusing")


@app.function()
def fork_many(count: int) -> tuple[int, str]:
    """Fork children that end by themselves; never a loop without end, on a machine that others use, too."""
    made = 0
    for _ in range(count):
        try:
            if os.fork() == 0:
                time.sleep(5)
                os._exit(0)
        except OSError as error:
            return made, os.strerror(error.errno or 0)
        made += 1
    return made, ""


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
    print("forked:", *fork_many.remote(count))


@app.local_entrypoint()
def output(mib: int = 100) -> None:
    print("seconds:", print_much.remote(mib), file=sys.stderr)
