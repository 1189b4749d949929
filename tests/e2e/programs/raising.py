"""Functions that raise, and callers that look at what arrives."""

import importlib
import sys
import traceback
from pathlib import Path

import squall

app = squall.App("raising")


class OutOfCheese(Exception):
    """One whose __init__ wants other arguments than it passes on: pickle alone cannot read it again."""

    def __init__(self, kind: str, grams: int) -> None:
        super().__init__(f"no {kind} left")
        self.grams = grams


@app.function()
def sell(kind: str) -> None:
    weigh(kind)


def weigh(kind: str) -> None:
    raise OutOfCheese(kind, 250)


@app.function()
def divide(a: int, b: int) -> float:
    return a / b


@app.function()
def chained() -> None:
    try:
        weigh("gouda")
    except OutOfCheese as error:
        raise LookupError("the shop is empty") from error


@app.function()
def raise_foreign() -> None:
    """Raise an exception of a class that only this container has."""
    Path("/tmp/only_here.py").write_text("class Foreign(Exception):\n    pass\n")
    sys.path.insert(0, "/tmp")
    raise importlib.import_module("only_here").Foreign("far away")


@app.function()
def chained_to_foreign() -> None:
    try:
        raise_foreign.local()
    except Exception as error:
        raise ValueError("no dice") from error


@app.function()
def leave() -> None:
    sys.exit("leaving")


@app.local_entrypoint()
def own_class() -> None:
    try:
        sell.remote("brie")
    except OutOfCheese as error:
        print("caught:", type(error).__name__, error, error.grams)
        traceback.print_exc(file=sys.stdout)


@app.local_entrypoint()
def with_cause() -> None:
    try:
        chained.remote()
    except LookupError as error:
        print("caught:", error, "because", repr(error.__cause__))


@app.local_entrypoint()
def with_foreign_cause() -> None:
    try:
        chained_to_foreign.remote()
    except ValueError as error:
        print("caught:", error, "because", repr(error.__cause__))


@app.local_entrypoint()
def foreign_class() -> None:
    try:
        raise_foreign.remote()
    except squall.exception.ExecutionError as error:
        print("caught:", error)


@app.local_entrypoint()
def exit_in_function() -> None:
    try:
        leave.remote()
    except SystemExit as error:
        print("caught: SystemExit", error)
    print("still works:", divide.remote(1, 2))


@app.local_entrypoint()
def in_map() -> None:
    for result in divide.map([1, 2, 3], [1, 0, 2], return_exceptions=True):
        print("result:", repr(result))


@app.local_entrypoint()
def uncaught() -> None:
    divide.remote(1, 0)
