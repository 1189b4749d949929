"""Parents that fill every place and wait for calls of their own: one call fails, the others go on."""

from __future__ import annotations

import asyncio

import pytest

from squall.protocol import call as wire
from squall.protocol.call import SPAWN, CallGet, CallOpen, CallSpawn, CallSpawned, InputBatch, OutputBatch
from squall.protocol.function import FunctionCreate, FunctionCreated, FunctionSpec
from squall.protocol.ids import input_id, new_id
from squall.server.dispatch.fleet.standstill import STANDSTILL_S
from squall.server.model.config import ServerConfig
from tests.server.doubles import Failed, FakeClient, FakeGuest, Stage, make_spec, settle, staged

FULL = ServerConfig(containers_per_node_max=2)


async def make_pair(stage: Stage) -> tuple[FunctionSpec, FunctionSpec]:
    app_id = await stage.client.app()
    specs = (make_spec(app_id, "outer"), make_spec(app_id, "inner"))
    await stage.client.ask("FunctionCreate", FunctionCreate(specs), FunctionCreated)
    return specs


async def wait_by_call(inside: FakeClient, inner: FunctionSpec, value: bytes, own: str) -> tuple[int, bytes]:
    call = inside.call(inner.function_id, int(value), parent=own)
    while not call.outputs:  # noqa: ASYNC110 - the test's clock decides when
        await asyncio.sleep(0)
    inside.close_call(call)
    await settle(5)
    return call.outputs[0].status, call.outputs[0].value


async def wait_by_get(inside: FakeClient, inner: FunctionSpec, value: bytes, own: str) -> tuple[int, bytes]:
    call_id = new_id("fc")
    record = CallSpawn(CallOpen(call_id, inner.function_id, SPAWN, own), InputBatch(call_id, (0,), (len(value),)))
    await inside.ask("CallSpawn", record, CallSpawned, value)
    assert inside.peer is not None
    output, body = await inside.peer.request_with_body("CallGet", CallGet(call_id, 0, 50.0, own), OutputBatch)
    return output.statuses[0], body


@pytest.mark.parametrize("wait", [wait_by_call, wait_by_get])
async def test_one_call_fails_and_the_rest_goes_on(wait: object) -> None:
    async with staged(FULL) as stage:
        outer, inner = await make_pair(stage)

        async def run(guest: FakeGuest, value: bytes) -> bytes:
            if guest.function_id == inner.function_id:
                return value + b"!"
            inside = await FakeClient(stage.plane, stage.codec).connect_inside(guest.container_id)
            (call_id, index), *_ = guest.running
            status, body = await wait(inside, inner, value, input_id(call_id, index))  # type: ignore[operator]
            if status != wire.SUCCEEDED:
                raise Failed("user", wire.decode_failure(body)[0].message)
            return bytes(body)

        stage.node.run = run
        call = stage.client.call(outer.function_id, 1, 2)
        await stage.pass_time(STANDSTILL_S - 2.0, 0.25)
        assert not call.outputs
        await stage.pass_time(10.0, 0.25)

        ended = sorted(call.outputs.values(), key=lambda got: got.status)
        assert [got.status for got in ended] == [wire.SUCCEEDED, wire.FAILED]
        assert "all wait for calls of their own" in ended[1].failure.message
        assert not any(one.is_waiting for one in stage.plane.fleet.containers.values())


async def test_full_node_that_works_is_no_standstill() -> None:
    async with staged(FULL) as stage:
        outer, inner = await make_pair(stage)
        gate = asyncio.Event()

        async def run(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = run
        busy = stage.client.call(outer.function_id, 1, 2)
        waiting = stage.client.call(inner.function_id, 3)
        await stage.pass_time(3 * STANDSTILL_S, 0.25)
        assert not busy.outputs
        assert not waiting.outputs
        gate.set()

        assert (await stage.done(waiting, 1))[0].value == b"3"
