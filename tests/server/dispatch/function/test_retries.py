"""Retries, in every kind of call; what cuts them short; and clocks that are set meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from squall.protocol import call as wire
from squall.protocol.app import AppStop, AppStopped
from squall.protocol.call import CallCancel, CallGet, CallOpen, CallSpawn, CallSpawned, InputBatch, OutputBatch
from squall.protocol.empty import Empty
from squall.protocol.function import FunctionCreate, FunctionCreated, FunctionSpec, RetryPolicy
from squall.protocol.ids import input_id, new_id
from squall.protocol.log import SYSTEM
from tests.server.doubles import Failed, FakeGuest, Stage, make_spec, settle, staged


async def fail(guest: FakeGuest, value: bytes) -> bytes:
    """Every attempt fails, and says which it was."""
    raise Failed("user", f"attempt {guest.begun[-1][1]}")


async def spawn(stage: Stage, spec: FunctionSpec, *values: bytes) -> str:
    """A durable call."""
    call_id = new_id("fc")
    batch = InputBatch(call_id, tuple(range(len(values))), tuple(len(value) for value in values))
    record = CallSpawn(CallOpen(call_id, spec.function_id, wire.SPAWN), batch)
    await stage.client.ask("CallSpawn", record, CallSpawned, b"".join(values))
    return call_id


async def output(stage: Stage, call_id: str, index: int = 0) -> tuple[int, bytes]:
    """What a durable call says of an input now."""
    assert stage.client.peer is not None
    record, body = await stage.client.peer.request_with_body("CallGet", CallGet(call_id, index, 0.0), OutputBatch)
    assert record.indexes, "there is no output yet"
    return record.statuses[0], bytes(body)


async def test_every_input_of_a_map_has_retries_of_its_own() -> None:
    async with staged() as stage:
        spec = await stage.client.function(retries=2, max_containers=2)
        tries: dict[bytes, int] = {}

        async def fail_as_often(guest: FakeGuest, value: bytes) -> bytes:
            tries[value] = tries.get(value, 0) + 1
            if tries[value] <= int(value):
                raise Failed("user", f"try {tries[value]}")
            return value

        stage.node.run = fail_as_often
        call = stage.client.call(spec.function_id, 0, 1, 2, 3)
        await stage.pass_time(8.0)

        assert [call.outputs[index].status for index in range(4)] == [wire.SUCCEEDED] * 3 + [wire.FAILED]
        assert [call.outputs[index].attempt for index in range(4)] == [0, 1, 2, 2]
        assert tries == {b"0": 1, b"1": 2, b"2": 3, b"3": 3}


async def test_spawned_input_is_retried_and_its_last_failure_is_kept() -> None:
    async with staged() as stage:
        spec = await stage.client.function(retries=2)
        stage.node.run = fail
        call_id = await spawn(stage, spec, b"1")

        await stage.pass_time(8.0)
        status, body = await output(stage, call_id)

        assert status == wire.FAILED
        assert wire.decode_failure(body)[0].message == "attempt 2"


def said(stage: Stage) -> list[str]:
    """What Squall itself has put into the app's log."""
    return [entry.text for entry in stage.logs.entries if entry.source == SYSTEM]


async def test_log_says_which_attempt_failed_and_when_the_next_one_follows() -> None:
    async with staged() as stage:
        spec = await stage.client.function(retries=2)
        stage.node.run = fail

        call = stage.client.call(spec.function_id, 1)
        await stage.pass_time(8.0)

        assert said(stage) == [
            "attempt 1 of 3 failed: attempt 0; the next one follows in 1 s",
            "attempt 2 of 3 failed: attempt 1; the next one follows in 2 s",
        ]
        entries = [entry for entry in stage.logs.entries if entry.source == SYSTEM]
        assert {entry.input_id for entry in entries} == {input_id(call.call_id, 0)}
        assert all(entry.container_id.startswith("ct-") for entry in entries)


async def test_log_says_that_an_input_whose_container_ended_is_run_again() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        deaths = 0

        async def die_once(guest: FakeGuest, value: bytes) -> bytes:
            nonlocal deaths
            deaths += 1
            if deaths == 1:
                guest.exit(3)
                await asyncio.Event().wait()
            return value

        stage.node.run = die_once
        call = stage.client.call(spec.function_id, 1, 2)
        await stage.pass_time(10.0)

        assert len(call.outputs) == 2
        assert said(stage) == ["container ended: exit code 3", "input 0 that it held is run again, as attempt 2"]


