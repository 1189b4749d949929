"""Stops in the debugger, and asks at the terminal."""

from __future__ import annotations

import time

import squall

app = squall.App("stops")


@app.function()
def debugged(x: int) -> int:
    y = x + 1
    breakpoint()
    return y * 2


@app.function()
def debugged_twice(x: int) -> None:
    breakpoint()
    breakpoint()
    print("wait" + "ing")
    time.sleep(60)


@app.function()
def asking() -> str:
    squall.interact()
    return input("your name: ")


@app.function()
def asking_then_telling() -> None:
    squall.interact()
    count = int(input("how many lines: "))
    print("\n".join(f"line {number} of {count}" for number in range(1, count + 1)))


@app.local_entrypoint()
def debug() -> None:
    print("result", debugged.remote(41))


@app.local_entrypoint()
def debug_and_wait() -> None:
    debugged_twice.remote(41)


@app.local_entrypoint()
def ask() -> None:
    print("hello", asking.remote())


@app.local_entrypoint()
def local() -> None:
    print("typed", input("here: "))


@app.local_entrypoint()
def tell() -> None:
    asking_then_telling.remote()


@app.local_entrypoint()
def tell_and_say() -> None:
    asking_then_telling.remote()
    print("all told")
