"""What a plain script shows of a slip, or of Ctrl-C: lines of its own, one of ours, and names that it may catch."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import squall
from squall import exception
from squall.sdk._traceback import is_ours
from tests.sdk.double import ServerDouble

app = squall.App("slips", include_source=False)


@app.function()
def square(x: int) -> int:
    return x * x


def frames_of_ours(error: BaseException) -> list[str]:
    """Where in our code it was raised, as its traceback shows."""
    return [str(frame) for frame in traceback.extract_tb(error.__traceback__) if is_ours(frame.filename)]


SLIPS: dict[str, Callable[[], Any]] = {
    "App": lambda: squall.App(3),  # type: ignore[arg-type]
    "with_options": lambda: square.with_options(cpu="x"),  # type: ignore[arg-type]
    "with_concurrency": lambda: square.with_concurrency(max_inputs=-1),
    "Cron": lambda: squall.Cron("x"),
    "Retries": lambda: squall.Retries(max_retries=-1),
    "batched": lambda: squall.batched(max_batch_size=0, wait_ms=1),
    "from_name": lambda: squall.Function.from_name(1, "f"),  # type: ignore[arg-type]
    "function": lambda: app.function(foo=1),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("name", SLIPS)
def test_wrong_argument_shows_one_line_of_ours(name: str) -> None:
    with pytest.raises(exception.InvalidError) as caught:
        SLIPS[name]()

    assert len(frames_of_ours(caught.value)) == 1


def test_block_that_cannot_be_entered_shows_one_line_of_ours(server: ServerDouble) -> None:
    with app.run(), pytest.raises(exception.InvalidError, match="runs already") as caught:
        with app.run():
            pass

    assert len(frames_of_ours(caught.value)) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    "call",
    [
        lambda: list(square.map([1])),
        lambda: square.remote(1),
        lambda: square.for_each([1]),
        lambda: square.spawn(1).get(),
    ],
)
def test_ctrl_c_shows_one_line_of_ours(server: ServerDouble, call: Callable[[], Any]) -> None:
    server.callables["square"] = lambda x: time.sleep(2)

    with app.run():
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt) as caught:
            call()

    assert len(frames_of_ours(caught.value)) == 1


def test_what_is_raised_has_a_name_that_programs_can_write() -> None:
    with pytest.raises(exception.WrongParameter) as caught:
        SLIPS["function"]()

    assert isinstance(caught.value, TypeError)
    for kind in (exception.WrongParameter, exception.TerminalMissing):
        assert kind.__module__ == "squall.exception"
        assert str(pickle.loads(pickle.dumps(kind("as it is")))) == "as it is"