async def test_log_says_which_input_is_run_again_when_its_container_ended() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = lambda guest, value: asyncio.sleep(1e9, value)
        stage.client.call(spec.function_id, 1)
        await stage.pass_time(1.0)

        next(guest for guest in stage.node.guests.values() if guest.running).exit(3)
        await stage.pass_time(1.0)

        assert said(stage) == ["container ended: exit code 3", "the input that it held is run again, as attempt 2"]


async def test_of_many_attempts_that_fail_the_log_tells_the_number() -> None:
    async with staged() as stage:
        spec = await stage.client.function(retries=1)
        stage.node.run = fail

        stage.client.call(spec.function_id, *range(200))
        await stage.pass_time(60.0)

        lines = said(stage)
        counts = [int(line.split()[0]) for line in lines if line[0].isdigit()]
        assert len(lines) - len(counts) + sum(counts) == 200
        assert len(lines) < 100


async def test_longest_delay_is_that_of_the_policy() -> None:
    async with staged() as stage:
        spec = make_spec(await stage.client.app())
        policy = RetryPolicy(3, backoff_coefficient=10.0, initial_delay_s=2.0, max_delay_s=5.0)
        spec = replace(spec, retries=policy)
        await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
        times: list[float] = []

        async def note_and_fail(guest: FakeGuest, value: bytes) -> bytes:
            times.append(stage.clock.monotonic())
            raise Failed

        stage.node.run = note_and_fail
        stage.client.call(spec.function_id, 1)
        await stage.pass_time(15.0)

        delays = [later - sooner for sooner, later in pairwise(times)]
        assert [round(delay) for delay in delays] == [2, 5, 5]


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_input_that_waits_for_its_retry_is_cancelled_at_once_and_never_runs(is_stopped: bool) -> None:
    async with staged() as stage:
        spec = await stage.client.function(retries=5)
        stage.node.run = fail
        call = stage.client.call(spec.function_id, 1)
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        await stage.until(lambda: dispatcher.delayed)
        begun = sum(len(guest.begun) for guest in stage.node.started)

        if is_stopped:
            await stage.client.ask("AppStop", AppStop(spec.app_id), AppStopped)
        else:
            await stage.client.ask("CallCancel", CallCancel(call.call_id), Empty)
        await settle()

        assert call.outputs[0].status == wire.CANCELLED
        assert is_stopped or b"was cancelled while it waited for its attempt 2" in call.outputs[0].value
        await stage.pass_time(10.0)
        assert sum(len(guest.begun) for guest in stage.node.started) == begun
        assert dispatcher.delayed == 0
        assert stage.plane.calls.waiting_bytes == 0


async def test_timeout_after_the_last_retry_is_a_timeout() -> None:
    async with staged() as stage:
        spec = await stage.client.function(retries=1, timeout_s=1.0)

        async def forever(guest: FakeGuest, value: bytes) -> bytes:
            await asyncio.Event().wait()
            return value

        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        await stage.pass_time(6.0)

        assert call.outputs[0].status == wire.TIMED_OUT
        assert call.outputs[0].attempt == 1
        assert "timeout of 1 s" in call.outputs[0].failure.message


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
async def test_clock_that_is_set_neither_hastens_nor_loses_anything(jump_s: float) -> None:
    async with staged() as stage:
        spec = await stage.client.function(retries=1, timeout_s=5.0)
        stage.node.run = fail
        before = await spawn(stage, spec, b"1")
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        await stage.until(lambda: dispatcher.delayed)

        stage.clock.set_wall(jump_s)
        await settle()
        assert dispatcher.delayed == 1, "a retry waits for time that passes, not for what a clock says"
        stage.node.run = lambda guest, value: asyncio.sleep(0, value + b"!")
        after = [await spawn(stage, spec, b"%d" % number) for number in range(5)]
        await stage.pass_time(3.0)
        await stage.restart()
        await stage.client.connect()
        last = await spawn(stage, spec, b"9")
        await stage.pass_time(5.0)

        assert await output(stage, before) == (wire.SUCCEEDED, b"1!")
        assert [await output(stage, one) for one in after] == [(wire.SUCCEEDED, b"%d!" % number) for number in range(5)]
        assert await output(stage, last) == (wire.SUCCEEDED, b"9!")
