"""A new server over the same store: clients send again, containers are adopted, every result comes exactly once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from squall.protocol import call as wire
from squall.protocol.app import AppStop
from squall.protocol.call import CallOpen, CallSpawn, CallSpawned, InputBatch
from squall.protocol.container import ContainerList, ContainerListing
from squall.protocol.empty import Empty
from squall.protocol.errors import PlatformError
from squall.protocol.function import FunctionSpec
from squall.protocol.ids import born_at, new_id
from tests.server.dispatch.client.test_callers import container_of
from tests.server.doubles import FakeCall, FakeClient, FakeGuest, Stage, settle, staged


async def test_map_goes_on_after_a_restart_with_every_result_once() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        gate = asyncio.Event()

        async def slow_after_20(guest: FakeGuest, value: bytes) -> bytes:
            if int(value) >= 20:
                await gate.wait()
            return value

        stage.node.run = slow_after_20
        values = {index: str(index).encode() for index in range(60)}
        call = stage.client.open(spec.function_id)
        stage.client.put(call, values)
        await stage.done(call, 20)

        await stage.restart()
        gate.set()
        await settle()
        await stage.client.connect()
        await stage.take_up(spec)
        stage.client.resume(call, values)
        await stage.done(call, 60)

        assert [call.outputs[index].value for index in range(60)] == list(values.values())
        assert call.copies == 0
        assert len(stage.node.started) == 1


async def test_adopted_container_delivers_before_its_call_is_known() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        gate = asyncio.Event()

        async def slow(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = slow
        values = {0: b"5"}
        call = stage.client.open(spec.function_id)
        stage.client.put(call, values)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        await stage.restart()
        gate.set()
        await stage.pass_time(1.0)
        await stage.client.connect()
        await stage.take_up(spec)
        stage.client.resume(call, values)
        await stage.done(call, 1)
        await stage.pass_time(1.0)

        assert call.outputs[0].value == b"5"
        assert stage.node.started[0].received == [0]


async def test_adopted_container_for_one_input_is_not_counted_on_for_another() -> None:
    async with staged() as stage:
        spec = await stage.client.function(is_single_use=True, min_containers=1)
        await stage.until(lambda: len(stage.node.started) == 1)

        await stage.restart()
        await settle()
        await stage.client.connect()
        await stage.take_up(spec)
        call = stage.client.call(spec.function_id, 5)
        await stage.done(call, 1)

        # Whether it has had its input is not known to this server.
        first, *others = stage.node.started
        assert first.received == []
        assert len(others) >= 1


async def test_agent_that_returns_with_a_container_it_was_starting_keeps_it() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.start_gate.clear()
        call = stage.client.call(spec.function_id, 7)
        await stage.until(lambda: stage.node.starts)
        container_id = stage.node.starts[0].container_id

        assert stage.node.peer is not None
        stage.node.peer.channel.close()
        await stage.pass_time(1.0)
        guest = FakeGuest(stage.node, container_id, spec.function_id)
        stage.node.guests[container_id] = guest
        await stage.node.connect()
        await guest.connect()
        outputs = await stage.done(call, 1)

        assert outputs[0].value == b"14"
        assert stage.node.welcome is not None
        assert stage.node.welcome.unwanted_container_ids == ()
        assert len(stage.node.starts) == 1
        stage.node.started.append(guest)


async def test_container_of_a_stopped_app_is_unwanted_after_a_restart() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.guests)
        kept = dict(stage.node.guests)
        await stage.client.ask("AppStop", AppStop(spec.app_id), Empty)
        stage.node.guests = kept

        await stage.restart(is_reconnecting=False)

        assert stage.node.welcome is not None
        assert stage.node.welcome.unwanted_container_ids == tuple(kept)


async def test_ephemeral_app_waits_for_its_client_for_its_time_only() -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        await stage.restart()
        await stage.pass_time(29.0, 1.0)
        assert spec.app_id in stage.plane.apps.live
        await stage.pass_time(2.0, 1.0)

        assert spec.app_id not in stage.plane.apps.live


async def test_adopted_container_is_listed_with_the_time_it_was_asked_for() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = lambda guest, value: asyncio.sleep(1e9, value)
        stage.client.call(spec.function_id, 5)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        container_id = stage.node.started[0].container_id
        stage.clock.set_wall(born_at(container_id) + 3_600 - stage.clock.now())

        await stage.restart()
        await stage.client.connect()
        await stage.take_up(spec)
        await settle()

        listing = await stage.client.ask("ContainerList", ContainerList(), ContainerListing)
        assert [(one.container_id, one.created_at) for one in listing.containers] == [
            (container_id, pytest.approx(born_at(container_id)))
        ]


async def test_adopted_container_that_stays_away_is_ended() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.guests)
        container_id = next(iter(stage.node.guests))

        await stage.restart(is_reconnecting=False)
        await stage.client.connect()
        await stage.take_up(spec)
        await stage.pass_time(70.0, 1.0)

        assert container_id in stage.node.ended


# Whose outputs they are


@dataclass
class Orphaned:
    """A call whose output came before its client was back."""

    call: FakeCall
    spec: FunctionSpec
    other: FunctionSpec


async def orphaned(stage: Stage, *, is_marked: bool = True) -> Orphaned:
    """A server that was started anew, with an output of a call that its client has not opened again."""
    spec = await stage.client.function(min_containers=2)
    other = await stage.client.function(min_containers=1)
    gate = asyncio.Event()

    async def slow(guest: FakeGuest, value: bytes) -> bytes:
        await gate.wait()
        return b"secret"

    stage.node.run = slow
    call = stage.client.open(spec.function_id, call_id="" if is_marked else new_id("fc"))
    stage.client.put(call, {0: b"5"})
    await stage.until(lambda: any(guest.running for guest in stage.node.started))
    await stage.until(lambda: len(stage.node.guests) == 3)
    await stage.restart()
    gate.set()
    await stage.pass_time(1.0)
    return Orphaned(call, spec, other)


def open_as(thief: FakeClient, call_id: str, function_id: str) -> FakeCall:
    """Open a call under an id that is not one's own, with an input that is to be bound to what runs."""
    stolen = thief.calls[call_id] = FakeCall(call_id, function_id, wire.MAP)
    thief.tell("CallOpen", CallOpen(call_id, function_id, wire.MAP))
    thief.put(stolen, {0: b"5"})
    return stolen


