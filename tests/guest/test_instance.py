"""A guest that serves a class, as a process of its own, by every Python that is found: hooks, methods, and its ends."""

from __future__ import annotations

import functools
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from squall.protocol.call import (
    CANCELLED,
    FAILED,
    SUCCEEDED,
    InputBatch,
    InputRefs,
    ItemBatch,
    OutputBatch,
    cut,
    decode_failure,
    encode_failure,
)
from squall.protocol.function import BY_FILE, Definition, ParameterSpec
from squall.protocol.guest import Boot, GuestStop, Ready, StartupFailed
from squall.protocol.parameters import encode
from squall.sdk._failure import to_exception
from tests.guest.started_guest import CALL, CONTAINER, Process, start_process, ways

pytestmark = pytest.mark.long

CLASSES = """
import asyncio, sys, threading, time
import squall

app = squall.App("classes")

class Above:
    @squall.enter()
    def first(self):
        print("enter first", self.size, self.name)
    @squall.exit()
    def last(self):
        print("exit above")

@app.cls()
class Model(Above):
    size: int = squall.parameter()
    name: str = squall.parameter(default="n")

    @squall.enter()
    def second(self):
        print("enter second")
        self.served = 0
    @squall.method()
    def times(self, x):
        self.served += 1
        return x * self.size, self.served
    @squall.method()
    def count(self, n):
        yield from range(n)
    @squall.method()
    def within(self, x):
        return self.times.local(x), type(self.times).__name__, self.times.object_id
    @squall.method()
    def hold(self, x):
        print("holding", flush=True)
        time.sleep(x)
    @squall.method()
    def forks(self):
        import os
        child = os.fork()
        if not child:
            sys.exit(0)
        return os.waitpid(child, 0)[1]
    @squall.exit()
    def broken(self):
        raise LookupError("exit broken")
    @squall.exit()
    def bye(self):
        print("bye", self.served)

@app.cls()
class Slow:
    @squall.method()
    def run(self):
        return 1
    @squall.exit()
    def bye(self):
        print("leaving", flush=True)
        time.sleep(1)
        print("left")

@app.cls()
class Broken:
    @squall.enter()
    def load(self):
        print("loading")
        raise ValueError("no model")
    @squall.method()
    def run(self):
        return 1
    @squall.exit()
    def bye(self):
        print("never")

@app.cls()
class BrokenLater(Broken):
    @squall.enter()
    async def load(self):
        await asyncio.sleep(0)
        sys.exit("no model")

@app.cls()
class Loading:
    @squall.enter()
    def load(self):
        print("loading", flush=True)
        time.sleep(60)
    @squall.method()
    def run(self):
        return 1
    @squall.exit()
    def bye(self):
        print("never")

@app.cls()
class Mixed:
    @squall.enter()
    async def load(self):
        await asyncio.sleep(0.01)
        self.loop = asyncio.get_running_loop()
        self.beats = 0
        self.beating = asyncio.ensure_future(self.beat())
    async def beat(self):
        while True:
            await asyncio.sleep(0.005)
            self.beats += 1
    @squall.method()
    async def is_same(self):
        await asyncio.sleep(0.05)
        return self.loop is asyncio.get_running_loop(), self.beats > 0
    @squall.method()
    def plain(self, x):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return x * 2, asyncio.run(asyncio.sleep(0, "own loop"))
    @squall.method()
    def hold(self, x):
        print("holding", flush=True)
        time.sleep(x)
    @squall.method()
    def blocks_in(self, what):
        import concurrent.futures, queue, subprocess
        blocks = {
            "program": lambda: subprocess.run(["sleep", "10"], capture_output=True),
            "event": lambda: threading.Event().wait(10),
            "queue": lambda: queue.Queue().get(timeout=10),
            "future": lambda: concurrent.futures.Future().result(10),
            "loop": lambda: asyncio.run(asyncio.sleep(10)),
        }
        try:
            print("holding", flush=True)
            blocks[what]()
            print("went on")
        finally:
            print("cleaned up")
    @squall.method()
    async def blocks_later(self, what):
        async def wait():
            print("holding", flush=True)
            try:
                threading.Event().wait(10)
                print("went on")
            finally:
                print("cleaned up")
        await asyncio.ensure_future(wait())
    @squall.method()
    def meet(self, count):
        return self.__dict__.setdefault("barrier", threading.Barrier(count)).wait(6)
    @squall.method()
    def raises(self):
        raise KeyError("plain")
    @squall.method()
    def count(self, n):
        yield from range(n)
    @squall.method()
    async def later(self, n):
        for number in range(n):
            yield number
    @squall.exit()
    async def bye(self):
        await asyncio.sleep(0.05)
        print("bye", self.loop is asyncio.get_running_loop())
    @squall.exit()
    def plain_bye(self):
        print("plain bye")

@app.cls()
class Batched:
    by: int = squall.parameter(default=2)
    @squall.batched(max_batch_size=4, wait_ms=10)
    def times(self, xs):
        return [x * self.by for x in xs]

class NotDecorated:
    pass
"""
PARAMETERS = (ParameterSpec("size", "int", is_required=True), ParameterSpec("name", "str"))


