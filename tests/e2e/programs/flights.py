"""Calls that fail, for looking at and running again."""

from __future__ import annotations

import os
import sys

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


@app.local_entrypoint()
def main(price: int = -7, padding: int = 0) -> None:
    if padding:
        charge.remote(Order(price), bytes(padding))
    print(checkout.remote(price), file=sys.stderr)
