"""Who may mount which volumes: in steps of images, and by options."""

from __future__ import annotations

import asyncio

import pytest

from squall.protocol import volume as wire
from squall.protocol.asset import VOLUME, AssetDelete, AssetGet, AssetInfo
from squall.protocol.empty import Empty
from squall.protocol.environment import EnvironmentCreate, EnvironmentInfo
from squall.protocol.errors import PlatformError
from squall.protocol.function import FunctionBind, FunctionBound, FunctionOptions
from squall.protocol.ids import new_id
from squall.protocol.image import BuildEvent, ImageBuild, ImageSpec
from squall.protocol.image_steps import debian_slim, run_commands
from tests.server.dispatch.asset.test_volumes import collect, failure_of, make_volume, put_files, retain
from tests.server.dispatch.client.test_callers import container_of
from tests.server.doubles import FakeClient, staged


async def built(client: FakeClient, *mounts: wire.VolumeMount) -> None:
    spec = ImageSpec((debian_slim("3.11"), run_commands(("make it",), volumes=mounts)))
    assert client.peer is not None
    async for _ in client.peer.stream("ImageBuild", ImageBuild(spec)).items(BuildEvent):
        pass


async def test_a_build_mounts_volumes_that_are_there_and_in_a_container_those_of_its_environment() -> None:
    async with staged() as stage:
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        here, there = await make_volume(stage.client), await make_volume(stage.client, environment="dev")
        inside = await container_of(stage, await stage.client.function(min_containers=1))

        for client, mount, code in (
            (stage.client, wire.VolumeMount(new_id("vo"), "/x"), "not_found"),
            (stage.client, wire.VolumeMount(here, "/x", sub_path="../x"), "invalid"),
            (stage.client, wire.VolumeMount(here, "/proc"), "invalid"),
            (inside, wire.VolumeMount(there, "/x"), "forbidden"),
        ):
            failure = await failure_of(built(client, mount))
            assert failure.code == code, failure
        assert not stage.node.build_records
        for client in (stage.client, inside):
            await built(client, wire.VolumeMount(here, "/x"))
        assert [record.spec.steps[1].volumes[0].volume_id for record in stage.node.build_records] == [here] * 2


async def test_a_container_finds_a_volume_of_another_environment_that_it_has_mounted_and_does_no_more_with_it() -> None:
    async with staged() as stage:
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        mounted = await make_volume(stage.client, "weights", environment="dev")
        other = await make_volume(stage.client, "others", environment="dev")
        spec = await stage.client.function(min_containers=1, volumes=(wire.VolumeMount(mounted, "/x"),))
        inside = await container_of(stage, spec)

        async def find(asset: str, environment: str = "") -> str:
            try:
                found: AssetInfo = await inside.ask("AssetGet", AssetGet(VOLUME, asset, environment), AssetInfo)
            except PlatformError as error:
                return error.code
            return found.asset_id

        assert [await find(mounted), await find("weights", "dev")] == [mounted, mounted]
        assert [await find(other), await find("others", "dev"), await find("none", "dev")] == ["forbidden"] * 3
        read = wire.VolumeHistoryGet(mounted)
        assert (await failure_of(inside.ask("VolumeHistoryGet", read, wire.VolumeHistory))).code == "forbidden"
        delete = AssetDelete(VOLUME, mounted)
        assert (await failure_of(inside.ask("AssetDelete", delete, Empty))).code == "forbidden"


async def test_a_version_that_a_function_names_is_there_and_stays() -> None:
    async with staged() as stage:
        volume_id = await make_volume(stage.client)
        for number in range(3):
            await put_files(stage.client, volume_id, "a", data=bytes([number]))
        await retain(stage.client, volume_id, 1, 0)
        await stage.client.function(volumes=(wire.VolumeMount(volume_id, "/x", version=1),))
        missing = stage.client.function(volumes=(wire.VolumeMount(volume_id, "/x", version=9),))
        refused = await failure_of(missing)
        assert refused.code == "not_found"
        assert refused.message.startswith("FunctionCreate: function 'square': volume weights has no version 9")

        await stage.pass_time(2 * 3_600.0, 600.0)
        await collect(stage.client, volume_id)

        history = await stage.client.ask("VolumeHistoryGet", wire.VolumeHistoryGet(volume_id), wire.VolumeHistory)
        assert sorted(one.number for one in history.versions) == [1, 3]


async def test_options_mount_volumes_that_are_there() -> None:
    async with staged() as stage:
        here = await make_volume(stage.client)
        spec = await stage.client.function(volumes=(wire.VolumeMount(here, "/x"),))

        for mount, code in (
            (wire.VolumeMount(new_id("vo"), "/x"), "not_found"),
            (wire.VolumeMount(here, "/tmp"), "invalid"),
            (wire.VolumeMount(here, "/x", sub_path="a//b"), "invalid"),
        ):
            bind = FunctionBind(spec.function_id, options=FunctionOptions(volumes=(mount,)))
            assert (await failure_of(stage.client.ask("FunctionBind", bind, FunctionBound))).code == code
        bind = FunctionBind(spec.function_id, options=FunctionOptions(volumes=(wire.VolumeMount(here, "/y"),)))
        bound = await stage.client.ask("FunctionBind", bind, FunctionBound)
        assert bound.function_id != spec.function_id
        of_it = stage.plane.apps.dispatchers[bound.function_id].spec
        assert [mount.target for mount in of_it.volumes] == ["/y"]


async def test_versions_of_all_volumes_are_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        ids = [await make_volume(stage.client, name) for name in ("a", "b", "c")]
        mounts = tuple(wire.VolumeMount(volume_id, f"/{volume_id}") for volume_id in ids)
        volumes = stage.plane.volumes
        version_of, all_asked, asked = volumes.version_of, asyncio.Event(), list[str]()

        async def waiting(volume_id: str, number: int | None) -> wire.VolumeVersion:
            asked.append(volume_id)
            if len(asked) == len(mounts):
                all_asked.set()
            await all_asked.wait()
            return await version_of(volume_id, number)

        monkeypatch.setattr(volumes, "version_of", waiting)
        await stage.client.function(min_containers=1, volumes=mounts)
        await stage.until(lambda: len(stage.node.guests) == 1)
        assert asked == ids