class Served:
    """A guest that serves one of these classes."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.agent = process.agent

    def boot(
        self,
        name: str,
        *,
        is_async: bool = False,
        max_inputs: int = 1,
        is_batched: bool = False,
        can_be_forked: bool = True,
        **values: Any,
    ) -> None:
        """Tell it to be the class of that name."""
        definition = Definition(BY_FILE, "classes", name, is_async=is_async, is_class=True, parameters=PARAMETERS)
        boot = Boot(
            CONTAINER, "ap-1", "app", "fu-variant", name, definition, {name: "fu-base"},
            max_inputs=max_inputs, parameters=encode(values), is_batched=is_batched,
        )  # fmt: skip
        self.process.introduce(boot, can_be_forked=can_be_forked)

    def give(self, index: int, method: str, *args: object, **batch: int) -> None:
        """One input."""
        value = pickle.dumps((args, {}), 4)
        record = InputBatch(CALL, (index,), (len(value),), (0,), method=method, **batch)  # type: ignore[arg-type]
        self.agent.say("Inputs", record, value)

    def output(self) -> tuple[int, bytes]:
        """The next output."""
        record, body = self.agent.expect("Outputs", OutputBatch)
        (value,) = cut(body, record.sizes)
        return record.statuses[0], value

    def result(self) -> object:
        """The next result."""
        status, value = self.output()
        assert status == SUCCEEDED, decode_failure(value)[0]
        return pickle.loads(value)

    def stop(self) -> tuple[int, str]:
        """As the server does it when a container is not needed any more."""
        self.agent.say("GuestStop", GuestStop(30.0))
        return self.process.end()


@pytest.fixture(params=ways())
def guest(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Served]:
    """A guest that waits for its Boot."""
    process = Process(data_dir, functools.partial(start_process, way=request.param), {"classes.py": CLASSES})
    yield Served(process)
    process.close()


def test_life_of_an_instance(guest: Served) -> None:
    guest.boot("Model", size=3)
    ready, _ = guest.agent.expect("Ready", Ready)

    guest.give(0, "times", 5)
    assert guest.result() == (15, 1)
    guest.give(1, "times", 6)
    assert guest.result() == (18, 2)
    guest.give(2, "within", 7)
    assert guest.result() == ((21, 3), "Function", "fu-variant")
    guest.give(3, "count", 3)
    items, _ = guest.agent.expect("Items", ItemBatch)
    assert guest.output() == (SUCCEEDED, b"3")
    code, printed = guest.stop()

    assert items.first == 0
    assert ready.enter_ms > 0
    assert code == 0
    lines = [line.rpartition("\x1f")[2] for line in printed.splitlines()]
    told = [line for line in lines if line.startswith(("enter", "exit", "bye", "LookupError"))]
    # Of the classes above first; one that raises does not keep the others from running.
    assert told[:4] == ["enter first 3 n", "enter second", "exit above", "bye 3"]
    assert "LookupError: exit broken" in printed


@pytest.mark.parametrize(("method", "message"), [("gone", "the class has no method 'gone' here; it has: times, count")])
def test_a_method_that_there_is_not_is_told(guest: Served, method: str, message: str) -> None:
    guest.boot("Model", size=1)
    guest.give(0, method, 1)

    status, value = guest.output()

    assert status == FAILED
    assert message in decode_failure(value)[0].message


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("Model", {}, "class Model needs size="),
        ("Model", {"size": 1, "depth": 2}, "class Model has no parameter 'depth'"),
        ("NotDecorated", {}, "classes.NotDecorated is no class with @app.cls()"),
    ],
)
def test_what_cannot_be_made_is_told(guest: Served, name: str, values: dict[str, Any], message: str) -> None:
    guest.boot(name, can_be_forked=False, **values)

    failed, body = guest.agent.expect("StartupFailed", StartupFailed)

    assert message in failed.failure.message
    assert body == b""
    assert guest.process.end()[0] == 1


@pytest.mark.parametrize(("name", "kind"), [("Broken", ValueError), ("BrokenLater", SystemExit)])
def test_what_an_enter_hook_raises_is_told_with_its_traceback(
    guest: Served, name: str, kind: type[BaseException]
) -> None:
    guest.boot(name, is_async=name == "BrokenLater")

    failed, pickled = guest.agent.expect("StartupFailed", StartupFailed)
    code, printed = guest.process.end()

    error = to_exception(encode_failure(failed.failure, pickled))
    assert isinstance(error, kind)
    assert str(error) == "no model"
    assert failed.failure.frames[-1].name == "load"
    assert code == 1
    assert "no model" in printed
    # Exit hooks are for what has been entered.
    assert "never" not in printed


def test_a_guest_that_is_ended_while_it_enters_does_not_leave(guest: Served) -> None:
    guest.boot("Loading")
    guest.process.wait_for_line("loading")

    guest.process.terminate()
    code, printed = guest.process.end()

    assert code == 0
    assert "never" not in printed


@pytest.mark.parametrize("is_busy", [True, False])
@pytest.mark.parametrize("name", ["Model", "Mixed"])
def test_exit_hooks_run_when_the_process_is_told_to_end(guest: Served, name: str, is_busy: bool) -> None:
    parameters: dict[str, Any] = {"size": 1} if name == "Model" else {}
    guest.boot(name, is_async=name == "Mixed", **parameters)
    guest.agent.expect("Ready", Ready)
    if is_busy:
        guest.give(0, "hold", 60)
        guest.process.wait_for_line("holding")

    guest.process.terminate()
    code, printed = guest.process.end()

    assert code == 0
    assert "bye" in printed


@pytest.mark.parametrize("what", ["program", "event", "queue", "future", "loop", "task"])
def test_code_that_blocks_in_a_library_is_interrupted_when_the_process_is_told_to_end(guest: Served, what: str) -> None:
    guest.boot("Mixed", is_async=True)
    guest.agent.expect("Ready", Ready)
    guest.give(0, "blocks_later" if what == "task" else "blocks_in", what)
    guest.process.wait_for_line("holding")
    time.sleep(0.2)

    guest.process.terminate()
    code, printed = guest.process.end()

    assert code == 0
    assert "went on" not in printed
    assert "cleaned up" in printed
    assert "bye True" in printed


def test_a_second_request_to_end_does_not_stop_the_hooks(guest: Served) -> None:
    guest.boot("Slow")
    # What a fork is ready for is said before it has entered.
    guest.give(0, "run")
    assert guest.result() == 1
    guest.process.terminate()
    guest.process.wait_for_line("leaving")

    guest.process.terminate()
    code, printed = guest.process.end()

    assert code == 0
    assert "left" in printed


def test_a_forked_child_runs_no_exit_hooks(guest: Served) -> None:
    guest.boot("Model", size=1)
    guest.give(0, "forks")
    assert guest.result() == 0

    assert guest.stop()[1].count("bye") == 1


def test_methods_of_both_kinds_in_one_loop(guest: Served) -> None:
    guest.boot("Mixed", is_async=True)

    guest.give(0, "is_same")
    assert guest.result() == (True, True)
    guest.give(1, "plain", 4)
    assert guest.result() == (8, "own loop")
    guest.give(2, "is_same")
    assert guest.result() == (True, True)
    guest.give(3, "raises")
    status, value = guest.output()
    assert (status, decode_failure(value)[0].type_name) == (FAILED, "KeyError")
    for index, method in ((4, "count"), (5, "later")):
        guest.give(index, method, 3)
        assert guest.output() == (SUCCEEDED, b"3")
    code, printed = guest.stop()

    assert code == 0
    assert "bye True" in printed
    assert printed.index("bye True") < printed.index("plain bye")


def test_plain_methods_beside_others_run_in_threads(guest: Served) -> None:
    guest.boot("Mixed", is_async=True, max_inputs=3)
    guest.agent.expect("Ready", Ready)

    guest.give(0, "hold", 1.0)
    guest.process.wait_for_line("holding")
    guest.give(1, "is_same")
    guest.give(2, "plain", 2)

    assert {pickle.loads(guest.output()[1]) for _ in range(2)} == {(True, True), (4, "own loop")}
    assert guest.output()[0] == SUCCEEDED


def test_as_many_plain_methods_run_at_once_as_there_may_be(guest: Served) -> None:
    guest.boot("Mixed", is_async=True, max_inputs=40)
    for index in range(40):
        guest.give(index, "meet", 40)

    places: list[int] = []
    while len(places) < 40:
        record, body = guest.agent.expect("Outputs", OutputBatch)
        assert set(record.statuses) == {SUCCEEDED}
        places += [pickle.loads(value) for value in cut(body, record.sizes)]

    assert sorted(places) == list(range(40))


def test_a_plain_method_of_a_class_with_a_loop_is_cancelled(guest: Served) -> None:
    guest.boot("Mixed", is_async=True)
    guest.give(0, "hold", 60)
    guest.process.wait_for_line("holding")

    guest.agent.say("CancelInputs", InputRefs(CALL, (0,)))

    assert guest.output()[0] == CANCELLED
    guest.give(1, "is_same")
    assert guest.result() == (True, True)


def test_a_batched_method_is_given_lists(guest: Served) -> None:
    guest.boot("Batched", is_batched=True)
    for index in range(2):
        guest.give(index, "times", index + 1, batch=1, batch_size=2)

    record, body = guest.agent.expect("Outputs", OutputBatch)

    assert [pickle.loads(value) for value in cut(body, record.sizes)] == [2, 4]
