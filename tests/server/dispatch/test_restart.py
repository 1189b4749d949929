"""A new server over the same store: clients send again, containers are adopted, every result comes exactly once."""

from __future__ import annotations

import asyncio

from squall.protocol.app import AppStop
from squall.protocol.empty import Empty
from tests.server.doubles import FakeGuest, settle, staged


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
