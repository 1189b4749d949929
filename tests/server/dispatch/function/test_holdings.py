"""A new server, a client that sends again and a guest that still runs it, in every order: each input runs once."""

from __future__ import annotations

import asyncio

import pytest

from squall.protocol import call as wire
from squall.protocol.app import AppCreate, AppCreated
from squall.protocol.call import CallOpen, CallSpawn, CallSpawned, InputBatch, OutputBatch
from squall.protocol.function import FunctionSpec
from squall.protocol.guest import Holding
from squall.protocol.ids import new_id
from squall.server.dispatch.function.holdings import RETURN_S, without
from tests.server.doubles import Failed, FakeCall, FakeGuest, Stage, settle, staged

VALUES = {index: str(index).encode() for index in range(4)}


class Gate:
    """User code that waits until the test lets it go on."""

    def __init__(self, stage: Stage) -> None:
        self.is_open = asyncio.Event()
        stage.node.run = self.run

    async def run(self, guest: FakeGuest, value: bytes) -> bytes:
        await self.is_open.wait()
        return value


async def running_call(stage: Stage, spec: FunctionSpec, values: dict[int, bytes], running: int) -> FakeCall:
    """A call of which so many inputs run."""
    call = stage.client.open(spec.function_id)
    stage.client.put(call, values)
    await stage.until(lambda: sum(len(guest.running) for guest in stage.node.started) == running)
    return call


async def come_back(stage: Stage, spec: FunctionSpec, call: FakeCall, values: dict[int, bytes]) -> None:
    """The client sends again what it has no output of."""
    await stage.client.connect()
    await stage.take_up(spec)
    stage.client.resume(call, values)
    await settle()


def begun(stage: Stage) -> list[tuple[int, int]]:
    """Every input that ever began, in any container."""
    return sorted(one for guest in stage.node.started for one in guest.begun)


async def guests_return(stage: Stage) -> None:
    for guest in list(stage.node.guests.values()):
        await guest.connect(is_reconnect=True)
    await settle()


@pytest.mark.parametrize("is_client_first", [True, False])
async def test_running_inputs_are_not_handed_out_again(is_client_first: bool) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=2)
        gate = Gate(stage)
        call = await running_call(stage, spec, VALUES, running=2)

        await stage.restart(is_reconnecting=False)
        if is_client_first:
            await come_back(stage, spec, call, VALUES)
            await stage.pass_time(0.5)
            await guests_return(stage)
        else:
            await guests_return(stage)
            await stage.pass_time(0.5)
            await come_back(stage, spec, call, VALUES)
        await stage.pass_time(5.0)
        gate.is_open.set()
        await stage.done(call, 4)

        assert begun(stage) == [(0, 0), (1, 0), (2, 0), (3, 0)]
        assert {index: got.value for index, got in call.outputs.items()} == VALUES
        assert call.copies == 0
        assert len(stage.node.started) == 2


async def test_inputs_that_ended_while_there_was_no_server_are_not_handed_out_again() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=2)
        gate = Gate(stage)
        call = await running_call(stage, spec, VALUES, running=2)

        await stage.restart(is_reconnecting=False)
        gate.is_open.set()
        await stage.until(lambda: all(guest.undelivered for guest in stage.node.started))
        await come_back(stage, spec, call, VALUES)
        for guest in list(stage.node.guests.values()):
            await guest.connect(is_reconnect=True, is_ready=False)
            await settle()
        for guest in stage.node.started:
            guest.ready()
        await stage.done(call, 4)

        assert begun(stage) == [(0, 0), (1, 0), (2, 0), (3, 0)]


async def test_container_that_runs_an_input_nobody_knows_is_busy() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1, scaledown_window_s=5.0)
        gate = Gate(stage)
        call = await running_call(stage, spec, {0: b"0"}, running=1)

        await stage.restart()
        await stage.pass_time(10.0)
        other = await stage.client.connect()
        await stage.take_up(spec)
        new = other.call(spec.function_id, 7)
        await stage.pass_time(1.0)

        assert not stage.node.ended
        assert stage.node.started[0].received == [0]
        gate.is_open.set()
        await stage.done(new, 1)
        other.resume(call, {0: b"0"})
        await stage.done(call, 1)
        assert begun(stage) == [(0, 0), (0, 0)]


async def test_input_of_a_container_that_dies_after_its_return_runs_again() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        gate = Gate(stage)
        call = await running_call(stage, spec, {0: b"0"}, running=1)

        await stage.restart()
        await come_back(stage, spec, call, {0: b"0"})
        stage.node.started[0].exit(None, 15)
        gate.is_open.set()
        await stage.done(call, 1)

        assert begun(stage) == [(0, 0), (0, 1)]


async def test_guest_that_comes_back_twice_goes_on_with_what_it_runs() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        gate = Gate(stage)
        call = await running_call(stage, spec, {0: b"0"}, running=1)

        await stage.restart(is_reconnecting=False)
        await guests_return(stage)
        await guests_return(stage)
        await come_back(stage, spec, call, {0: b"0"})
        gate.is_open.set()
        await stage.done(call, 1)

        assert begun(stage) == [(0, 0)]
        assert call.outputs[0].value == b"0"


