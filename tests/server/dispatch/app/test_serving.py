"""Ephemeral apps that go on with other functions, as `squall serve` changes them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from squall.protocol.app import AppGet, AppInfo, AppStop, AppStopped
from squall.protocol.deployment import RECREATE, AppPublished
from squall.protocol.errors import PlatformError
from squall.protocol.function import PERIOD, FunctionCreate, FunctionCreated, FunctionGet, FunctionSpec, Schedule
from tests.server.dispatch.deploying import deploy, deployable, publish
from tests.server.doubles import FakeGuest, Stage, make_spec, settle, staged

SERVED = "served"


def code_of(stage: Stage, guest: FakeGuest) -> bytes:
    start = next(one for one in stage.node.starts if one.container_id == guest.container_id)
    return start.env["CODE"].encode()


async def serve(stage: Stage, app_id: str, code: str, *names: str, **fields: Any) -> AppPublished:
    specs = [deployable(app_id, name, env={"CODE": code}, **fields) for name in names or ("square",)]
    publishing = asyncio.ensure_future(publish(stage, app_id, *specs, name=SERVED, strategy=RECREATE))
    await stage.until(publishing.done)
    return publishing.result()


async def info(stage: Stage, app_id: str) -> AppInfo:
    found: AppInfo = await stage.client.ask("AppGet", AppGet(app_id), AppInfo)
    return found


async def function_id(stage: Stage, app: str = SERVED) -> str:
    spec: FunctionSpec = await stage.client.ask("FunctionGet", FunctionGet(app=app, name="square"), FunctionSpec)
    return spec.function_id


async def test_app_stays_ephemeral_and_answers_by_its_newest_code() -> None:
    async with staged() as stage:

        async def run(guest: FakeGuest, value: bytes) -> bytes:
            return code_of(stage, guest)

        stage.node.run = run
        app_id = await stage.client.app(SERVED)
        await serve(stage, app_id, "1")
        first = await stage.done(stage.client.call(await function_id(stage), 7), 1)
        before = await function_id(stage)

        served = await serve(stage, app_id, "2")
        second = await stage.done(stage.client.call(await function_id(stage), 7), 1)

        assert (first[0].value, second[0].value) == (b"1", b"2")
        assert await function_id(stage) == before
        assert (served.version, served.left_container_count) == (2, 0)
        assert (await info(stage, app_id)).state == "ephemeral"


async def test_input_that_runs_begins_again_in_the_new_code() -> None:
    async with staged() as stage:
        gate = asyncio.Event()

        async def run(guest: FakeGuest, value: bytes) -> bytes:
            code = code_of(stage, guest)
            if code == b"1":
                await gate.wait()
            return code

        stage.node.run = run
        app_id = await stage.client.app(SERVED)
        await serve(stage, app_id, "1")
        call = stage.client.call(await function_id(stage), 7)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        await serve(stage, app_id, "2")

        assert (await stage.done(call, 1))[0].value == b"2"


async def test_what_is_as_it_was_keeps_its_containers() -> None:
    async with staged() as stage:
        app_id = await stage.client.app(SERVED)
        await serve(stage, app_id, "1", min_containers=1)
        await stage.pass_time(0.5)

        served = await serve(stage, app_id, "1", min_containers=1)

        assert served.is_unchanged
        assert len(stage.node.guests) == len(stage.node.started) == 1


async def test_app_ends_with_its_client_and_after_a_restart_goes_on() -> None:
    async with staged() as stage:
        app_id = await stage.client.app(SERVED)
        await serve(stage, app_id, "1")
        await serve(stage, app_id, "2")

        await stage.restart()
        await stage.client.connect()
        assert (await serve(stage, app_id, "3")).version == 3

        await stage.client.ask("AppStop", AppStop(app_id), AppStopped)
        assert (await info(stage, app_id)).state == "stopped"


async def test_deployed_app_of_the_same_name_is_left_alone() -> None:
    async with staged() as stage:
        deployed = await deploy(stage, name=SERVED)
        app_id = await stage.client.app(SERVED)

        await serve(stage, app_id, "2")

        assert (await info(stage, deployed.app_id)).version == 1


async def test_schedules_of_a_served_app_rest() -> None:
    async with staged() as stage:
        app_id = await stage.client.app(SERVED)
        await serve(stage, app_id, "1", schedule=Schedule(PERIOD, seconds=5.0))
        await stage.pass_time(12.0, 0.5)

        assert stage.node.started == []
        assert await stage.store.list_schedules() == ()


async def test_app_of_a_program_that_runs_is_not_taken_over() -> None:
    async with staged() as stage:
        app_id = await stage.client.app(SERVED)
        spec = make_spec(app_id)
        await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
        await settle()

        with pytest.raises(PlatformError, match="is that of a program that runs") as refused:
            await publish(stage, app_id, deployable(app_id), name=SERVED)

        assert refused.value.code == "conflict"
        assert await function_id(stage) == spec.function_id
