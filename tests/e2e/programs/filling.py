"""Gives its server things to keep until the disk is full, and goes on when there is room again."""

import hashlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import squall

app = squall.App("filling")


@app.function()
def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@app.function(max_containers=1)
def say(first: int, count: int) -> None:
    for number in range(first, first + count):
        print(f"line {number}", "x" * 200)


@app.function()
def fail(number: int) -> None:
    raise ValueError(f"failed {number}")


class Kept:
    """What the server has acknowledged."""

    def __init__(self) -> None:
        self.calls: list[tuple[squall.FunctionCall[Any], list[str]]] = []
        self.line_count = 0
        self.failed = 0

    def spawn(self, size: int) -> None:
        data = os.urandom(size)
        self.calls.append((digest.spawn(data), [hashlib.sha256(data).hexdigest()]))

    def spawn_map(self, size: int) -> None:
        values = [os.urandom(size) for _ in range(3)]
        self.calls.append((digest.experimental_spawn_map(values), [hashlib.sha256(one).hexdigest() for one in values]))

    def say(self, count: int) -> None:
        say.remote(self.line_count, count)
        self.line_count += count

    def fail(self) -> None:
        try:
            fail.remote(self.failed)
        except ValueError:
            self.failed += 1

    def fill(self) -> str:
        """Until something is refused: what the refusal says."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                self.spawn(900_000)
                self.spawn_map(300_000)
                self.say(500)
                self.fail()
            except squall.exception.Error as error:
                return f"{type(error).__name__}: {error}"
        return "nothing was refused"


def attempt(what: str, run: Callable[[], Any]) -> None:
    started = time.monotonic()
    try:
        run()
        said = "worked"
    except squall.exception.Error as error:
        said = f"{type(error).__name__}: {error}"
    print(f"{what}: {said}\ntook {time.monotonic() - started:.1f} s", flush=True)


def tell(step: Path) -> None:
    step.touch()


def wait(step: Path) -> None:
    while not step.exists():
        time.sleep(0.02)


@app.local_entrypoint()
def main(folder: str) -> None:
    steps, kept = Path(folder), Kept()
    since = datetime.now(UTC) - timedelta(minutes=1)
    print(f"refused: {kept.fill()}", flush=True)
    tell(steps / "refused")

    wait(steps / "full")
    attempt("small", lambda: digest.remote(b"x"))
    attempt("spawn", lambda: kept.spawn(1_000))
    attempt("map", lambda: kept.spawn_map(1_000))
    attempt("printing", lambda: kept.say(5_000))
    attempt("failing", kept.fail)
    tell(steps / "tried")

    wait(steps / "room")
    attempt("again", lambda: kept.spawn(900_000))
    right = sum(list(call.iter()) == wanted for call, wanted in kept.calls)
    print(f"kept: {right} of {len(kept.calls)}")
    kept.say(1)
    texts = [entry.message for entry in app.logs.fetch(since=since)]
    lines = sum(text.startswith("line ") for text in texts)
    dropped = sum(int(text.split()[1]) for text in texts if text.startswith("dropped "))
    print(f"failed: {kept.failed}")
    print(f"lines: {lines} and {dropped} dropped of {kept.line_count}", flush=True)
