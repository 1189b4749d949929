"""A result is handed out after the log lines that came before it, and not much later."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import squall
from squall.protocol.log import LogEntry
from squall.sdk import _output, _shown
from tests.sdk.double import ServerDouble

app = squall.App("printing", include_source=False)
CALLS = 50
MOMENT_S = _shown.CATCH_UP_S


@app.function()
def say(x: int) -> int:
    return x


@app.function()
def fail(x: int) -> None:
    raise ValueError(x)


@app.function()
def count_up(n: int) -> Iterator[int]:
    yield from range(n)


class Slow(_output.Output):
    """Notes what is shown; each line takes a while, or until it is let go."""

    def __init__(self, line_s: float = 0.003) -> None:
        self.shown: list[str] = []
        self.line_s = line_s
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def log(self, entry: LogEntry) -> None:
        self.may_go_on.wait(20)
        time.sleep(self.line_s)
        self.shown.append(entry.text)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a line may take longer than results wait for it; order is the question here, not time."""
    monkeypatch.setattr(_shown.Display, "catch_up_s", 20.0)


@contextmanager
def printing(server: ServerDouble, output: _output.Output) -> Iterator[None]:
    """Every input and item has a line that leaves the server before it."""
    server.prints_before_results = True
    with _output.use(output), app.run():
        yield


def test_result_comes_after_its_line(server: ServerDouble) -> None:
    output = Slow()

    with printing(server, output):
        for number in range(CALLS):
            say.remote(number)
            assert len(output.shown) == number + 1


def test_failure_comes_after_its_line(server: ServerDouble) -> None:
    output = Slow()

    with printing(server, output):
        for number in range(5):
            try:
                fail.remote(number)
            except ValueError:
                assert len(output.shown) == number + 1


def test_results_of_a_map_come_after_their_lines(server: ServerDouble) -> None:
    output = Slow(line_s=0.0005)

    with printing(server, output):
        for number, _ in enumerate(say.map(range(CALLS))):
            assert len(output.shown) > number


def test_items_come_after_their_lines(server: ServerDouble) -> None:
    output = Slow(line_s=0.0005)

    with printing(server, output):
        for number, _ in enumerate(count_up.remote_gen(CALLS)):
            assert len(output.shown) > number


def test_results_in_an_event_loop_come_after_their_lines_and_do_not_block_it(server: ServerDouble) -> None:
    output = Slow(line_s=0.02)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async def call() -> None:
        ticking = asyncio.ensure_future(tick())
        for number in range(5):
            await say.remote.aio(number)
            assert len(output.shown) == number + 1
        ticking.cancel()

    with printing(server, output):
        asyncio.run(call())

    assert ticks > 20


def test_several_threads_each_get_their_lines_first(server: ServerDouble) -> None:
    output = Slow(line_s=0.001)
    late: list[int] = []

    def call() -> None:
        for _ in range(20):
            before = len(output.shown)
            say.remote(1)
            if len(output.shown) <= before:
                late.append(before)

    with printing(server, output):
        calling = [threading.Thread(target=call) for _ in range(4)]
        for thread in calling:
            thread.start()
        for thread in calling:
            thread.join()

    assert not late


def test_an_output_that_blocks_costs_one_moment(server: ServerDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shown.Display, "catch_up_s", MOMENT_S)
    output = Slow()

    with printing(server, output):
        say.remote(0)
        output.may_go_on.clear()
        started = time.monotonic()
        for number in range(20):
            say.remote(number)
        took_s = time.monotonic() - started
        output.may_go_on.set()

    assert MOMENT_S * 0.9 < took_s < MOMENT_S * 5
    assert len(output.shown) == 21


def test_nothing_waits_when_the_output_is_off_or_over(server: ServerDouble) -> None:
    with printing(server, Slow()):
        say.remote(1)
        assert len(_shown.displays) == 1

    assert not _shown.displays


def test_lines_after_a_reconnect_come_before_their_results(server: ServerDouble) -> None:
    output = Slow()

    with printing(server, output):
        say.remote(1)
        server.restart()
        # The call is back before who follows the lines may be; a line that is shown says that both are.
        before = len(output.shown)
        while len(output.shown) == before:
            say.remote(2)
        before = len(output.shown)
        say.remote(3)
        assert len(output.shown) > before
