"""Durable inputs beyond what fits in memory: each runs once, whatever happens while they wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from squall.protocol import call as wire
from squall.protocol.app import AppStop
from squall.protocol.call import (
    CallCancel,
    CallInfo,
    CallInfoGet,
    CallOpen,
    CallSpawn,
    CallSpawned,
    InputBatch,
    decode_failure,
)
from squall.protocol.empty import Empty
from squall.protocol.errors import UNAVAILABLE, PlatformError
from squall.protocol.function import FunctionStats, FunctionStatsGet
from squall.protocol.ids import new_id
from squall.server.dispatch import control_plane
from squall.server.dispatch.durable import backlog, durable
from squall.server.model.config import ServerConfig
from squall.server.model.store import Portion, StoredCall, StoredInput, StoredOutput
from squall.server.store.memory import MemoryStore
from tests.server.doubles import FakeGuest, Stage, settle, staged

MEMORY_INPUTS = 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little fits in memory."""
    monkeypatch.setattr(backlog, "MEMORY_INPUTS_MAX", MEMORY_INPUTS)
    monkeypatch.setattr(backlog, "SHARE_INPUTS_MIN", 5)
    monkeypatch.setattr(backlog, "PAGE_INPUTS", 7)


async def spawn(stage: Stage, function_id: str, *numbers: int, call_id: str = "") -> str:
    call_id = call_id or new_id("fc")
    values = [str(number).encode() for number in numbers]
    batch = InputBatch(call_id, tuple(range(len(values))), tuple(len(value) for value in values))
    await stage.client.ask(
        "CallSpawn", CallSpawn(CallOpen(call_id, function_id, wire.SPAWN), batch), CallSpawned, b"".join(values)
    )
    return call_id


async def kept(stage: Stage, call_id: str) -> bytes:
    return (await stage.plane.durable.get(call_id, 0, 0.0))[1]


async def done(stage: Stage, count: int) -> None:
    """Wait until so many outputs are in the store."""
    assert isinstance(stage.store, MemoryStore)
    outputs = stage.store._outputs
    await stage.until(lambda: sum(len(of_call) for of_call in outputs.values()) >= count)


def runs(stage: Stage) -> int:
    """How often an input was run."""
    return sum(len(guest.received) for guest in stage.node.started)


async def test_what_does_not_fit_waits_in_the_store_and_each_runs_once() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True

        call_ids = await asyncio.gather(*(spawn(stage, spec.function_id, number) for number in range(100)))
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        assert dispatcher.queued == MEMORY_INPUTS
        assert stage.plane.durable.backlog.count(spec.function_id) == 80
        stats = await stage.client.ask("FunctionStats", FunctionStatsGet(spec.function_id), FunctionStats)
        assert stats.queued_inputs == 100
        info = await stage.client.ask("CallInfo", CallInfoGet(call_ids[99]), CallInfo)
        assert info.statuses == ("queued",)
        stage.node.is_slow_to_load = False
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await done(stage, 100)

        assert runs(stage) == 100
        assert [await kept(stage, call_id) for call_id in call_ids] == [b"%d" % (2 * n) for n in range(100)]
        assert len(stage.plane.durable.backlog) == 0
        assert not await stage.store.unfinished_counts()


@pytest.mark.long
async def test_spawning_while_pages_are_read_loses_nothing_and_runs_nothing_twice() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=2)
        for _ in range(20):
            await asyncio.gather(*(spawn(stage, spec.function_id, *range(3)) for _ in range(25)))
            await stage.pass_time(0.05)
        await done(stage, 1_500)
        await stage.pass_time(2.0)

        assert runs(stage) == 1_500
        assert not await stage.store.unfinished_counts()


async def test_after_a_restart_all_of_it_runs_once() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call_ids = [await spawn(stage, spec.function_id, number) for number in range(90)]

        await stage.restart()
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        assert MEMORY_INPUTS <= dispatcher.queued < MEMORY_INPUTS + backlog.PAGE_INPUTS
        stage.node.is_slow_to_load = False
        await stage.client.connect()
        await stage.take_up(spec)
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await done(stage, 90)

        assert runs(stage) == 90
        assert [await kept(stage, call_id) for call_id in call_ids] == [b"%d" % (2 * n) for n in range(90)]