async def test_input_that_a_guest_names_twice_runs_again_when_it_is_gone() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        gate = Gate(stage)
        call = await running_call(stage, spec, {0: b"0"}, running=1)

        await stage.restart(is_reconnecting=False)
        await guests_return(stage)
        guest = stage.node.started[0]
        guest.tell("Holding", Holding(call.call_id, (0, 0, 0), (0, 0, 1), (1.0, 1.0, 1.0)))
        await settle()
        guest.exit(None, 9)
        await settle()
        gate.is_open.set()
        await come_back(stage, spec, call, {0: b"0"})
        await stage.done(call, 1)

        assert call.outputs[0].value == b"0"


async def test_input_of_a_container_that_dies_before_its_client_comes_runs_again() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        gate = Gate(stage)
        call = await running_call(stage, spec, {0: b"0"}, running=1)

        await stage.restart()
        stage.node.started[0].exit(None, 9)
        await settle()
        gate.is_open.set()
        await come_back(stage, spec, call, {0: b"0"})
        await stage.done(call, 1)

        assert begun(stage) == [(0, 0), (0, 0)]


async def test_guests_that_stay_away_are_waited_for_a_moment_only() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=2)
        gate = Gate(stage)
        call = await running_call(stage, spec, VALUES, running=2)

        await stage.restart(is_reconnecting=False)
        guest = next(iter(stage.node.guests.values()))
        await guest.connect(is_reconnect=True)
        gate.is_open.set()
        await come_back(stage, spec, call, VALUES)
        await stage.pass_time(RETURN_S - 0.2)
        handed_out_early = len(begun(stage))
        await stage.pass_time(0.4)
        await stage.done(call, 4)

        assert handed_out_early == 2


@pytest.mark.parametrize("is_guest_quick", [True, False])
async def test_spawned_input_that_runs_is_not_handed_out_again(is_guest_quick: bool) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=2)
        await stage.client.ask("AppCreate", AppCreate(spec.app_id, "hello", "detached"), AppCreated)
        gate = Gate(stage)
        call_id = new_id("fc")
        batch = InputBatch(call_id, (0, 1, 2), (1, 1, 1))
        spawn = CallSpawn(CallOpen(call_id, spec.function_id, wire.SPAWN), batch)
        await stage.client.ask("CallSpawn", spawn, CallSpawned, b"012")
        await stage.until(lambda: sum(len(guest.running) for guest in stage.node.started) == 2)

        await stage.restart(is_reconnecting=is_guest_quick)
        await stage.pass_time(1.0)
        if not is_guest_quick:
            await guests_return(stage)
        gate.is_open.set()
        for index in range(3):
            record, _ = await stage.plane.durable.get(call_id, index, 0.0)
            while not record.indexes:
                await stage.pass_time(0.2)
                record, _ = await stage.plane.durable.get(call_id, index, 0.0)

        assert begun(stage) == [(0, 0), (1, 0), (2, 0)]


async def test_attempt_goes_on_as_what_it_was() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1, retries=2)
        gate = asyncio.Event()

        async def fails_first(guest: FakeGuest, value: bytes) -> bytes:
            if len(guest.begun) > 1:
                await gate.wait()
            raise Failed

        stage.node.run = fails_first
        call = stage.client.open(spec.function_id)
        stage.client.put(call, {0: b"0"})
        await stage.until(lambda: (0, 1) in begun(stage))

        await stage.restart()
        await come_back(stage, spec, call, {0: b"0"})
        gate.set()
        await stage.pass_time(10.0)
        await stage.done(call, 1)

        # Two retries were asked for, and the one before the restart was one of them.
        assert begun(stage) == [(0, 0), (0, 1), (0, 2)]
        assert call.outputs[0].status == wire.FAILED


async def test_time_limit_counts_from_when_the_input_began() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1, timeout_s=10.0)
        Gate(stage)
        call = await running_call(stage, spec, {0: b"0"}, running=1)

        await stage.restart(is_reconnecting=False)
        guest = stage.node.started[0]
        guest.is_old = True
        await guest.connect()
        guest.tell("Holding", Holding(call.call_id, (0,), (0,), (9.0,)))
        guest.ready()
        await come_back(stage, spec, call, {0: b"0"})
        await stage.pass_time(1.5)
        await stage.done(call, 1)

        assert call.outputs[0].status == wire.TIMED_OUT


async def test_generator_is_cancelled_and_begins_again() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1, is_generator=True)
        gate = Gate(stage)
        call = stage.client.open(spec.function_id, wire.GENERATOR)
        stage.client.put(call, {0: b"3"})
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        guest = stage.node.started[0]
        guest.items(call.call_id, 0, 0, [b"a", b"b"])
        await stage.until(lambda: len(call.items) == 2)

        await stage.restart()
        await come_back(stage, spec, call, {0: b"3"})
        await stage.until(lambda: len(begun(stage)) == 2)
        guest.items(call.call_id, 0, 0, [b"a", b"b", b"c"])
        gate.is_open.set()
        await stage.done(call, 1)

        assert call.items == [b"a", b"b", b"c"]
        assert call.outputs[0].status == wire.SUCCEEDED


