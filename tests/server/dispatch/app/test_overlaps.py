"""Changes of one app that overlap: each is carried out as a whole, and the end comes last."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from squall.protocol.app import AppCreate, AppCreated, AppInfo, AppStop, AppStopped
from squall.protocol.deployment import AppTagsPut
from squall.protocol.errors import PlatformError
from squall.protocol.mount import MountManifest, MountRef
from tests.server.dispatch.app.held_up import HeldUp, version_of
from tests.server.dispatch.deploying import deployable, prepare, publish
from tests.server.doubles import Stage, settle, staged


async def ended(stage: Stage, app_id: str) -> bool:
    """Nothing of the app is left, here and in the store."""
    await stage.pass_time(5.0, 0.5)
    plane = stage.plane
    is_here = app_id in plane.apps.live or plane.apps.dispatchers or plane.fleet.containers
    return not is_here and (await stage.store.get_app(app_id)).state == "stopped"


@pytest.mark.parametrize("method", ["use_mounts", "publish_version"])
@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("state", ["ephemeral", "deployed"])
async def test_an_app_that_is_stopped_while_it_is_published_ends(state: str, is_after: bool, method: str) -> None:
    async with staged() as stage:
        app_id = await stage.client.app("greeter") if state == "ephemeral" else (await prepare(stage)).app_id
        mount = MountRef(await stage.store.put_mount(MountManifest(()), 0.0), "/root")
        added = deployable(app_id, "added", min_containers=1, mounts=(mount,))
        await publish(stage, app_id, version_of(app_id, "1"))
        await stage.pass_time(1.0)
        held_up = HeldUp(stage, method, is_after=is_after)
        publishing = asyncio.ensure_future(publish(stage, app_id, version_of(app_id, "2"), added))
        await held_up.begun.wait()

        stopping = asyncio.ensure_future(stage.client.ask("AppStop", AppStop(app_id), AppStopped))
        await settle()
        held_up.let()

        assert await ended(stage, app_id)
        assert not (await stopping).was_stopped
        with pytest.raises(PlatformError, match="is being stopped") as refused:
            await publishing
        assert refused.value.code == "conflict"


async def test_a_deploy_waits_for_the_end_of_the_app_before_it() -> None:
    async with staged() as stage:
        first = (await prepare(stage)).app_id
        await publish(stage, first, version_of(first, "1"))
        await stage.pass_time(1.0)
        held_up = HeldUp(stage, "set_app_state")
        stopping = asyncio.ensure_future(stage.client.ask("AppStop", AppStop(first), AppStopped))
        await held_up.begun.wait()

        second = (await prepare(stage)).app_id
        publishing = asyncio.ensure_future(publish(stage, second, version_of(second, "2")))
        await settle()
        assert not publishing.done()
        assert set(stage.plane.apps.live) == {first}

        held_up.let()
        await stage.until(publishing.done)
        assert stopping.done()
        assert (second != first, publishing.result().version) == (True, 1)
        assert set(stage.plane.apps.live) == {second}


@pytest.mark.parametrize("method", ["AppTagsPut", "AppCreate"])
async def test_an_app_that_is_stopped_while_its_record_changes_ends(method: str) -> None:
    async with staged() as stage:
        app_id = await stage.client.app("greeter")
        await publish(stage, app_id, version_of(app_id, "1"))
        records: dict[str, tuple[Any, type[Any], str]] = {
            "AppTagsPut": (AppTagsPut(app_id, {"a": "b"}), AppInfo, "put_app"),
            "AppCreate": (AppCreate(app_id, "greeter", "detached"), AppCreated, "set_app_state"),
        }
        record, reply, written = records[method]
        held_up = HeldUp(stage, written)
        changing = asyncio.ensure_future(stage.client.ask(method, record, reply))
        await held_up.begun.wait()

        stopping = asyncio.ensure_future(stage.client.ask("AppStop", AppStop(app_id), AppStopped))
        await stage.pass_time(5.0, 0.5)
        held_up.let()

        assert await ended(stage, app_id)
        await asyncio.gather(changing, stopping, return_exceptions=True)


async def test_an_app_detached_while_it_is_published_stays_so() -> None:
    async with staged() as stage:
        app_id = await stage.client.app("greeter")
        held_up = HeldUp(stage, "publish_version")
        publishing = asyncio.ensure_future(publish(stage, app_id, version_of(app_id, "1")))
        await held_up.begun.wait()

        taking_up = asyncio.ensure_future(
            stage.client.ask("AppCreate", AppCreate(app_id, "greeter", "detached"), AppCreated)
        )
        await settle()
        held_up.let()
        await asyncio.gather(publishing, taking_up)

        assert stage.plane.apps.live[app_id].row.state == "detached"
        assert (await stage.store.get_app(app_id)).state == "detached"
