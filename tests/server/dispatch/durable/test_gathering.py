"""Outputs of many durable calls for one question."""

from __future__ import annotations

import asyncio

import pytest

from squall.protocol.call import (
    FAILED,
    SPAWN_MAP,
    SUCCEEDED,
    CallGather,
    CallOpen,
    CallSpawn,
    CallSpawned,
    InputBatch,
    OutputBatch,
    SpawnBatch,
)
from squall.protocol.empty import Empty
from squall.protocol.errors import PlatformError
from squall.protocol.ids import new_id
from squall.server.dispatch.durable import gathering
from squall.server.dispatch.durable.gathering import LINGER_S
from squall.server.model.store import StoredOutput
from tests.server.doubles import FakeGuest, Stage, made_at, settle, staged


async def spawn(stage: Stage, function_id: str, values: tuple[bytes, ...]) -> tuple[str, ...]:
    call_ids = tuple(new_id("fc") for _ in values)
    batch = SpawnBatch(function_id, call_ids, tuple(len(value) for value in values))
    await stage.client.ask("CallSpawnMany", batch, Empty, b"".join(values))
    return call_ids


async def gather(stage: Stage, call_ids: tuple[str, ...], timeout_s: float = 0.0) -> tuple[OutputBatch, bytes]:
    assert stage.client.peer is not None
    asked = CallGather(call_ids, timeout_s)
    return await stage.client.peer.request_with_body("CallGather", asked, OutputBatch, timeout_s=200.0)


async def done(stage: Stage, call_ids: tuple[str, ...]) -> None:
    """Wait until all have an output in the store."""
    await stage.until(lambda: not any(stage.plane.durable.is_unfinished(call_id, 0) for call_id in call_ids))
    await settle()


async def echo(guest: FakeGuest, value: bytes) -> bytes:
    return value


async def held(guest: FakeGuest, value: bytes) -> bytes:
    """Runs until the test is over, but what says that it need not."""
    if value != b"now":
        await asyncio.Event().wait()
    return value


async def test_outputs_that_are_there_come_in_one_answer_under_the_numbers_of_their_calls() -> None:
    async with staged() as stage:
        one, other = await stage.client.function(), await stage.client.function(name="other")
        stage.node.run = echo
        call_ids = await spawn(stage, one.function_id, (b"a", b"bb")) + await spawn(stage, other.function_id, (b"ccc",))
        await done(stage, call_ids)

        found, body = await gather(stage, call_ids[::-1])

        assert (found.indexes, found.statuses, body) == ((0, 1, 2), (SUCCEEDED,) * 3, b"cccbba")


async def test_an_answer_waits_for_the_first_output_and_a_moment_for_more() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=10)
        stage.node.run = held
        call_ids = await spawn(stage, spec.function_id, (b"-", b"-", b"-", b"-", b"now"))

        asking = asyncio.ensure_future(gather(stage, call_ids, 30.0))
        await stage.until(lambda: not stage.plane.durable.is_unfinished(call_ids[4], 0))
        await settle()
        assert not asking.done()
        await stage.pass_time(2 * LINGER_S, LINGER_S)
        found, body = await asking

        assert (found.indexes, body) == ((4,), b"now")
        assert not stage.plane.durable._told


async def test_a_failure_is_answered_at_once() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = held
        call_ids = await spawn(stage, spec.function_id, (b"-",) * 5)

        asking = asyncio.ensure_future(gather(stage, call_ids, 30.0))
        await settle()
        stage.plane.durable._keep([StoredOutput(call_ids[3], 0, FAILED, b"why")])
        await settle()

        assert asking.done()
        assert ((await asking)[0].indexes, (await asking)[0].statuses) == ((3,), (FAILED,))


async def test_what_does_not_come_in_time_is_not_in_the_answer() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = held
        call_ids = await spawn(stage, spec.function_id, (b"-", b"-"))

        asking = asyncio.ensure_future(gather(stage, call_ids, 5.0))
        await stage.pass_time(6.0, 1.0)

        assert (await asking)[0].indexes == ()
        assert (await gather(stage, call_ids))[0].indexes == ()


async def test_an_answer_ends_when_it_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "BYTES_MAX", 10)
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = echo
        call_ids = await spawn(stage, spec.function_id, (b"sixsix",) * 4)
        await done(stage, call_ids)

        assert len((await gather(stage, call_ids))[0].indexes) == 2

        stage.node.run = held
        running = await spawn(stage, spec.function_id, (b"-",) * 4)
        asking = asyncio.ensure_future(gather(stage, running, 30.0))
        await settle()
        stage.plane.durable._keep([StoredOutput(call_id, 0, SUCCEEDED, b"sixsix") for call_id in running])
        await settle()

        assert (await asking)[0].indexes == (0, 1)


async def test_questions_that_cannot_be_answered_are_refused() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = held
        known = await spawn(stage, spec.function_id, (b"-",))
        empty = new_id("fc")
        spawned = CallSpawn(CallOpen(empty, spec.function_id, SPAWN_MAP), InputBatch(empty, (), ()))
        await stage.client.ask("CallSpawn", spawned, CallSpawned)
        asked = [
            ((), "invalid", "from 1 to 1,000 calls"),
            ((*known, *known), "invalid", "each once"),
            (tuple(new_id("fc") for _ in range(1_001)), "invalid", "from 1 to 1,000 calls"),
            ((*known, made_at(stage.clock.now())), "not_found", "it never was one of this server"),
            ((*known, empty), "invalid", "has no inputs"),
        ]
        for call_ids, code, message in asked:
            with pytest.raises(PlatformError, match=message) as refused:
                await gather(stage, call_ids, 30.0)
            assert refused.value.code == code
        assert not stage.plane.durable._told