async def test_generator_that_does_not_stop_is_ended_with_its_container() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1, is_generator=True)
        gate = Gate(stage)
        call = stage.client.open(spec.function_id, wire.GENERATOR)
        stage.client.put(call, {0: b"3"})
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        stage.node.started[0].is_deaf = True

        await stage.restart()
        await come_back(stage, spec, call, {0: b"3"})
        await stage.pass_time(stage.config.cancel_grace_s + 0.5)
        gate.is_open.set()
        await stage.done(call, 1)

        assert stage.node.ended == [stage.node.started[0].container_id]
        assert len(stage.node.started) == 2


async def test_items_lost_with_a_connection_fail_the_call_and_are_not_skipped() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1, is_generator=True)
        Gate(stage)
        call = stage.client.open(spec.function_id, wire.GENERATOR)
        stage.client.put(call, {0: b"3"})
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        guest = stage.node.started[0]
        guest.items(call.call_id, 0, 0, [b"a"])
        await stage.until(lambda: call.items)

        guest.disconnect()
        await settle()
        await guest.connect(is_reconnect=True)
        guest.items(call.call_id, 0, 2, [b"c"])
        await stage.done(call, 1)

        assert call.items == [b"a"]
        assert call.outputs[0].failure.kind == "lost"
        await stage.until(lambda: not guest.running)


async def test_broken_connection_moves_nothing() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=2)
        gate = Gate(stage)
        call = await running_call(stage, spec, VALUES, running=2)

        for guest in stage.node.started:
            guest.disconnect()
        await settle()
        await guests_return(stage)
        await stage.pass_time(3.0)
        gate.is_open.set()
        await stage.done(call, 4)

        assert begun(stage) == [(0, 0), (1, 0), (2, 0), (3, 0)]


async def test_input_whose_call_has_ended_is_cancelled_when_its_guest_is_back() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        Gate(stage)
        call = await running_call(stage, spec, {0: b"0"}, running=1)
        guest = stage.node.started[0]

        guest.disconnect()
        await settle()
        stage.client.close_call(call)
        await stage.pass_time(0.5)
        assert guest.running
        await guest.connect(is_reconnect=True)

        await stage.until(lambda: not guest.running)


async def test_guest_of_an_earlier_version_is_served_as_before() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        gate = Gate(stage)
        call = await running_call(stage, spec, {0: b"0"}, running=1)
        stage.node.started[0].is_old = True

        await stage.restart()
        gate.is_open.set()
        await come_back(stage, spec, call, {0: b"0"})
        await stage.done(call, 1)

        assert call.outputs[0].value == b"0"


async def test_guest_may_name_only_what_it_can_run() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        Gate(stage)
        await running_call(stage, spec, {0: b"0"}, running=1)

        await stage.restart()
        guest = stage.node.started[0]
        many = tuple(range(1_000))
        guest.tell("Holding", Holding(new_id("fc"), many, many, (1e300,) * 1_000))
        await settle()

        container = stage.plane.fleet.containers[guest.container_id]
        assert len(container.unknown) == 2


async def test_guest_cannot_take_inputs_of_another_function() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        mine = stage.client.call(spec.function_id, 1)
        await stage.done(mine, 1)
        stage.node.start_gate.clear()
        other = await stage.client.function(max_containers=1, name="other")
        theirs = stage.client.call(other.function_id, 2)
        await settle()
        holdings = stage.plane.apps.dispatchers[spec.function_id].holdings
        container = next(iter(stage.plane.fleet.containers.values()))

        with pytest.raises(ValueError, match="another function"):
            holdings.named(container, Holding(theirs.call_id, (0,), (0,), (1.0,)))

        stage.node.start_gate.set()
        await stage.done(theirs, 1)


@pytest.mark.parametrize(
    "columns", [((0, 1), (0,), (1.0, 1.0)), ((0,), (0,), ())], ids=["attempts are missing", "times are missing"]
)
async def test_columns_that_do_not_fit_are_refused(
    columns: tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]],
) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1, min_containers=1)
        await stage.until(lambda: stage.node.guests)
        container = next(iter(stage.plane.fleet.containers.values()))

        with pytest.raises(ValueError, match="zip"):
            stage.plane.apps.dispatchers[spec.function_id].holdings.named(container, Holding("fc-1", *columns))


def test_batch_without_some_of_its_outputs_is_whole() -> None:
    record = OutputBatch("fc-1", (0, 1, 2), (0, 0, 0), (2, -1, 3), (0, 1, 0), (5, 6, 7), {"1": "ab"})

    left, body = without(record, b"aabbb", {1})

    assert left == OutputBatch("fc-1", (0, 2), (0, 0), (2, 3), (0, 0), (5, 7), {})
    assert body == b"aabbb"
    assert without(record, b"aabbb", {0})[1] == b"bbb"
