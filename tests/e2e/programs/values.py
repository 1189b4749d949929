"""Arguments and results of every awkward kind."""

import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import squall

app = squall.App("values")


@app.function()
def digest(data: bytes) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


@app.function()
def make(size: int) -> bytes:
    return bytes(range(256)) * (size // 256)


@app.function()
def identity(value: Any) -> Any:
    return value


@app.function()
def make_lock() -> Any:
    return threading.Lock()


@app.function()
def yield_lock() -> Iterator[Any]:
    yield 1
    yield threading.Lock()


@app.local_entrypoint()
def unpicklable_argument() -> None:
    identity.remote(threading.Lock())


@app.local_entrypoint()
def unpicklable_map() -> None:
    try:
        list(identity.map([1, threading.Lock(), 3]))
    except squall.exception.SerializationError as error:
        print("refused:", error)
    print("still works:", identity.remote(4))


@app.local_entrypoint()
def unpicklable_result() -> None:
    try:
        make_lock.remote()
    except squall.exception.SerializationError as error:
        print("refused:", error)
    try:
        list(yield_lock.remote_gen())
    except squall.exception.SerializationError as error:
        print("refused:", error)
    print("still works:", identity.remote(4))


@app.local_entrypoint()
def large() -> None:
    argument = b"squall\n\x00\xff" * (200 * 2**20 // 9)
    is_same = digest.remote(argument) == f"{len(argument)} {hashlib.sha256(argument).hexdigest()}"
    print("argument of", len(argument) // 2**20, "MiB:", is_same)
    del argument
    result = make.remote(50 * 2**20)
    print("result of", len(result) // 2**20, "MiB:", result == bytes(range(256)) * (50 * 2**20 // 256))
