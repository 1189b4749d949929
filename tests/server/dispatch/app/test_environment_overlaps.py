"""An environment that is deleted while something comes into it: nothing of it is left behind."""

from __future__ import annotations

import asyncio

import pytest

from squall.protocol.app import AppCreate, AppCreated
from squall.protocol.environment import EnvironmentCreate, EnvironmentDelete, EnvironmentDeleted, EnvironmentInfo
from squall.protocol.ids import new_id
from squall.protocol.image import ImageConfig, ImageSpec
from squall.protocol.image_catalog import ImageName, ImagePublish
from squall.server.model.image import StoredImage
from tests.server.dispatch.app.held_up import HeldUp, version_of
from tests.server.dispatch.deploying import prepare, publish
from tests.server.doubles import Stage, settle, staged


async def create_environment(stage: Stage) -> None:
    await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)


def delete_environment(stage: Stage) -> asyncio.Future[EnvironmentDeleted]:
    asked = stage.client.ask("EnvironmentDelete", EnvironmentDelete("dev"), EnvironmentDeleted)
    return asyncio.ensure_future(asked)


async def environment_is_empty(stage: Stage) -> bool:
    living = [app for app in stage.plane.apps.live.values() if app.row.environment == "dev"]
    stored = await stage.store.list_apps(100, ("ephemeral", "detached", "deployed", "stopping"), "dev")
    return not (living or stored or stage.plane.fleet.containers)


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("is_first", [False, True])
async def test_what_is_deployed_meanwhile_goes_with_it(is_first: bool, is_after: bool) -> None:
    async with staged() as stage:
        await create_environment(stage)
        app_id = (await prepare(stage, environment="dev")).app_id
        if not is_first:
            await publish(stage, app_id, version_of(app_id, "1"), environment="dev")
        held_up = HeldUp(stage, "publish_version", is_after=is_after)
        publishing = asyncio.ensure_future(publish(stage, app_id, version_of(app_id, "2"), environment="dev"))
        await held_up.begun.wait()

        deleting = delete_environment(stage)
        await settle()
        held_up.let()

        await stage.until(deleting.done)
        assert deleting.result().app_count == 1
        await asyncio.gather(publishing, return_exceptions=True)
        assert await environment_is_empty(stage)


async def test_an_app_that_is_begun_meanwhile_goes_with_it() -> None:
    async with staged() as stage:
        await create_environment(stage)
        held_up = HeldUp(stage, "put_app")
        asked = stage.client.ask("AppCreate", AppCreate(new_id("ap"), "x", environment="dev"), AppCreated)
        creating = asyncio.ensure_future(asked)
        await held_up.begun.wait()

        deleting = delete_environment(stage)
        await settle()
        held_up.let()

        await stage.until(deleting.done)
        await asyncio.gather(creating, return_exceptions=True)
        assert await environment_is_empty(stage)


async def test_an_image_that_is_named_meanwhile_keeps_no_name_there() -> None:
    async with staged() as stage:
        await create_environment(stage)
        await stage.store.put_image(StoredImage("im-1", ImageSpec(()), ImageConfig(), (), 1.0, 1.0))
        held_up = HeldUp(stage, "publish_image")
        naming = asyncio.ensure_future(stage.client.ask("ImagePublish", ImagePublish("im-1", "web", "dev"), ImageName))
        await held_up.begun.wait()

        deleting = delete_environment(stage)
        await settle()
        held_up.let()

        await stage.until(deleting.done)
        await naming
        assert await stage.store.list_image_names("dev") == ()


async def test_nothing_comes_in_a_moment_later() -> None:
    async with staged() as stage:
        await create_environment(stage)
        app_id = (await prepare(stage, environment="dev")).app_id

        answers = await asyncio.gather(
            publish(stage, app_id, version_of(app_id, "1"), environment="dev"),
            stage.client.ask("AppCreate", AppCreate(new_id("ap"), "x", environment="dev"), AppCreated),
            delete_environment(stage),
            return_exceptions=True,
        )

        assert isinstance(answers[-1], EnvironmentDeleted)
        assert await environment_is_empty(stage)
