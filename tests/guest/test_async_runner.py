"""The runner of asynchronous functions where processes, cancellations and signals meet its event loop."""

from __future__ import annotations

import asyncio
import functools
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.guest.async_runner import AsyncRunner
from squall.guest.cancellation import Interrupter
from squall.guest.inbox import Inbox, Work
from squall.guest.link import Link
from squall.guest.outbox import Outbox
from squall.guest.runner import RunnerParts
from squall.guest.values import Values
from squall.protocol.call import CANCELLED, GENERATOR_WINDOW, SUCCEEDED, InputBatch, OutputBatch
from squall.protocol.guest import GuestStop, Ready
from squall.sdk import _container
from tests.guest.agent_double import AgentDouble
from tests.guest.started_guest import CALL, Process, start_process, ways

pytestmark = pytest.mark.long

CODE = """
import asyncio, os, sys

async def bystander(x):
    if x:
        await asyncio.sleep(1)
        return "bystander"
    return await forks()

async def forks():
    await asyncio.sleep(0.1)
    child = os.fork()
    if not child:
        sys.exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

async def forks_and_returns():
    child = os.fork()
    if not child:
        return "child"
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

async def forks_and_awaits():
    child = os.fork()
    if not child:
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        return "child"
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, 1)

async def many(n):
    for number in range(n):
        yield number

async def items_of_two():
    child = os.fork()
    yield "item"
    os.waitpid(child, 0)
"""


@pytest.fixture(params=ways())
def guest(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Process]:
    """A guest that waits for its Boot, with the code above to run."""
    process = Process(data_dir, functools.partial(start_process, way=request.param), {"async_code.py": CODE})
    yield process
    process.close()


@pytest.mark.parametrize(("name", "expected"), [("forks", 3), ("forks_and_returns", 0), ("forks_and_awaits", True)])
def test_child_forked_by_a_coroutine_is_no_second_guest(guest: Process, name: str, expected: object) -> None:
    guest.boot(name, module="async_code", is_async=True)
    guest.give(0)

    status, value = guest.output()

    assert (status, pickle.loads(value)) == (SUCCEEDED, expected)
    guest.give(1)
    status, value = guest.output()
    assert (status, pickle.loads(value)) == (SUCCEEDED, expected)


def test_child_forked_by_a_coroutine_answers_for_no_other_input(guest: Process) -> None:
    guest.boot("bystander", module="async_code", is_async=True, max_inputs=2)
    guest.give(0, 1)
    guest.give(1, 0)

    first, second = guest.output(), guest.output()

    assert [(status, pickle.loads(value)) for status, value in (first, second)] == [
        (SUCCEEDED, 3),
        (SUCCEEDED, "bystander"),
    ]


def test_child_forked_by_an_async_generator_sends_no_items(guest: Process) -> None:
    guest.boot("items_of_two", module="async_code", is_async=True, is_generator=True)
    guest.give(0)

    batches = []
    while True:
        envelope, body = guest.agent.events.get(timeout=10)
        if envelope.method == "Outputs":
            break
        if envelope.method == "Items":
            batches.append(pickle.loads(body))

    assert batches == ["item"]


class PausingInbox(Inbox):
    """An inbox whose reader is held up between taking an input and starting it, as a busy machine does."""

    def take(self) -> Work:
        item = super().take()
        (one,) = item.inputs
        if one.attempt == 0:
            self.on_cancel(one.call_id, one.index)
            time.sleep(0.2)
        return item


def test_cancellation_between_taking_and_starting_is_answered(data_dir: Path) -> None:
    agent = AgentDouble(data_dir / "a.sock")
    link = Link(agent.path, "secret", "ct-1")
    link.connect()
    interrupter, outbox = Interrupter(), Outbox(link)
    inbox = PausingInbox(link, outbox, interrupter.cancel)
    began: list[int] = []

    async def record(attempt: int) -> None:
        began.append(attempt)
        await asyncio.sleep(0 if attempt else 30)

    values = Values(_container.get_blob, _container.put_blob)
    runner = AsyncRunner(RunnerParts(record, False, inbox, outbox, link, values, interrupter, ()), max_inputs=1)
    inbox.on_cancel = runner.cancel
    inbox.start(Ready(10, 0.0, "3"))
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()

    statuses = []
    for attempt in range(2):
        value = pickle.dumps(((attempt,), {}), 4)
        agent.say("Inputs", InputBatch(CALL, (0,), (len(value),), (attempt,)), value)
        outputs, _ = agent.expect("Outputs", OutputBatch, timeout_s=5)
        statuses.append(outputs.statuses[0])
    agent.say("GuestStop", GuestStop(5.0))
    thread.join(5)
    link.disconnect()
    agent.close()

    assert statuses == [CANCELLED, SUCCEEDED]
    assert began == [1]
    assert not thread.is_alive()


@pytest.mark.parametrize("is_waiting_for_consumer", [False, True])
def test_terminated_guest_ends_soon_whoever_reads(guest: Process, is_waiting_for_consumer: bool) -> None:
    guest.boot("many", module="async_code", is_async=True, is_generator=True, max_inputs=1)
    guest.agent.expect("Ready", Ready)
    if is_waiting_for_consumer:
        guest.give(0, 10 * GENERATOR_WINDOW)
        guest.let_it_begin()
    else:
        time.sleep(0.2)

    asked_at = time.monotonic()
    guest.terminate()
    code, printed = guest.end()

    assert code == 0
    assert time.monotonic() - asked_at < 3
    assert "Traceback" not in printed
