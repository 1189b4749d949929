"""Functions that end or overfill their container."""

import ctypes
import os

import squall

app = squall.App("crashing")


@app.function()
def exit_at_once(code: int) -> None:
    os._exit(code)


@app.function()
def read_null() -> None:
    ctypes.string_at(0)


@app.function(max_containers=2)
def exit_if_five(x: int) -> int:
    if x == 5:
        os._exit(7)
    return x * 10


@app.function(memory=(64, 128))
def fill(mib: int) -> int:
    held = [b"x" * 2**20 for _ in range(mib)]
    return len(held)


@app.local_entrypoint()
def exits() -> None:
    try:
        exit_at_once.remote(7)
    except squall.exception.RemoteError as error:
        print("caught:", error)
    try:
        read_null.remote()
    except squall.exception.RemoteError as error:
        print("caught:", error)


@app.local_entrypoint()
def exit_in_map() -> None:
    for result in exit_if_five.map(range(12), return_exceptions=True):
        print("result:", repr(result))


@app.local_entrypoint()
def memory() -> None:
    print("little:", fill.remote(8))
    try:
        fill.remote(400)
    except squall.exception.RemoteError as error:
        print("caught:", error)
    print("little:", fill.remote(8))
