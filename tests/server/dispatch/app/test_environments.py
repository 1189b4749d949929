"""Environments: the same names apart, which one is meant, and what goes with one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from squall.protocol.app import AppCreate, AppCreated, AppGet, AppInfo, AppList, AppListing, AppStop, AppStopped
from squall.protocol.container import ContainerList, ContainerListing
from squall.protocol.deployment import AppHistory, AppHistoryGet, AppPublished, AppRollback, AppTagsPut
from squall.protocol.environment import (
    EnvironmentCreate,
    EnvironmentDelete,
    EnvironmentDeleted,
    EnvironmentGet,
    EnvironmentInfo,
    EnvironmentList,
    EnvironmentListing,
)
from squall.protocol.errors import UNAVAILABLE, PlatformError
from squall.protocol.function import FunctionGet, FunctionSpec
from squall.protocol.ids import is_id, new_id
from squall.protocol.image import ImageConfig, ImageSpec
from squall.protocol.image_catalog import ImageGet, ImageInfo, ImageName, ImagePublish
from squall.server.model.image import StoredImage
from squall.server.model.store import StoredApp
from tests.server.dispatch.deploying import deployable, prepare, publish
from tests.server.doubles import FakeClient, Stage, staged


async def create(stage: Stage, name: str = "dev") -> EnvironmentInfo:
    made: EnvironmentInfo = await stage.client.ask("EnvironmentCreate", EnvironmentCreate(name), EnvironmentInfo)
    return made


async def deploy_into(stage: Stage, environment: str, code: str) -> AppPublished:
    prepared = await prepare(stage, environment=environment)
    spec = deployable(prepared.app_id, env={"CODE": code})
    return await publish(stage, prepared.app_id, spec, environment=environment)


async def failure_of(awaitable: Any) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await awaitable
    return caught.value


async def test_one_name_is_another_app_in_another_environment() -> None:
    async with staged() as stage:
        await create(stage)
        here, there = await deploy_into(stage, "", "here"), await deploy_into(stage, "dev", "there")

        assert here.app_id != there.app_id
        for environment, code in (("", "here"), ("main", "here"), ("dev", "there")):
            asked = FunctionGet(app="greeter", name="square", environment=environment, has_env=True)
            spec = await stage.client.ask("FunctionGet", asked, FunctionSpec)
            info = await stage.client.ask("AppGet", AppGet("greeter", environment), AppInfo)
            assert (spec.env["CODE"], info.environment) == (code, environment or "main")
        await stage.client.ask("AppTagsPut", AppTagsPut("greeter", {"a": "b"}, "dev"), AppInfo)
        history = await stage.client.ask("AppHistory", AppHistoryGet("greeter", "dev"), AppHistory)
        assert history.app_id == there.app_id
        assert stage.plane.apps.live[here.app_id].row.tags == {}
        listing = await stage.client.ask("AppList", AppList(environment="dev"), AppListing)
        everything = await stage.client.ask("AppList", AppList(), AppListing)
        assert ([one.app_id for one in listing.apps], len(everything.apps)) == ([there.app_id], 2)


async def test_containers_are_listed_by_environment_also_of_apps_that_ended() -> None:
    async with staged() as stage:
        await create(stage, "dev")
        for environment in ("", "dev"):
            prepared = await prepare(stage, environment=environment)
            spec = deployable(prepared.app_id, min_containers=1)
            await publish(stage, prepared.app_id, spec, environment=environment)
        await stage.until(lambda: len(stage.node.started) == 2)
        info = await stage.client.ask("AppGet", AppGet("greeter", "dev"), AppInfo)
        there, here = info.app_id, (await stage.client.ask("AppGet", AppGet("greeter"), AppInfo)).app_id
        await stage.client.ask("AppStop", AppStop(there), AppStopped)

        async def listed(**asked: Any) -> set[str]:
            record = ContainerList(include_stopped=True, **asked)
            found = await stage.client.ask("ContainerList", record, ContainerListing)
            return {one.app_id for one in found.containers}

        assert await listed(environment="dev") == {there}
        assert await listed(environment="") == await listed(environment="main") == {here}
        assert await listed() == {here, there}
        assert await listed(app=there, environment="main") == {there}
        assert await listed(app="greeter", environment="main") == {here}


async def ended_apps(stage: Stage) -> set[str]:
    """Two apps that were stopped, each with a container."""
    app_ids = set()
    for name in ("one", "two"):
        prepared = await prepare(stage, name)
        await publish(stage, prepared.app_id, deployable(prepared.app_id, min_containers=1), name=name)
        app_ids.add(prepared.app_id)
    await stage.until(lambda: len(stage.node.started) == 2)
    for app_id in app_ids:
        await stage.client.ask("AppStop", AppStop(app_id), AppStopped)
    return app_ids


async def test_ended_apps_whose_containers_are_listed_are_looked_up_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        app_ids = await ended_apps(stage)
        asked: list[set[str]] = []
        get_apps = stage.store.get_apps

        async def counted(wanted: Collection[str]) -> tuple[StoredApp, ...]:
            asked.append(set(wanted))
            return await get_apps(wanted)

        monkeypatch.setattr(stage.store, "get_apps", counted)

        record = ContainerList(include_stopped=True, environment="main")
        found = await stage.client.ask("ContainerList", record, ContainerListing)

        assert {one.app_id for one in found.containers} == app_ids
        assert asked == [app_ids]


async def test_list_of_containers_leaves_none_out_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        await ended_apps(stage)

        async def fail(wanted: object) -> None:
            raise PlatformError(UNAVAILABLE, "the database cannot be reached")

        for name in ("get_app", "get_apps"):
            monkeypatch.setattr(stage.store, name, fail)
        record = ContainerList(include_stopped=True, environment="main")

        failure = await failure_of(stage.client.ask("ContainerList", record, ContainerListing))
        running = await stage.client.ask("ContainerList", ContainerList(environment="main"), ContainerListing)

        assert failure.code == UNAVAILABLE
        assert running.containers == ()


async def test_what_ended_with_an_environment_is_not_in_one_made_again_by_its_name() -> None:
    async with staged() as stage:
        await create(stage)
        earlier = await deploy_into(stage, "dev", "1")
        await stage.client.ask("EnvironmentDelete", EnvironmentDelete("dev"), EnvironmentDeleted)
        await stage.pass_time(5.0)
        await create(stage)

        async def listed() -> list[str]:
            listing = await stage.client.ask("AppList", AppList(environment="dev"), AppListing)
            return [one.app_id for one in listing.apps]

        assert await listed() == []
        error = await failure_of(stage.client.ask("AppGet", AppGet("greeter", "dev"), AppInfo))
        assert error.code == "not_found"
        later = await deploy_into(stage, "dev", "1")
        await stage.client.ask("AppStop", AppStop(later.app_id), AppStopped)
        assert await listed() == [later.app_id], "what ends in it is listed"
        found = await stage.client.ask("AppGet", AppGet(earlier.app_id), AppInfo)
        assert found.app_id == earlier.app_id, "by its id it is known"


async def test_an_app_tells_who_made_it() -> None:
    async with staged() as stage:
        run = AppCreate(new_id("ap"), "run", created_by="ada")
        await stage.client.ask("AppCreate", run, AppCreated)
        prepared = await prepare(stage)
        for deployer in ("grace", "ada"):
            spec = deployable(prepared.app_id, env={"CODE": deployer})
            await publish(stage, prepared.app_id, spec, deployed_by=deployer)

        made = [await stage.client.ask("AppGet", AppGet(app), AppInfo) for app in (run.app_id, "greeter")]

        assert [one.created_by for one in made] == ["ada", "grace"]
        too_long = AppCreate(new_id("ap"), "run", created_by="x" * 201)
        error = await failure_of(stage.client.ask("AppCreate", too_long, AppCreated))
        assert "200 characters at most" in error.message


async def test_an_environment_that_there_is_not_is_refused_wherever_it_is_named() -> None:
    async with staged() as stage:
        await create(stage, "staging")
        records: tuple[tuple[str, Any, type[Any]], ...] = (
            ("AppCreate", AppCreate(new_id("ap"), "x", environment="stagin"), AppCreated),
            ("AppGet", AppGet("greeter", "stagin"), AppInfo),
            ("AppHistory", AppHistoryGet("greeter", "stagin"), AppHistory),
            ("AppRollback", AppRollback("greeter", "once", "stagin"), AppPublished),
            ("FunctionGet", FunctionGet(app="greeter", name="f", environment="stagin"), FunctionSpec),
            ("ImageGet", ImageGet("web", "stagin"), ImageInfo),
            ("ContainerList", ContainerList(environment="stagin"), ContainerListing),
            ("EnvironmentGet", EnvironmentGet("stagin"), EnvironmentInfo),
        )
        for method, record, reply in records:
            error = await failure_of(stage.client.ask(method, record, reply))
            assert error.code == "not_found"
            assert "did you mean 'staging'" in error.message


async def test_app_that_is_in_another_environment_only_is_said_to_be_there() -> None:
    async with staged() as stage:
        await create(stage)
        await create(stage, "dev2")
        await deploy_into(stage, "", "here")

        async def told(name: str, environment: str) -> str:
            return (await failure_of(stage.client.ask("AppGet", AppGet(name, environment), AppInfo))).message

        assert await told("greeter", "dev") == (
            "no app is called 'greeter' in environment dev; there is one in environment main"
        )
        assert await told("other", "dev") == (
            "no app is called 'other' in environment dev; `squall app list -e dev` shows them"
        )
        assert await told("other", "") == "no app is called 'other'; `squall app list` shows them"
        await deploy_into(stage, "dev", "there")
        assert await told("greeter", "dev2") == (
            "no app is called 'greeter' in environment dev2; there is one in environments main, dev"
        )


async def test_names_of_environments_are_checked_and_taken_once() -> None:
    async with staged() as stage:
        for name in ("", "-a", "a.b", "a" * 65, "a b"):
            assert (await failure_of(create(stage, name))).code == "invalid"
        await create(stage)
        assert (await failure_of(create(stage))).code == "exists"
        assert (await failure_of(create(stage, "main"))).code == "exists"

        await stage.restart()
        await stage.client.connect()
        listing = await stage.client.ask("EnvironmentList", EnvironmentList(), EnvironmentListing)
        assert [one.name for one in listing.environments] == ["main", "dev"]


async def test_what_is_in_an_environment_goes_with_it() -> None:
    async with staged() as stage:
        await create(stage)
        await stage.store.put_image(StoredImage("im-1", ImageSpec(()), ImageConfig(), (), 1.0, 1.0))
        here, there = await deploy_into(stage, "", "here"), await deploy_into(stage, "dev", "there")
        for environment in ("", "dev"):
            await stage.client.ask("ImagePublish", ImagePublish("im-1", "web", environment), ImageName)

        gone = await stage.client.ask("EnvironmentDelete", EnvironmentDelete("dev"), EnvironmentDeleted)

        assert (gone.app_count, gone.image_name_count) == (1, 1)
        assert set(stage.plane.apps.live) == {here.app_id}
        assert (await stage.store.get_app(there.app_id)).state == "stopped"
        assert len(await stage.store.list_image_names()) == 1
        assert (await failure_of(deploy_into(stage, "dev", "again"))).code == "not_found"
        main = await failure_of(stage.client.ask("EnvironmentDelete", EnvironmentDelete("main"), EnvironmentDeleted))
        assert main.code == "invalid"


async def test_in_a_container_names_are_of_the_environment_of_its_app() -> None:
    async with staged() as stage:
        await create(stage)
        published = await deploy_into(stage, "dev", "there")
        dispatcher = stage.plane.apps.live[published.app_id].dispatchers["square"]
        stage.client.call(dispatcher.spec.function_id, 1)
        await stage.until(lambda: stage.node.guests)
        inside = await FakeClient(stage.plane, stage.codec).connect_inside(next(iter(stage.node.guests)))
        await stage.store.put_image(StoredImage("im-1", ImageSpec(()), ImageConfig(), (), 1.0, 1.0))
        await stage.client.ask("ImagePublish", ImagePublish("im-1", "web", "dev"), ImageName)

        info = await inside.ask("EnvironmentGet", EnvironmentGet(), EnvironmentInfo)
        child = new_id("ap")
        await inside.ask("AppCreate", AppCreate(child, "child"), AppCreated)
        elsewhere = await failure_of(
            inside.ask("AppCreate", AppCreate(new_id("ap"), "child", environment="main"), AppCreated)
        )

        assert info.name == "dev"
        assert (await inside.ask("ImageGet", ImageGet("web"), ImageInfo)).image_id == "im-1"
        assert stage.plane.apps.live[child].row.environment == "dev"
        assert elsewhere.code == "invalid"


async def test_environment_has_an_id_of_its_own_that_stays() -> None:
    async with staged() as stage:
        made = await create(stage)
        main = await stage.client.ask("EnvironmentGet", EnvironmentGet(), EnvironmentInfo)
        await stage.restart()
        await stage.client.connect()

        found = await stage.client.ask("EnvironmentGet", EnvironmentGet("dev"), EnvironmentInfo)

        assert is_id(found.environment_id, "en")
        assert found.environment_id == made.environment_id != main.environment_id
        await stage.client.ask("EnvironmentDelete", EnvironmentDelete("dev"), EnvironmentDeleted)
        stage.clock.advance(1.0)
        assert (await create(stage)).environment_id != made.environment_id
