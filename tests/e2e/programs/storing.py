"""Everything that needs room in the data directory."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import squall

app = squall.App("storing")
large_image = squall.Image.debian_slim().run_commands("dd if=/dev/zero of=/large bs=1M count=400 status=none")


@app.function()
def length(data: bytes) -> int:
    return len(data)


@app.function()
def print_lines(count: int) -> int:
    for number in range(count):
        sys.stdout.write(f"line {number} {'x' * 1000}\n")
    return count


@app.function()
def cold() -> str:
    return "needs a container"


built = squall.App("storing-image")


@built.function(image=large_image)
def nothing() -> None:
    return None


def attempt(what: str, run: Callable[[], Any]) -> None:
    started = time.monotonic()
    try:
        print(f"{what}: worked: {run()}", flush=True)
    except squall.exception.Error as error:
        print(f"{what}: {type(error).__name__}: {error}", flush=True)
    print(f"{what}: took {time.monotonic() - started:.1f} s", flush=True)


@app.local_entrypoint()
def main() -> None:
    attempt("small", lambda: length.remote(b"x"))
    attempt("blob", lambda: length.remote(bytes(100 * 2**20)))
    attempt("lines", lambda: print_lines.remote(20_000))
    attempt("cold", cold.remote)
    attempt("durable", lambda: length.spawn(bytes(2**19)).get(timeout=20))


@app.local_entrypoint()
def wait_then(path: str) -> None:
    """Two containers are up before the disk fills."""
    attempt("warm", lambda: length.remote(b"x") + print_lines.remote(1))
    while not os.path.exists(path):
        time.sleep(0.05)
    main.raw_f()


@built.local_entrypoint()
def image() -> None:
    nothing.remote()
