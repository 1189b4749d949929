"""Calls that go on under the next server, and what that one tells of the time before it."""

from __future__ import annotations

import asyncio

from squall.protocol import call as wire
from squall.protocol.call import CallOpen, CallSpawn, CallSpawned, InputBatch
from squall.protocol.flight import CallList, CallListing
from squall.protocol.function import FunctionCreate, FunctionCreated
from squall.protocol.ids import new_id
from squall.server.store.memory import MemoryStore
from tests.server.dispatch.flight.test_recorder import fail, listed, show
from tests.server.doubles import Failed, FakeGuest, make_spec, staged


async def test_name_of_an_app_means_all_its_runs_also_after_a_restart() -> None:
    store = MemoryStore()
    async with staged(store=store) as stage:
        stage.node.run = fail
        calls = []
        for name in ("hello", "other", "hello"):
            spec = make_spec(await stage.client.app(name), name="f")
            await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
            calls.append(stage.client.call(spec.function_id, 1))
            await stage.done(calls[-1], 1)
            await stage.pass_time(2.0)
        first, _, second = (call.call_id for call in calls)

        assert await listed(stage, app="hello") == [second, first]
        assert await listed(stage, app="hello", function="f", is_failed=True) == [second, first]
        assert await listed(stage, app="hello", limit=1) == [second]
        assert await listed(stage, app=spec.app_id) == [second]
    async with staged(store=store) as stage:
        assert await listed(stage, app="hello", function="f") == [second, first]


async def test_map_that_goes_on_under_the_next_server_keeps_what_the_one_before_had_written() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        gate = asyncio.Event()

        async def run(guest: FakeGuest, value: bytes) -> bytes:
            if value in b"34":
                await gate.wait()
            if value in b"14":
                raise Failed("user", f"no {value.decode()}")
            return value

        stage.node.run = run
        call = stage.client.call(spec.function_id, *range(5))
        await stage.done(call, 3)
        await stage.pass_time(2.0)
        before = await show(stage, call.call_id)
        await stage.restart()
        await stage.client.connect()
        await stage.take_up(spec)
        stage.client.resume(call, {index: str(index).encode() for index in range(5)})
        await stage.pass_time(4.0)

        flight = await show(stage, call.call_id)

        assert flight.counts == {"succeeded": 2, "failed": 1, "running": 1, "queued": 1}
        assert flight.summary.created_at == before.summary.created_at
        assert (flight.summary.status, flight.summary.input_count, flight.summary.failed_count) == ("failed", 5, 1)
        assert flight.inputs[:3] == before.inputs[:3]
        assert "started again while it ran" in flight.gaps
        (served,) = flight.containers
        assert (served.container.state, served.is_adopted, "ready" in served.container.phase_ms) == (
            "busy",
            False,
            True,
        )
        assert await listed(stage, is_failed=True) == [call.call_id]

        gate.set()
        await stage.done(call, 5)
        await stage.pass_time(2.0)
        flight = await show(stage, call.call_id, is_failed=True)
        assert [one.index for one in flight.inputs] == [1, 4]
        assert (flight.summary.input_count, flight.summary.failed_count) == (5, 2)
        stage.client.close_call(call)
        await stage.pass_time(2.0)

        await stage.restart()
        await stage.client.connect()
        kept = await show(stage, call.call_id, is_failed=True)
        assert kept.inputs == flight.inputs
        assert kept.summary == flight.summary


async def test_container_that_is_gone_is_not_said_to_be_busy() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = fail
        call = stage.client.call(spec.function_id, *range(2))
        await stage.done(call, 2)
        await stage.pass_time(2.0)

        await stage.restart(is_reconnecting=False)
        await stage.client.connect()
        for guest in list(stage.node.guests.values()):
            guest.exit(1)
        await stage.pass_time(5.0)

        flight = await show(stage, call.call_id)
        assert {one.container.state for one in flight.containers} == {"stopped"}


async def test_durable_call_that_goes_on_under_the_next_server_is_told_as_a_whole() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        gate = asyncio.Event()

        async def run(guest: FakeGuest, value: bytes) -> bytes:
            if value in b"34":
                await gate.wait()
            if value in b"1":
                raise Failed("user", "no 1")
            return value

        stage.node.run = run
        call_id = new_id("fc")
        batch = InputBatch(call_id, tuple(range(5)), (1,) * 5)
        record = CallSpawn(CallOpen(call_id, spec.function_id, wire.SPAWN_MAP), batch)
        await stage.client.ask("CallSpawn", record, CallSpawned, b"01234")
        await stage.pass_time(1.0)
        await stage.restart()
        await stage.client.connect()
        await stage.take_up(spec)
        await stage.pass_time(4.0)

        flight = await show(stage, call_id)

        assert flight.counts == {"succeeded": 2, "failed": 1, "running": 1, "queued": 1}
        assert (flight.summary.status, flight.summary.input_count, flight.summary.failed_count) == ("failed", 5, 1)
        assert [one.status for one in flight.inputs] == ["succeeded", "failed", "succeeded", "running", "queued"]
        assert "started again" in flight.gaps
        listing: CallListing = await stage.client.ask("CallList", CallList(), CallListing)
        assert [(one.status, one.input_count, one.failed_count) for one in listing.calls] == [("failed", 5, 1)]
        assert await listed(stage, is_failed=True) == [call_id]

        gate.set()
        await stage.pass_time(1.0)
        flight = await show(stage, call_id)
        assert flight.counts == {"succeeded": 4, "failed": 1}
        assert (await show(stage, call_id, is_failed=True)).inputs == flight.inputs[1:2]
