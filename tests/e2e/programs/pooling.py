"""An entrypoint with a pool of processes of its own, which the pool ends by SIGTERM."""

from __future__ import annotations

import multiprocessing

import squall

app = squall.App("pooling")


@app.function()
def square(x: int) -> int:
    return x * x


def double(x: int) -> int:
    return 2 * x


@app.local_entrypoint()
def main() -> None:
    for _ in range(10):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            doubled = pool.map(double, range(4))
    print("doubled:", doubled, square.remote(3))
