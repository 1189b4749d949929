"""Functions at their max_containers whose inputs wait for each other: one call fails, none that could still run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from squall.protocol import call as wire
from squall.protocol.call import SPAWN, CallGet, CallOpen, CallSpawn, CallSpawned, InputBatch, OutputBatch
from squall.protocol.function import Batching, FunctionCreate, FunctionCreated, FunctionSpec
from squall.protocol.ids import input_id, new_id
from squall.server.dispatch.fleet.standstill import STANDSTILL_S
from squall.server.model.config import ServerConfig
from tests.server.doubles import Failed, FakeCall, FakeClient, FakeGuest, Stage, make_spec, settle, staged

LONG_S = 4 * STANDSTILL_S

Wait = Callable[[FakeClient, str, bytes, str], Awaitable[tuple[int, bytes]]]


async def wait_by_call(inside: FakeClient, function_id: str, value: bytes, own: str) -> tuple[int, bytes]:
    call = inside.call(function_id, int(value), parent=own)
    while not call.outputs:  # noqa: ASYNC110 - the test's clock decides when
        await asyncio.sleep(0)
    inside.close_call(call)
    await settle(5)
    return call.outputs[0].status, call.outputs[0].value


async def wait_by_get(inside: FakeClient, function_id: str, value: bytes, own: str) -> tuple[int, bytes]:
    call_id = new_id("fc")
    record = CallSpawn(CallOpen(call_id, function_id, SPAWN, own), InputBatch(call_id, (0,), (len(value),)))
    await inside.ask("CallSpawn", record, CallSpawned, value)
    assert inside.peer is not None
    output, body = await inside.peer.request_with_body("CallGet", CallGet(call_id, 0, 50.0, own), OutputBatch)
    return output.statuses[0], body


async def wait_by_map(inside: FakeClient, function_id: str, value: bytes, own: str) -> tuple[int, bytes]:
    """Of three inputs, whatever becomes of the others."""
    call = inside.call(function_id, *[int(value)] * 3, parent=own)
    while len(call.outputs) < 3:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    inside.close_call(call)
    await settle(5)
    worst = max(call.outputs.values(), key=lambda got: got.status)
    return worst.status, worst.value


@dataclass
class Program:
    """Functions by name, each with the functions that it calls, one after the other, with a number that is one less."""

    stage: Stage
    calls: dict[str, tuple[str, ...]]
    wait: Wait = wait_by_call
    specs: dict[str, FunctionSpec] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """What a function waits for before it ends."""
    doors: dict[str, asyncio.Event] = field(default_factory=dict)
    """What a function waits for before it calls others."""
    clients: list[FakeClient] = field(default_factory=list)
    """Those inside containers, in the order in which their functions made calls."""
    is_at_once: bool = False
    """A function makes all its calls at the same time."""

    async def begin(self, max_inputs: int = 1, **max_containers: int | None) -> None:
        app_id = await self.stage.client.app()
        self.specs = {
            name: make_spec(app_id, name, max_containers=most, max_inputs=max_inputs)
            for name, most in max_containers.items()
        }
        await self.stage.client.ask("FunctionCreate", FunctionCreate(tuple(self.specs.values())), FunctionCreated)
        self.stage.node.run = self.run

    def call(self, name: str, *numbers: int) -> FakeCall:
        return self.stage.client.call(self.specs[name].function_id, *numbers)

    async def run(self, guest: FakeGuest, value: bytes) -> bytes:
        (name,) = (name for name, spec in self.specs.items() if spec.function_id == guest.function_id)
        called = self.calls.get(name, ()) if int(value) > 0 else ()
        if called:
            inside = await FakeClient(self.stage.plane, self.stage.codec).connect_inside(guest.container_id)
            self.clients.append(inside)
            call_id, index = [*guest.running][-1]
            if name in self.doors:
                await self.doors[name].wait()
            own, next_value = input_id(call_id, index), str(int(value) - 1).encode()
            waits = [self.wait(inside, self.specs[one].function_id, next_value, own) for one in called]
            ended = await asyncio.gather(*waits) if self.is_at_once else [await one for one in waits]
            for status, body in ended:
                if status != wire.SUCCEEDED:
                    raise Failed("user", wire.decode_failure(body)[0].message)
        if name in self.gates:
            await self.gates[name].wait()
        return value


@pytest.mark.parametrize("wait", [wait_by_call, wait_by_get])
@pytest.mark.parametrize("most", [1, 3])
async def test_function_that_calls_itself_deeper_than_it_has_containers_fails(wait: Wait, most: int) -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)}, wait)
        await program.begin(rec=most)

        call = program.call("rec", 3)
        await stage.pass_time(STANDSTILL_S - 2.0, 0.25)
        assert not call.outputs
        await stage.pass_time(6.0, 0.25)

        assert call.outputs[0].status == wire.FAILED
        message = call.outputs[0].failure.message
        assert f"function rec has as many containers as it may (max_containers={most})" in message
        assert "let more of them run" in message
        assert not any(one.is_busy for one in stage.plane.fleet.containers.values())


async def test_recursion_that_its_containers_suffice_for_is_left_alone() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)})
        await program.begin(rec=4)

        call = program.call("rec", 3)
        await stage.pass_time(LONG_S, 0.25)

        assert call.outputs[0].status == wire.SUCCEEDED


@pytest.mark.parametrize("wait", [wait_by_call, wait_by_get])
async def test_two_functions_that_call_each_other_fail_with_one_container_each(wait: Wait) -> None:
    async with staged() as stage:
        program = Program(stage, {"a": ("b",), "b": ("a",)}, wait)
        await program.begin(a=1, b=1)

        call = program.call("a", 5)
        await stage.pass_time(STANDSTILL_S + 4.0, 0.25)

        assert call.outputs[0].status == wire.FAILED
        assert "function a has as many containers" in call.outputs[0].failure.message


async def test_circle_through_a_function_without_a_limit_is_found() -> None:
    async with staged() as stage:
        program = Program(stage, {"a": ("free",), "free": ("a",)})
        await program.begin(a=1, free=None)

        call = program.call("a", 5)
        await stage.pass_time(STANDSTILL_S + 4.0, 0.25)

        assert "function a has as many containers" in call.outputs[0].failure.message


async def test_what_only_waits_for_the_circle_goes_on_after_it() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",), "other": ("rec",)}, doors={"rec": asyncio.Event()})
        await program.begin(rec=1, other=None)

        rec = program.call("rec", 1)
        await stage.pass_time(1.0, 0.25)
        other = program.call("other", 1)
        await stage.pass_time(1.0, 0.25)
        program.doors["rec"].set()
        await stage.pass_time(STANDSTILL_S + 6.0, 0.25)

        assert rec.outputs[0].status == wire.FAILED
        assert other.outputs[0].status == wire.SUCCEEDED


async def test_every_input_of_a_map_over_a_recursion_ends() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)})
        await program.begin(rec=2)

        call = program.call("rec", 1, 1, 0, 1, 0)
        await stage.pass_time(30.0, 0.25)

        assert len(call.outputs) == 5
        assert {call.outputs[index].status for index in (2, 4)} == {wire.SUCCEEDED}


async def test_all_inputs_of_a_map_in_the_function_itself_fail_together() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)}, wait_by_map)
        await program.begin(rec=1)

        call = program.call("rec", 1)
        await stage.pass_time(STANDSTILL_S + 3.0, 0.25)

        assert call.outputs[0].status == wire.FAILED


async def test_map_in_a_function_that_its_other_container_can_run_is_left_alone() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)}, wait_by_map)
        await program.begin(rec=2)

        call = program.call("rec", 1)
        await stage.pass_time(LONG_S, 0.25)

        assert call.outputs[0].status == wire.SUCCEEDED


async def test_circles_beside_each_other_are_broken_together() -> None:
    async with staged() as stage:
        program = Program(stage, {"one": ("one",), "two": ("two",)})
        await program.begin(one=1, two=1)

        calls = [program.call("one", 1), program.call("two", 1)]
        while not any(call.outputs for call in calls):
            await stage.pass_time(0.25, 0.25)
        await settle()

        assert all(call.outputs[0].status == wire.FAILED for call in calls)


async def test_work_elsewhere_does_not_hide_a_circle() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)}, gates={"long": asyncio.Event()})
        await program.begin(rec=1, long=None)

        busy = program.call("long", 0)
        call = program.call("rec", 1)
        await stage.pass_time(STANDSTILL_S + 3.0, 0.25)

        assert call.outputs[0].status == wire.FAILED
        assert not busy.outputs
        program.gates["long"].set()


async def test_call_that_waits_for_long_work_elsewhere_is_left_alone() -> None:
    async with staged() as stage:
        program = Program(stage, {"outer": ("middle",), "middle": ("long",)}, gates={"long": asyncio.Event()})
        await program.begin(outer=1, middle=1, long=1)

        calls = [program.call("outer", 2, 2), program.call("middle", 1)]
        await stage.pass_time(LONG_S, 0.25)
        assert not any(call.outputs for call in calls)
        program.gates["long"].set()
        await stage.pass_time(5.0, 0.25)

        ended = [got for call in calls for got in call.outputs.values()]
        assert [got.status for got in ended] == [wire.SUCCEEDED] * 3


async def test_circle_one_of_whose_members_also_waits_for_long_work_is_left_alone_until_that_ends() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec", "long")}, gates={"long": asyncio.Event()}, is_at_once=True)
        await program.begin(rec=1, long=None)

        call = program.call("rec", 1)
        await stage.pass_time(LONG_S, 0.25)
        assert not call.outputs
        program.gates["long"].set()
        await stage.pass_time(STANDSTILL_S + 3.0, 0.25)

        assert call.outputs[0].status == wire.FAILED


async def test_container_of_the_same_function_that_still_works_is_waited_for() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)}, gates={"rec": asyncio.Event()})
        await program.begin(rec=2)

        busy = program.call("rec", 0)
        await stage.pass_time(1.0, 0.25)
        call = program.call("rec", 1)
        await stage.pass_time(LONG_S, 0.25)
        assert not busy.outputs
        assert not call.outputs
        program.gates["rec"].set()
        await stage.pass_time(5.0, 0.25)

        assert call.outputs[0].status == wire.SUCCEEDED


async def test_input_handed_out_ahead_is_failed_and_never_begins() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)})
        await program.begin(rec=1)
        # Short inputs: the container is trusted with more than one at a time.
        await stage.done(program.call("rec", *[0] * 50), 50)

        call = program.call("rec", 1)
        await stage.pass_time(1.0, 0.25)
        (guest,) = stage.node.guests.values()
        assert guest.waiting
        await stage.pass_time(STANDSTILL_S + 3.0, 0.25)

        assert call.outputs[0].status == wire.FAILED
        assert not guest.waiting
        assert len(guest.begun) == 51
        assert (await stage.done(program.call("rec", 0), 1))[0].status == wire.SUCCEEDED


async def test_call_cancelled_meanwhile_is_no_circle() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)})
        await program.begin(rec=1)

        call = program.call("rec", 1)
        await stage.pass_time(STANDSTILL_S - 2.0, 0.25)
        stage.client.close_call(call)
        await stage.pass_time(LONG_S, 0.25)

        assert not any(one.is_busy for one in stage.plane.fleet.containers.values())


async def test_container_with_room_for_one_more_is_no_circle() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)}, gates={"rec": asyncio.Event()})
        await program.begin(max_inputs=3, rec=1)

        call = program.call("rec", 1)
        await stage.pass_time(LONG_S, 0.25)
        assert not call.outputs
        program.gates["rec"].set()
        await stage.pass_time(5.0, 0.25)

        assert call.outputs[0].status == wire.SUCCEEDED


async def test_container_with_all_its_places_taken_by_a_circle_fails_one() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)})
        await program.begin(max_inputs=3, rec=1)

        call = program.call("rec", 3)
        await stage.pass_time(STANDSTILL_S + 3.0, 0.25)

        assert call.outputs[0].status == wire.FAILED
        assert call.outputs[0].failure.kind == "user"


@pytest.mark.parametrize("is_circle", [True, False])
async def test_batch_waits_as_a_whole_for_what_one_of_its_inputs_calls(is_circle: bool) -> None:
    async with staged() as stage:
        app_id, ended = await stage.client.app(), asyncio.Event()
        spec = make_spec(app_id, "rec", max_containers=1, max_inputs=1 if is_circle else 2, batching=Batching(2, 0))
        await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)

        async def run(guest: FakeGuest, value: bytes) -> bytes:
            if value == b"0":
                return value
            if value == b"2":
                await ended.wait()  # all of a batch end together
                return value
            inside = await FakeClient(stage.plane, stage.codec).connect_inside(guest.container_id)
            status, body = await wait_by_call(inside, spec.function_id, b"0", input_id(call.call_id, 0))
            ended.set()
            if status != wire.SUCCEEDED:
                raise Failed("user", wire.decode_failure(body)[0].message)
            return value

        stage.node.run = run
        call = stage.client.call(spec.function_id, 1, 2)
        await stage.pass_time(STANDSTILL_S + 3.0, 0.25)

        assert call.outputs[0].status == (wire.FAILED if is_circle else wire.SUCCEEDED)
        if is_circle:
            assert "function rec has as many containers as it may" in call.outputs[0].failure.message


async def test_function_that_may_still_have_a_container_is_waited_for() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)})
        await program.begin(rec=2)
        await stage.done(program.call("rec", 0), 1)
        stage.node.crash_at_start = 1

        call = program.call("rec", 1)
        await stage.pass_time(LONG_S, 0.25)
        assert not call.outputs
        stage.node.crash_at_start = None
        await stage.pass_time(60.0, 0.25)

        assert call.outputs[0].status == wire.SUCCEEDED


async def test_container_whose_connection_is_gone_may_have_ended_its_input() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)})
        await program.begin(rec=1)

        call = program.call("rec", 1)
        await stage.pass_time(1.0, 0.25)
        (guest,) = stage.node.guests.values()
        guest.disconnect()
        await stage.pass_time(2 * STANDSTILL_S, 0.25)
        assert not call.outputs
        await guest.connect(is_reconnect=True)
        await stage.pass_time(STANDSTILL_S + 3.0, 0.25)

        assert call.outputs[0].status == wire.FAILED


async def test_input_that_was_told_to_stop_is_waited_for() -> None:
    config = ServerConfig(cancel_grace_s=LONG_S)
    async with staged(config) as stage:
        program = Program(stage, {"rec": ("rec",), "other": ("rec",)})
        await program.begin(rec=1, other=None)

        rec = program.call("rec", 1)
        await stage.pass_time(1.0, 0.25)
        other = program.call("other", 1)
        (guest,) = (one for one in stage.node.guests.values() if one.function_id == program.specs["rec"].function_id)
        guest.is_deaf = True
        stage.client.close_call(rec)
        await stage.pass_time(2 * STANDSTILL_S, 0.25)

        assert not other.outputs
        assert not program.clients[0].calls[next(iter(program.clients[0].calls))].outputs


async def test_input_of_a_durable_call_that_nobody_waits_for_is_not_failed_with_its_neighbour() -> None:
    spawned: list[str] = []

    async def wait_for_first(inside: FakeClient, function_id: str, value: bytes, own: str) -> tuple[int, bytes]:
        call_id = new_id("fc")
        spawned.append(call_id)
        inputs = InputBatch(call_id, (0, 1), (len(value), len(value)))
        record = CallSpawn(CallOpen(call_id, function_id, SPAWN, own), inputs)
        await inside.ask("CallSpawn", record, CallSpawned, value * 2)
        assert inside.peer is not None
        output, body = await inside.peer.request_with_body("CallGet", CallGet(call_id, 0, 50.0, own), OutputBatch)
        return output.statuses[0], body

    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)}, wait_for_first)
        await program.begin(rec=1)

        call = program.call("rec", 1)
        await stage.pass_time(STANDSTILL_S + 6.0, 0.25)

        assert call.outputs[0].status == wire.FAILED
        statuses = await stage.store.output_statuses(spawned[0])
        assert statuses == {0: wire.FAILED, 1: wire.SUCCEEDED}


async def test_input_that_runs_is_not_failed_with_the_rest_of_its_map() -> None:
    async with staged() as stage:
        program = Program(stage, {"rec": ("rec",)}, wait_by_map)
        await program.begin(rec=2)

        program.call("rec", 2)
        await stage.pass_time(STANDSTILL_S + 4.0, 0.25)

        (inner,) = program.clients[0].calls.values()
        assert sorted(got.failure.kind for got in inner.outputs.values()) == ["exhausted", "exhausted", "user"]
