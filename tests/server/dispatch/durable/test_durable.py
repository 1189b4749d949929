"""Durable calls: on disk before they are acknowledged, and again after the server's end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from squall.protocol import call as wire
from squall.protocol.app import AppStop
from squall.protocol.call import (
    CallCancel,
    CallGet,
    CallInfo,
    CallInfoGet,
    CallOpen,
    CallSpawn,
    CallSpawned,
    InputBatch,
    OutputBatch,
    decode_failure,
)
from squall.protocol.empty import Empty
from squall.protocol.errors import PlatformError
from squall.protocol.ids import new_id
from squall.server.model.config import ServerConfig
from squall.server.model.store import StoredOutput
from tests.server.doubles import FakeGuest, Stage, made_at, settle, staged


async def spawn(stage: Stage, function_id: str, call_id: str, value: bytes = b"7") -> None:
    record = CallSpawn(CallOpen(call_id, function_id, wire.SPAWN), InputBatch(call_id, (0,), (len(value),)))
    await stage.client.ask("CallSpawn", record, CallSpawned, value)


async def get(stage: Stage, call_id: str, timeout_s: float = 0.0) -> tuple[OutputBatch, bytes]:
    assert stage.client.peer is not None
    return await stage.client.peer.request_with_body("CallGet", CallGet(call_id, 0, timeout_s), OutputBatch)


async def info(stage: Stage, call_id: str) -> CallInfo:
    found: CallInfo = await stage.client.ask("CallInfo", CallInfoGet(call_id), CallInfo)
    return found


async def cancel(stage: Stage, call_id: str) -> None:
    await stage.client.ask("CallCancel", CallCancel(call_id), Empty)


async def test_spawned_call_is_kept_run_and_its_output_kept() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = new_id("fc")

        await spawn(stage, spec.function_id, call_id)
        assert (await stage.store.get_call(call_id)).input_count == 1
        getting = asyncio.ensure_future(get(stage, call_id, 30.0))
        await stage.until(getting.done)

        record, body = getting.result()
        assert record.statuses == (wire.SUCCEEDED,)
        assert body == b"14"
        assert (await get(stage, call_id))[1] == b"14"
        assert len(stage.plane.calls) == 0


@pytest.mark.parametrize("index", [1, -1])
async def test_output_of_an_input_that_the_call_does_not_have_is_refused(index: int) -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = new_id("fc")
        await spawn(stage, spec.function_id, call_id)

        with pytest.raises(PlatformError, match=f"has index {index}: it has 1 input, of index 0") as caught:
            await stage.client.ask("CallGet", CallGet(call_id, index, 30.0), OutputBatch)

        assert caught.value.code == "invalid"


async def test_output_that_no_database_takes_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        put_outputs = stage.store.put_outputs

        async def put(outputs: tuple[StoredOutput, ...]) -> tuple[bool, ...]:
            if any(output.value == b"14" for output in outputs):
                raise OverflowError("too large")
            return await put_outputs(outputs)

        monkeypatch.setattr(stage.store, "put_outputs", put)
        bad, good = new_id("fc"), new_id("fc")
        await spawn(stage, spec.function_id, bad)
        await spawn(stage, spec.function_id, good, b"8")
        getting = [asyncio.ensure_future(get(stage, call_id, 30.0)) for call_id in (bad, good)]
        await stage.until(lambda: all(one.done() for one in getting))

        assert [one.result()[0].statuses for one in getting] == [(wire.FAILED,), (wire.SUCCEEDED,)]
        assert "cannot be kept: OverflowError" in decode_failure(getting[0].result()[1])[0].message
        assert (await get(stage, bad))[0].statuses == (wire.FAILED,)


@pytest.mark.parametrize(
    "batch",
    [
        InputBatch("", (0, 0), (1, 1)),
        InputBatch("", (-1, 1), (1, 1)),
        InputBatch("", (0, 2), (1, 1)),
        InputBatch("", (0, 1), (2, -1), (), {"1": "x"}),
    ],
    ids=["an index twice", "a negative index", "an index left out", "no blob"],
)
async def test_inputs_that_no_database_takes_are_refused(batch: InputBatch) -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = new_id("fc")
        record = CallSpawn(CallOpen(call_id, spec.function_id, wire.SPAWN), replace(batch, call_id=call_id))

        with pytest.raises(PlatformError) as refused:
            await stage.client.ask("CallSpawn", record, CallSpawned, b"77")

        assert refused.value.code == "invalid"
        with pytest.raises(PlatformError, match="no call"):
            await stage.store.get_call(call_id)


async def test_call_keeps_ids_and_words_and_no_texts() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = new_id("fc")
        for opened in (
            CallOpen(call_id, spec.function_id, "x" * 1_000),
            CallOpen(call_id, spec.function_id, wire.SPAWN, "in-" + "x" * 1_000),
        ):
            with pytest.raises(PlatformError, match="is no word") as refused:
                await stage.client.ask(
                    "CallSpawn", CallSpawn(opened, InputBatch(call_id, (0,), (1,))), CallSpawned, b"7"
                )

            assert refused.value.code == "invalid"


async def test_output_that_is_not_there_is_an_answer_without_index() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.is_slow_to_load = True
        call_id = new_id("fc")
        await spawn(stage, spec.function_id, call_id)

        at_once = await get(stage, call_id)
        waiting = asyncio.ensure_future(get(stage, call_id, 2.0))
        await stage.pass_time(2.5)

        assert at_once[0].indexes == ()
        assert waiting.result()[0].indexes == ()
        info = await stage.client.ask("CallInfo", CallInfoGet(call_id), CallInfo)
        assert info.statuses == ("queued",)


async def test_repeated_spawn_starts_nothing_twice() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = new_id("fc")

        await spawn(stage, spec.function_id, call_id)
        await spawn(stage, spec.function_id, call_id)
        await stage.pass_time(1.0)
        await spawn(stage, spec.function_id, call_id)
        await stage.pass_time(1.0)

        assert sum(len(guest.received) for guest in stage.node.started) == 1


async def test_spawned_call_survives_its_client_and_the_server() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.is_slow_to_load = True
        call_id = new_id("fc")
        await spawn(stage, spec.function_id, call_id)

        await stage.restart()
        stage.node.is_slow_to_load = False
        await stage.client.connect()
        await stage.take_up(spec)
        getting = asyncio.ensure_future(get(stage, call_id, 30.0))
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await stage.until(getting.done)

        assert getting.result()[1] == b"14"


async def test_results_are_forgotten_after_their_time_and_said_to_have_expired() -> None:
    assert ServerConfig().results_kept_s == 7 * 24 * 3600

    async with staged(ServerConfig(results_kept_s=3_000.0)) as stage:
        spec = await stage.client.function(scaledown_window_s=1e9)
        call_id = made_at(stage.clock.now())
        await spawn(stage, spec.function_id, call_id)
        await stage.pass_time(2.0)

        stage.clock.advance(2_900.0)
        await settle()
        assert (await get(stage, call_id))[1] == b"14"
        stage.clock.advance(800.0)
        await settle()

        for ask in (get(stage, call_id), get(stage, call_id, 5.0), info(stage, call_id), cancel(stage, call_id)):
            with pytest.raises(PlatformError, match="expired") as gone:
                await ask
            assert gone.value.code == "expired"


async def test_stopping_the_app_ends_spawned_calls() -> None:
    async def forever(guest: FakeGuest, value: bytes) -> bytes:
        await asyncio.Event().wait()
        return value

    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = forever
        call_id = new_id("fc")
        await spawn(stage, spec.function_id, call_id)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        await stage.client.ask("AppStop", AppStop(spec.app_id), Empty)
        record, body = await get(stage, call_id, 1.0)

        assert record.statuses == (wire.CANCELLED,)
        assert wire.decode_failure(body)[0].kind == "stopped"


async def test_call_that_does_not_exist_is_not_found() -> None:
    async with staged() as stage:
        call_id = made_at(stage.clock.now() - stage.config.results_kept_s + 60.0)
        for ask in (get(stage, call_id), get(stage, call_id, 5.0), info(stage, call_id), cancel(stage, call_id)):
            with pytest.raises(PlatformError, match="never was") as missing:
                await ask
            assert missing.value.code == "not_found"


async def test_generators_cannot_be_spawned() -> None:
    async with staged() as stage:
        spec = await stage.client.function(is_generator=True)

        with pytest.raises(PlatformError, match="remote_gen"):
            await spawn(stage, spec.function_id, new_id("fc"))