@pytest.mark.parametrize("whose", ["container of another app", "container of the same app", "client outside"])
async def test_outputs_of_a_call_are_for_its_own_client(whose: str) -> None:
    async with staged() as stage:
        lost = await orphaned(stage)
        if whose == "client outside":
            thief = await FakeClient(stage.plane, stage.codec).connect()
            function_id = lost.spec.function_id
        else:
            own = lost.other if whose == "container of another app" else lost.spec
            thief, function_id = await container_of(stage, own), own.function_id

        stolen = open_as(thief, lost.call.call_id, function_id)
        await stage.pass_time(1.0)
        await stage.client.connect()
        await stage.take_up(lost.spec)
        stage.client.resume(lost.call, {0: b"5"})
        await stage.done(lost.call, 1)

        assert stolen.outputs[0].failure.kind == "invalid"
        assert "another client" in stolen.outputs[0].failure.message
        assert lost.call.outputs[0].value == b"secret"
        assert sum(len(guest.received) for guest in stage.node.started) == 1


async def test_spawned_call_cannot_take_the_id_of_a_clients() -> None:
    async with staged() as stage:
        lost = await orphaned(stage)
        thief = await container_of(stage, lost.spec)
        call_id = lost.call.call_id
        record = CallSpawn(CallOpen(call_id, lost.spec.function_id, wire.SPAWN), InputBatch(call_id, (0,), (1,)))

        with pytest.raises(PlatformError, match="id of its own") as refused:
            await thief.ask("CallSpawn", record, CallSpawned, b"5")

        assert refused.value.code == "invalid"


async def test_call_of_an_older_client_does_not_lose_its_outputs_to_another_functions() -> None:
    async with staged() as stage:
        lost = await orphaned(stage, is_marked=False)
        thief = await container_of(stage, lost.other)

        stolen = open_as(thief, lost.call.call_id, lost.other.function_id)
        await stage.pass_time(1.0)
        thief.close_call(stolen)
        await stage.pass_time(1.0)
        await stage.client.connect()
        await stage.take_up(lost.spec)
        stage.client.resume(lost.call, {0: b"5"})
        await stage.done(lost.call, 1)

        assert lost.call.outputs[0].value == b"secret"
        assert sum(len(one.received) for one in stage.node.started if one.function_id == lost.spec.function_id) == 1
