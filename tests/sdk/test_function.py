"""Calling functions: one input, many, generators, durably; from threads, loops and forks."""

from __future__ import annotations

import squall
from tests.sdk.double import ServerDouble

app = squall.App("calls", include_source=False)


@app.function()
def square(x: int) -> int:
    return x * x


def test_remote_returns_the_value(server: ServerDouble) -> None:
    with app.run():
        assert square.remote(7) == 49


def test_map_keeps_the_order(server: ServerDouble) -> None:
    with app.run():
        assert list(square.map(range(2000))) == [x * x for x in range(2000)]
