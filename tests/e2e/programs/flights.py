"""Calls that fail, for looking at and running again."""

from __future__ import annotations

import datetime
import getpass
import os
import sys
from collections.abc import AsyncIterator, Iterator

import squall

app = squall.App("flights")


class Order:
    """Arguments may be of classes that only the program has."""

    def __init__(self, price: int) -> None:
        self.price = price


@app.function(retries=squall.Retries(max_retries=1, initial_delay=1.0))
def charge(order: Order, padding: bytes = b"") -> int:
    print(f"charging {order.price}", flush=True)
    if order.price < 0 and "FLIGHTS_FIXED" not in os.environ:
        secret_sum = order.price * 2
        raise ValueError(f"negative: {secret_sum}")
    return order.price


@app.function()
def checkout(price: int) -> int:
    return charge.remote(Order(price))


@app.cls()
class Till:
    rate: int = squall.parameter()

    @squall.enter()
    def open_up(self) -> None:
        self.open = True

    @squall.method()
    def change(self, given: int) -> float:
        assert self.open
        return given / (given - self.rate)


@app.function()
def count_up(to: int) -> Iterator[int]:
    yield from range(to)
    if "FLIGHTS_FIXED" not in os.environ:
        raise ValueError(f"no {to}")


@app.function()
async def drip(to: int) -> AsyncIterator[int]:
    for number in range(to):
        yield number
    raise ValueError(f"no {to}")


@app.cls()
class Meter:
    @squall.method()
    def ticks(self, to: int) -> Iterator[int]:
        yield from range(to)
        raise ValueError(f"no {to}")


@app.function()
@squall.batched(max_batch_size=4, wait_ms=10)
def halves(xs: list[int]) -> list[int]:
    if "FLIGHTS_FIXED" not in os.environ:
        raise ValueError(f"no {xs}")
    return [x // 2 for x in xs]


@app.local_entrypoint()
def kinds() -> None:
    for make in (
        lambda: list(count_up.remote_gen(2)),
        lambda: list(drip.remote_gen(3)),
        lambda: list(Meter().ticks.remote_gen(4)),
        lambda: halves.remote(8),
    ):
        try:
            make()
        except ValueError:
            continue


@app.local_entrypoint()
def ask() -> None:
    till = Till(rate=5)  # type: ignore[call-arg]
    print(till.change.remote(10))
    call = checkout.spawn(3)
    print(call.get())
    other = charge.spawn(Order(4))
    other.get()
    (root,) = call.get_call_graph()
    print(root.function_name, root.status.name, [(one.function_name, one.status.name) for one in root.children])
    stats, info = charge.stats(), charge.info()
    print(stats.input_success_count, "run_time" in stats.input_percentile_stats, info.max_retries)
    lifecycle = app.info().lifecycle
    print(
        lifecycle.state.name,
        lifecycle.created_by == getpass.getuser(),
        app.stats().functions.by_name["Till"].counts.calls.succeeded,
    )
    (last,) = charge.logs.tail(1)
    before = last.timestamp - datetime.timedelta(hours=1)
    print(last.message, last.source, [entry.message for entry in app.logs.fetch(since=before, search_text="charging")])
    mine = squall.FunctionCall.from_id(other.object_id).logs
    print([entry.message for entry in mine.fetch()], [entry.message for entry in mine.stream(timeout=0.5)])
    print(till.change.remote(5))


@app.local_entrypoint()
def several(prices: list[int]) -> None:
    orders = (Order(price) for price in prices)
    print(sum(isinstance(result, ValueError) for result in charge.map(orders, return_exceptions=True)), "failed")


@app.local_entrypoint()
def main(price: int = -7, padding: int = 0) -> None:
    if padding:
        charge.remote(Order(price), bytes(padding))
    print(checkout.remote(price), file=sys.stderr)