@pytest.mark.parametrize("is_restarted", [True, False])
async def test_inputs_beyond_the_memory_of_the_server_wait_and_none_fails(
    is_restarted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, functions, of_each = b"7" + b" " * 99_999, 8, 10
    read, page_bytes = MemoryStore.unfinished_inputs, [0]

    async def counted(store: MemoryStore, *args: Any) -> tuple[Portion, ...]:
        page = await read(store, *args)
        page_bytes.append(sum(portion.size_bytes for portion in page))
        return page

    monkeypatch.setattr(MemoryStore, "unfinished_inputs", counted)
    async with staged(ServerConfig(queued_bytes_max=1_000_000)) as stage:
        specs = [await stage.client.function(name=f"f{number}") for number in range(functions)]
        stage.node.is_slow_to_load = True
        for _ in range(of_each):
            for spec in specs:
                call_id = new_id("fc")
                batch = InputBatch(call_id, (0,), (len(value),))
                record = CallSpawn(CallOpen(call_id, spec.function_id, wire.SPAWN), batch)
                await stage.client.ask("CallSpawn", record, CallSpawned, value)

        if is_restarted:
            await stage.restart()
        await stage.pass_time(3.0)
        # Half of it, and of each function that has nothing else one input.
        assert stage.plane.calls.waiting_bytes <= 500_000 + functions * len(value)
        assert max(page_bytes) <= 500_000
        assert not any(stage.store._outputs.values())
        stage.node.is_slow_to_load = False
        await stage.client.connect()
        for spec in specs:
            await stage.take_up(spec)
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await done(stage, functions * of_each)

        outputs = [one for of_call in stage.store._outputs.values() for one in of_call.values()]
        assert {(one.status, one.value) for one in outputs} == {(wire.SUCCEEDED, b"14")}
        assert runs(stage) == functions * of_each
        assert stage.plane.calls.waiting_bytes == 0


async def test_what_waits_in_the_store_fails_with_its_app() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call_ids = [await spawn(stage, spec.function_id, number) for number in range(60)]

        stopping = asyncio.ensure_future(stage.client.ask("AppStop", AppStop(spec.app_id), Empty))
        await stage.until(stopping.done)
        await done(stage, 60)

        assert decode_failure(await kept(stage, call_ids[-1]))[0].kind == "stopped"
        assert len(stage.plane.durable.backlog) == 0


async def test_what_ends_with_its_app_is_read_in_whole_pages_however_full_the_memory_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, pages = MemoryStore.unfinished_inputs, 0

    async def counted(store: MemoryStore, *args: Any) -> tuple[Portion, ...]:
        nonlocal pages
        pages += 1
        return await read(store, *args)

    monkeypatch.setattr(MemoryStore, "unfinished_inputs", counted)
    async with staged(ServerConfig(queued_bytes_max=10_000)) as stage:
        full, ending = await stage.client.function(), await stage.client.function(name="ending")
        stage.node.is_slow_to_load = True
        stage.client.put(stage.client.open(full.function_id), {0: b"7" + b" " * 8_000})
        await stage.until(lambda: stage.plane.calls.waiting_bytes > 5_000)
        for number in range(60):
            await spawn(stage, ending.function_id, number)
        pages = 0

        stopping = asyncio.ensure_future(stage.client.ask("AppStop", AppStop(ending.app_id), Empty))
        await stage.until(stopping.done)
        await done(stage, 60)

        assert stage.plane.calls.waiting_bytes > 5_000
        assert pages <= 60 / backlog.PAGE_INPUTS + 2


async def test_a_call_that_waits_in_the_store_can_be_cancelled() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call_ids = [await spawn(stage, spec.function_id, number) for number in range(60)]

        await stage.client.ask("CallCancel", CallCancel(call_ids[50]), Empty)
        await settle()
        assert decode_failure(await kept(stage, call_ids[50]))[0].kind == "cancelled"
        stage.node.is_slow_to_load = False
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await done(stage, 60)

        assert runs(stage) == 59


async def test_call_that_is_cancelled_while_its_page_is_read_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call_ids = [await spawn(stage, spec.function_id, number) for number in range(60)]
        read, is_read, may_go_on = stage.store.unfinished_inputs, asyncio.Event(), asyncio.Event()

        async def wait_after(*args: object, **kwargs: object) -> object:
            page = await read(*args, **kwargs)  # type: ignore[arg-type]
            is_read.set()
            await may_go_on.wait()
            return page

        monkeypatch.setattr(stage.store, "unfinished_inputs", wait_after)
        stage.node.is_slow_to_load = False
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await stage.until(is_read.is_set)
        await stage.client.ask("CallCancel", CallCancel(call_ids[MEMORY_INPUTS]), Empty)
        await settle()
        may_go_on.set()
        await done(stage, 60)

        assert decode_failure(await kept(stage, call_ids[MEMORY_INPUTS]))[0].kind == "cancelled"
        assert runs(stage) == 59


async def test_a_count_that_has_gone_wrong_disturbs_nobody() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        for number in range(30):
            await spawn(stage, spec.function_id, number)

        stage.plane.durable.backlog.count_off(spec.function_id, 1_000)

        assert len(stage.plane.durable.backlog) == 0
        await stage.client.connect()


async def test_spawn_that_is_repeated_while_it_waits_runs_once() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call_ids = [await spawn(stage, spec.function_id, number) for number in range(60)]

        for number in (5, 40, 59):
            await spawn(stage, spec.function_id, number, call_id=call_ids[number])
        stage.node.is_slow_to_load = False
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await done(stage, 60)
        await stage.pass_time(2.0)

        assert runs(stage) == 60


async def test_pages_that_cannot_be_read_are_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        read, failures = stage.store.unfinished_inputs, 3

        async def fail_at_first(*args: object, **kwargs: object) -> object:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise PlatformError(UNAVAILABLE, "the database cannot be reached")
            return await read(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(stage.store, "unfinished_inputs", fail_at_first)
        for number in range(60):
            await spawn(stage, spec.function_id, number)
        await done(stage, 60)

        assert runs(stage) == 60


# Cancelling


async def test_cancelled_call_is_not_run_by_the_server_after_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call_ids = [await spawn(stage, spec.function_id, number) for number in range(60)]
        put_outputs = stage.store.put_outputs

        async def never(outputs: object) -> tuple[bool, ...]:
            await asyncio.Event().wait()
            return ()

        monkeypatch.setattr(stage.store, "put_outputs", never)
        monkeypatch.setattr(control_plane, "SETTLE_S", 0.0)
        for number in (3, 50):  # in memory, and in the store only
            await stage.client.ask("CallCancel", CallCancel(call_ids[number]), Empty)
        await stage.restart()
        monkeypatch.setattr(stage.store, "put_outputs", put_outputs)
        await stage.restart()
        stage.node.is_slow_to_load = False
        await stage.client.connect()
        await stage.take_up(spec)
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await done(stage, 60)

        assert [decode_failure(await kept(stage, call_ids[number]))[0].kind for number in (3, 50)] == ["cancelled"] * 2
        assert runs(stage) == 58


async def test_what_a_container_runs_of_a_cancelled_call_is_stopped_after_a_restart() -> None:
    async def forever(guest: FakeGuest, value: bytes) -> bytes:
        await asyncio.Event().wait()
        return value

    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = forever
        call_id = await spawn(stage, spec.function_id, 7)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        (guest,) = stage.node.started
        guest.disconnect()  # it does not hear of the cancellation

        await stage.client.ask("CallCancel", CallCancel(call_id), Empty)
        await stage.restart()
        await stage.until(lambda: not guest.running)
        await done(stage, 1)

        assert decode_failure(await kept(stage, call_id))[0].kind == "cancelled"
        assert runs(stage) == 1


async def test_what_a_container_runs_of_a_call_in_the_store_is_stopped_when_it_is_cancelled() -> None:
    async def forever(guest: FakeGuest, value: bytes) -> bytes:
        await asyncio.Event().wait()
        return value

    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = forever
        first = await spawn(stage, spec.function_id, 7)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        (guest,) = stage.node.started
        for number in range(60):
            await spawn(stage, spec.function_id, number)
        # As if it had been made last: after the restart it is not among the calls that are read at once.
        assert isinstance(stage.store, MemoryStore)
        stage.store._portions[first] = [replace(stage.store._portions[first][0], made_at=1e12)]
        await stage.restart()
        assert stage.plane.calls.get(first) is None
        assert guest.running

        await stage.client.connect()
        await stage.client.ask("CallCancel", CallCancel(first), Empty)
        await stage.until(lambda: (first, 0) not in guest.running)

        assert decode_failure(await kept(stage, first))[0].kind == "cancelled"


async def test_call_that_is_cancelled_while_many_outputs_wait_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "UNKEPT_MAX", 0)
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        other = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call_ids = [await spawn(stage, spec.function_id, number) for number in range(60)]
        waiting = await spawn(stage, other.function_id, 1)
        put_outputs, may_go_on = stage.store.put_outputs, asyncio.Event()

        async def slow(outputs: tuple[StoredOutput, ...]) -> tuple[bool, ...]:
            await may_go_on.wait()
            return await put_outputs(outputs)

        monkeypatch.setattr(stage.store, "put_outputs", slow)
        await stage.client.ask("CallCancel", CallCancel(waiting), Empty)
        cancelling = asyncio.ensure_future(stage.client.ask("CallCancel", CallCancel(call_ids[MEMORY_INPUTS]), Empty))
        await settle()
        stage.node.is_slow_to_load = False
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await stage.until(lambda: runs(stage) >= MEMORY_INPUTS)
        await stage.pass_time(0.5)
        may_go_on.set()
        await done(stage, 61)
        await cancelling

        assert runs(stage) == 59


async def test_call_that_is_cancelled_before_its_spawn_is_answered_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        put_call, is_kept, may_go_on = stage.store.put_call, asyncio.Event(), asyncio.Event()

        async def wait_after(stored: StoredCall, inputs: tuple[StoredInput, ...]) -> object:
            result = await put_call(stored, inputs)
            is_kept.set()
            await may_go_on.wait()
            return result

        monkeypatch.setattr(stage.store, "put_call", wait_after)
        call_id = new_id("fc")
        spawning = asyncio.ensure_future(spawn(stage, spec.function_id, 7, call_id=call_id))
        await stage.until(is_kept.is_set)
        await stage.client.ask("CallCancel", CallCancel(call_id), Empty)
        may_go_on.set()
        await spawning
        await stage.pass_time(2.0)

        assert decode_failure(await kept(stage, call_id))[0].kind == "cancelled"
        assert runs(stage) == 0


async def test_spawn_that_is_repeated_after_its_cancellation_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call_id = await spawn(stage, spec.function_id, 7)
        put_outputs, may_go_on = stage.store.put_outputs, asyncio.Event()

        async def slow(outputs: tuple[StoredOutput, ...]) -> tuple[bool, ...]:
            await may_go_on.wait()
            return await put_outputs(outputs)

        monkeypatch.setattr(stage.store, "put_outputs", slow)
        await stage.client.ask("CallCancel", CallCancel(call_id), Empty)
        await spawn(stage, spec.function_id, 7, call_id=call_id)
        may_go_on.set()
        stage.node.is_slow_to_load = False
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await stage.pass_time(2.0)

        assert runs(stage) == 0


async def test_call_that_a_wrong_count_passes_over_is_cancelled_too() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call_ids = [await spawn(stage, spec.function_id, number) for number in range(30)]
        stage.plane.durable.backlog.count_off(spec.function_id, 1_000)

        await stage.client.ask("CallCancel", CallCancel(call_ids[-1]), Empty)
        await settle()

        assert decode_failure(await kept(stage, call_ids[-1]))[0].kind == "cancelled"


async def test_cancellation_that_the_store_cannot_keep_is_refused_and_stops_what_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def forever(guest: FakeGuest, value: bytes) -> bytes:
        await asyncio.Event().wait()
        return value

    async def fail(call_id: str) -> StoredCall:
        raise PlatformError(UNAVAILABLE, "the database cannot be reached")

    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = forever
        call_id = await spawn(stage, spec.function_id, 7)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        monkeypatch.setattr(stage.store, "cancel_call", fail)

        with pytest.raises(PlatformError, match="cannot be reached"):
            await stage.client.ask("CallCancel", CallCancel(call_id), Empty)
        await stage.until(lambda: not stage.node.started[0].running)
        await done(stage, 1)

        assert decode_failure(await kept(stage, call_id))[0].kind == "cancelled"
