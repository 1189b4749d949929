"""Functions whose starts are measured: where their time goes is known."""

from __future__ import annotations

import time
from collections.abc import Iterator

import squall

app = squall.App("measured.starts")

if not squall.is_local():
    time.sleep(0.02)


@app.function(scaledown_window=300)
def hello(name: str = "you") -> str:
    return f"hello {name}"


@app.function(env={"GREETING": "salve"}, single_use_containers=True)
def in_latin(name: str = "tu") -> str:
    return f"salve {name}"


@app.function()
def endless() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


@app.cls()
class Model:
    size: int = squall.parameter()

    @squall.enter()
    def load(self) -> None:
        time.sleep(0.5)

    @squall.method()
    def predict(self, value: int) -> int:
        return value * self.size


@app.local_entrypoint()
def warm() -> None:
    squall.Function.from_name("measured.starts", "hello").remote()
