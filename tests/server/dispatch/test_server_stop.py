"""The end of the server: what it is refused for, and what those hear who wait."""

from __future__ import annotations

import asyncio

import pytest

from squall.protocol import call as wire
from squall.protocol import ids
from squall.protocol.app import DETACHED
from squall.protocol.call import CallOpen, CallSpawn, CallSpawned, InputBatch
from squall.protocol.empty import Empty
from squall.protocol.errors import PlatformError
from squall.protocol.ids import new_id
from squall.protocol.server import ServerStop
from tests.server.dispatch.deploying import deploy
from tests.server.doubles import FakeGuest, settle, staged


async def forever(guest: FakeGuest, value: bytes) -> bytes:
    await asyncio.Event().wait()
    return value


async def test_server_stops_when_asked_but_not_under_a_running_app() -> None:
    async with staged() as stage:
        await stage.client.app()
        with pytest.raises(
            PlatformError,
            match=r"an app runs: hello \(ap-\w+, ephemeral\); wait for the end, or use `squall server stop --force`",
        ):
            await stage.client.ask("ServerStop", ServerStop(), Empty)

        await stage.client.ask("ServerStop", ServerStop(is_forced=True), Empty)
        stage.clock.advance(1.0)

        await asyncio.wait_for(stage.plane.wait_stop(), 1.0)


async def test_server_stopped_by_force_tells_those_who_wait_why() -> None:
    async with staged() as stage:
        stage.node.run = forever
        spec = await stage.client.function()
        call = stage.client.call(spec.function_id, 1)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        await stage.client.ask("ServerStop", ServerStop(is_forced=True), Empty)
        await settle()

        assert call.outputs[0].failure.kind == "stopped"
        assert "the server was stopped" in call.outputs[0].failure.message
        assert not stage.plane.apps.live


async def test_apps_that_keep_a_server_are_named_up_to_some_with_what_they_are() -> None:
    async with staged() as stage:
        stage.node.run = forever
        published = await deploy(stage)
        stage.client.call(ids.function_id(published.app_id, "square"), 1)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        await stage.client.app("digger", DETACHED)
        for number in range(6):
            await stage.client.app(f"hello-{number}")

        with pytest.raises(PlatformError) as refused:
            await stage.client.ask("ServerStop", ServerStop(), Empty)

        assert "8 apps run: digger (ap-" in refused.value.message
        assert ", detached)" in refused.value.message
        assert "hello-3" in refused.value.message
        assert "hello-4" not in refused.value.message
        assert ", 3 more; " in refused.value.message


async def test_deployed_app_keeps_a_server_only_while_it_has_calls() -> None:
    async with staged() as stage:
        stage.node.run = forever
        published = await deploy(stage)
        stage.client.call(ids.function_id(published.app_id, "square"), 1)
        await settle()

        with pytest.raises(PlatformError, match=r"greeter \(ap-\w+, deployed, calls under way\)"):
            await stage.client.ask("ServerStop", ServerStop(), Empty)


async def test_forced_stop_fails_calls_of_deployed_apps_but_those_that_are_on_disk() -> None:
    async with staged() as stage:
        stage.node.run = forever
        published = await deploy(stage, max_inputs=10)
        function_id = ids.function_id(published.app_id, "square")
        call = stage.client.call(function_id, 1)
        spawned = CallOpen(new_id("fc"), function_id, wire.SPAWN)
        record = CallSpawn(spawned, InputBatch(spawned.call_id, (0,), (1,)))
        await stage.client.ask("CallSpawn", record, CallSpawned, b"2")
        await stage.until(lambda: sum(len(guest.running) for guest in stage.node.started) == 2)

        await stage.client.ask("ServerStop", ServerStop(is_forced=True), Empty)
        await settle()

        assert list(call.outputs) == [0]
        assert call.outputs[0].failure.kind == "stopped"
        assert "the server was stopped" in call.outputs[0].failure.message
        kept = stage.plane.calls.get(spawned.call_id)
        assert kept is not None
        assert list(kept.inputs) == [0]
        assert stage.plane.apps.live[published.app_id].row.state == "deployed"
