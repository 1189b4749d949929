"""What the SDK in a container may ask, method by method: its own app, those that descend from it, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from squall.protocol import methods
from squall.protocol.app import AppCreate, AppCreated, AppGet, AppInfo, AppStop
from squall.protocol.blob import BlobChunk, BlobGet, BlobMissing, BlobPut, BlobStat
from squall.protocol.call import (
    SPAWN,
    CallCancel,
    CallGather,
    CallGet,
    CallInfo,
    CallInfoGet,
    CallOpen,
    CallSpawn,
    CallSpawned,
    InputBatch,
    OutputBatch,
)
from squall.protocol.container import ContainerExec, TerminalOffer
from squall.protocol.deployment import AppHistoryGet, AppPrepare, AppPublish, AppRollback, AppTagsPut
from squall.protocol.empty import Empty
from squall.protocol.errors import PlatformError
from squall.protocol.flight import CallInputGet, CallReplay, CallShow, ContainerShow
from squall.protocol.function import (
    GVISOR,
    FunctionCreate,
    FunctionCreated,
    FunctionGet,
    FunctionSpec,
    FunctionStatsGet,
)
from squall.protocol.function_window import VariantList
from squall.protocol.ids import new_id
from squall.protocol.image import BuildEvent, ImageBuild, ImageSpec, image_id
from squall.protocol.image_catalog import (
    ImageDelete,
    ImageGet,
    ImageInfo,
    ImageLogRead,
    ImageName,
    ImageNameDelete,
    ImagePublish,
)
from squall.protocol.image_steps import debian_slim
from squall.protocol.log import LogEntry, LogRead
from squall.protocol.mount import MountCreate, MountCreated, MountFile, MountManifest
from squall.server.dispatch.client.callers import CONTAINER_METHODS
from tests.server.doubles import FakeClient, Stage, make_spec, staged

IMAGE = ImageSpec((debian_slim("3.11"),))


@dataclass
class Family:
    """An app with a container, its child with a container, its grandchild; and a foreign app."""

    inside: FakeClient
    """The SDK in a container of the parent."""
    below: FakeClient
    """The SDK in a container of the child."""
    parent: FunctionSpec
    child: FunctionSpec
    grandchild: FunctionSpec
    foreign: FunctionSpec


async def container_of(stage: Stage, spec: FunctionSpec) -> FakeClient:
    """The SDK in the first container of a function."""
    await stage.until(lambda: any(one.function_id == spec.function_id for one in stage.node.guests.values()))
    found = next(key for key, one in stage.node.guests.items() if one.function_id == spec.function_id)
    return await FakeClient(stage.plane, stage.codec).connect_inside(found)


async def make_family(stage: Stage) -> Family:
    parent = await stage.client.function(min_containers=1)
    foreign = await stage.client.function(min_containers=1)
    inside = await container_of(stage, parent)
    child = await inside.function(min_containers=1)
    below = await container_of(stage, child)
    grandchild = await below.function()
    return Family(inside, below, parent, child, grandchild, foreign)


async def ask(client: FakeClient, method: str, record: Any, body: bytes = b"") -> Any:
    """Ask for a method of the table, whatever its shape; of a stream, the last item."""
    known = methods.METHODS[method]
    if known.shape == methods.UNARY:
        return await client.ask(method, record, known.reply, body)
    assert client.peer is not None
    items = [item async for item, _ in client.peer.stream(method, record).items(known.reply)]
    return items[-1] if items else None


async def code_of(client: FakeClient, method: str, record: Any, body: bytes = b"") -> str:
    """`ok`, or the code it is refused with."""
    try:
        await ask(client, method, record, body)
    except PlatformError as error:
        return error.code
    return "ok"


async def spawned(client: FakeClient, spec: FunctionSpec) -> str:
    call_id = new_id("fc")
    record = CallSpawn(CallOpen(call_id, spec.function_id, SPAWN), InputBatch(call_id, (0,), (1,)))
    await client.ask("CallSpawn", record, CallSpawned, b"7")
    return call_id


def asked_about(app_id: str, spec: FunctionSpec, call_id: str) -> list[tuple[str, Any, bytes]]:
    """Every question about an app that uses it without changing it."""
    own = new_id("fc")
    return [
        ("AppGet", AppGet(app_id), b""),
        ("FunctionGet", FunctionGet(spec.function_id), b""),
        ("FunctionGet", FunctionGet(app=app_id, name=spec.name), b""),
        ("FunctionStats", FunctionStatsGet(spec.function_id), b""),
        ("CallSpawn", CallSpawn(CallOpen(own, spec.function_id, SPAWN), InputBatch(own, (0,), (1,))), b"7"),
        ("CallGet", CallGet(call_id), b""),
        ("CallGather", CallGather((call_id,)), b""),
        ("CallInfo", CallInfoGet(call_id), b""),
        ("CallCancel", CallCancel(call_id), b""),
    ]


def changes_of(app_id: str) -> list[tuple[str, Any]]:
    """Every question that changes an app, or reads what it printed."""
    return [
        ("AppCreate", AppCreate(app_id, "hello")),
        ("FunctionCreate", FunctionCreate((make_spec(app_id, "late"),))),
        ("LogRead", LogRead(app=app_id)),
        ("AppStop", AppStop(app_id)),
    ]


async def test_container_uses_its_own_app_and_all_that_descend_from_it() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        for spec in (family.parent, family.child, family.grandchild):
            call_id = await spawned(stage.client, spec)

            for method, record, body in asked_about(spec.app_id, spec, call_id):
                assert await code_of(family.inside, method, record, body) == "ok", (spec.name, method)
            call = family.inside.call(spec.function_id, 7)
            assert (await stage.done(call, 1))[0].value == b"14"


async def test_container_uses_no_foreign_app() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        call_id = await spawned(stage.client, family.foreign)

        for method, record, body in asked_about(family.foreign.app_id, family.foreign, call_id):
            assert await code_of(family.inside, method, record, body) == "forbidden", method
        refused = family.inside.call(family.foreign.function_id, 7)
        assert "own app" in (await stage.done(refused, 1))[0].failure.message


async def test_child_uses_neither_its_parent_nor_its_siblings() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        sibling = await family.inside.function()
        for spec in (family.parent, sibling):
            call_id = await spawned(stage.client, spec)

            for method, record, body in asked_about(spec.app_id, spec, call_id):
                assert await code_of(family.below, method, record, body) == "forbidden", method


async def test_container_changes_what_descends_from_its_app() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        for spec in (family.grandchild, family.child):
            stage.logs.append((LogEntry(1.0, "stdout", "hello", "ct-1", "", spec.app_id, spec.function_id),))

            for method, record in changes_of(spec.app_id):
                assert await code_of(family.inside, method, record) == "ok", method


async def test_container_changes_neither_its_own_app_nor_a_foreign_one() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        for spec in (family.parent, family.foreign):
            for method, record in changes_of(spec.app_id):
                assert await code_of(family.inside, method, record) == "forbidden", method
            assert stage.plane.apps.live[spec.app_id].stopping is None


async def test_container_takes_over_no_ended_app_and_learns_nothing_of_it() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        await stage.client.ask("AppStop", AppStop(family.foreign.app_id), Empty)
        stolen = replace(make_spec(family.child.app_id, "stolen"), function_id=family.foreign.function_id)

        assert await code_of(family.inside, "AppCreate", AppCreate(family.foreign.app_id, "hello")) == "forbidden"
        assert await code_of(family.inside, "FunctionCreate", FunctionCreate((stolen,))) == "invalid"
        assert (await stage.store.get_function(family.foreign.function_id)).app_id == family.foreign.app_id


async def test_container_reads_the_log_of_no_foreign_container() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        foreign = next(
            key for key, one in stage.node.guests.items() if one.function_id == family.foreign.function_id
        )  # fmt: skip
        for record, code in (
            (LogRead(container_id=foreign), "invalid"),
            (LogRead(app=family.child.app_id, container_id=foreign), "forbidden"),
            (LogRead(app=family.foreign.app_id, container_id=foreign), "forbidden"),
            (LogRead(), "invalid"),
        ):
            assert await code_of(family.inside, "LogRead", record) == code


async def test_container_puts_files_and_builds_images() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        file = MountFile("a.py", "0" * 64, 1)

        made = await family.inside.ask("MountCreate", MountCreate(MountManifest((file,))), MountCreated)
        missing = await family.inside.ask("BlobStat", BlobStat((file.sha256,)), BlobMissing)
        await family.inside.ask("BlobPut", BlobPut(file.sha256, 1, 0), Empty, b"x")
        chunk = await family.inside.ask("BlobGet", BlobGet(file.sha256, 0, 1), BlobChunk)
        built = await ask(family.inside, "ImageBuild", ImageBuild(IMAGE))

        assert made.missing_sha256s == missing.sha256s == (file.sha256,)
        assert chunk.size_bytes == 1
        assert isinstance(built, BuildEvent)


async def test_container_finds_a_published_image_and_learns_nothing_of_its_users() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        built = (await ask(stage.client, "ImageBuild", ImageBuild(IMAGE, family.foreign.app_id))).image_id
        await stage.client.ask("ImagePublish", ImagePublish(built, "web"), ImageName)

        found = await family.inside.ask("ImageGet", ImageGet("web"), ImageInfo)

        assert (found.image_id, found.app_id, found.users, found.names, found.spec) == (built, "", (), (), None)
        outside = await stage.client.ask("ImageGet", ImageGet("web"), ImageInfo)
        assert (outside.app_id, outside.names, outside.spec) == (family.foreign.app_id, ("web:latest",), IMAGE)
        assert await code_of(family.inside, "ImageGet", ImageGet("other")) == "not_found"


async def test_everything_else_is_for_clients_outside() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        asked = {
            name
            for name, method in methods.METHODS.items()
            if method.asked == methods.SERVER and method.asked_by == methods.CLIENT and method.shape != methods.EVENT
        }
        records: dict[str, Any] = {
            "AppPrepare": AppPrepare("greeter"),
            "AppPublish": AppPublish("ap-1", "greeter", "once"),
            "AppRollback": AppRollback("greeter", "once"),
            "AppHistory": AppHistoryGet("greeter"),
            "AppTagsPut": AppTagsPut("greeter", {}),
            "EnvironmentCreate": methods.METHODS["EnvironmentCreate"].request("dev"),
            "EnvironmentDelete": methods.METHODS["EnvironmentDelete"].request("dev"),
            "ContainerExec": ContainerExec("ct-1", ("sh",)),
            "FunctionList": methods.METHODS["FunctionList"].request("ap-1"),
            "TerminalOffer": TerminalOffer(family.child.app_id, 24, 80),
            "ImagePush": methods.METHODS["ImagePush"].request("im-1", "registry.test/app:1"),
            "ImageShell": methods.METHODS["ImageShell"].request("im-1"),
            "ImageExport": methods.METHODS["ImageExport"].request("im-1"),
            "ScheduleRun": methods.METHODS["ScheduleRun"].request("hello", "square"),
            "ContainerStop": methods.METHODS["ContainerStop"].request("ct-1"),
            "ImageLogRead": ImageLogRead("im-1"),
            "SecretUpdate": methods.METHODS["SecretUpdate"].request("token"),
            "CallShow": CallShow("fc-00000000none"),
            "CallInputGet": CallInputGet("fc-00000000none"),
            "CallReplay": CallReplay("fc-00000000none", "fc-00000000more"),
            "ContainerShow": ContainerShow("ct-1"),
            "VariantList": VariantList("fu-1"),
            "QueueTotalsGet": methods.METHODS["QueueTotalsGet"].request(("qu-1",)),
            "VolumeGc": methods.METHODS["VolumeGc"].request(),
            "VolumeRetentionPut": methods.METHODS["VolumeRetentionPut"].request("vo-1"),
            "VolumeUsageGet": methods.METHODS["VolumeUsageGet"].request("vo-1"),
            "ProxyTokenCreate": methods.METHODS["ProxyTokenCreate"].request("wk-1", "0" * 64),
            "ProxyTokenUpdate": methods.METHODS["ProxyTokenUpdate"].request("wk-1", "ci"),
            "ProxyTokenAllow": methods.METHODS["ProxyTokenAllow"].request("wk-1"),
            "ProxyTokenRevoke": methods.METHODS["ProxyTokenRevoke"].request("wk-1"),
            "ProxyTokenDelete": methods.METHODS["ProxyTokenDelete"].request("wk-1"),
            "ImagePublish": ImagePublish("im-1", "web"),
            "ImageNameDelete": ImageNameDelete("web"),
            "ImageDelete": ImageDelete(("im-1",)),
        }

        for method in asked - CONTAINER_METHODS:
            record = records.get(method) or methods.METHODS[method].request()
            assert await code_of(family.inside, method, record) == "forbidden", method
        assert {"AppList", "ContainerList", "ContainerStop", "ContainerExec", "ServerStop", "TerminalOffer"} <= (
            asked - CONTAINER_METHODS
        )


async def test_tokens_are_neither_made_nor_seen_inside() -> None:
    async with staged() as stage:
        family = await make_family(stage)

        for method in (one for one in methods.METHODS if one.startswith("ProxyToken")):
            request = methods.METHODS[method].request
            record = (
                request("wk-1", "0" * 64) if method in ("ProxyTokenCreate", "ProxyTokenUpdate") else request("wk-1")
            )
            assert await code_of(family.inside, method, record) == "forbidden", method


async def test_name_chosen_inside_stands_for_no_app_outside() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        shadow = new_id("ap")
        await family.inside.ask("AppCreate", AppCreate(shadow, "payments"), AppCreated)

        with pytest.raises(PlatformError, match="no app is called"):
            await stage.client.ask("AppGet", AppGet("payments"), AppInfo)
        outside = await stage.client.app("payments")

        assert (await stage.client.ask("AppGet", AppGet("payments"), AppInfo)).app_id == outside
        assert (await family.inside.ask("AppGet", AppGet("payments"), AppInfo)).app_id == shadow
        with pytest.raises(PlatformError, match="no app is called"):
            await family.below.ask("AppGet", AppGet("payments"), AppInfo)
        assert (await stage.client.ask("AppGet", AppGet(shadow), AppInfo)).parent_app_id == family.parent.app_id


async def test_result_of_an_ended_child_is_there_for_those_above_only() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        call_id = await spawned(family.inside, family.child)
        call = CallGet(call_id, timeout_s=0.0)
        await stage.until(lambda: stage.plane.calls.get(call_id) is None)
        await family.inside.ask("AppStop", AppStop(family.child.app_id), Empty)
        stranger = await container_of(stage, family.foreign)

        kept = await family.inside.ask("CallGet", call, OutputBatch)
        info = await family.inside.ask("CallInfo", CallInfoGet(call_id), CallInfo)

        assert kept.indexes == (0,)
        assert info.statuses == ("succeeded",)
        assert await code_of(stranger, "CallGet", call) == "forbidden"


async def test_container_behind_another_kernel_stays_behind_it() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1, isolation=GVISOR)
        inside = await container_of(stage, spec)
        app_id = await inside.app()
        weaker = make_spec(app_id, "weaker")
        known = ImageBuild(ImageSpec((debian_slim("3.12"),)))

        assert await code_of(inside, "FunctionCreate", FunctionCreate((weaker,))) == "invalid"
        await inside.ask("FunctionCreate", FunctionCreate((replace(weaker, isolation=GVISOR),)), FunctionCreated)
        # The steps of a build have no such kernel, so what it may use is built already.
        assert await code_of(inside, "ImageBuild", known) == "forbidden"
        for node in stage.plane.fleet.nodes.values():
            node.has_image(image_id(known.spec))
        assert (await ask(inside, "ImageBuild", known)).image_id == image_id(known.spec)


async def test_container_may_put_another_kernel_before_what_it_makes() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        inside = await container_of(stage, spec)
        stronger = make_spec(await inside.app(), "stronger", isolation=GVISOR)

        await inside.ask("FunctionCreate", FunctionCreate((stronger,)), FunctionCreated)


async def test_container_without_a_network_gives_none_to_others() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1, is_network_blocked=True)
        inside = await container_of(stage, spec)
        app_id = await inside.app()
        connected = make_spec(app_id, "connected")
        known = ImageBuild(ImageSpec((debian_slim("3.12"),)))

        assert await code_of(inside, "FunctionCreate", FunctionCreate((connected,))) == "invalid"
        blocked = FunctionCreate((replace(connected, is_network_blocked=True),))
        await inside.ask("FunctionCreate", blocked, FunctionCreated)
        # The steps of a build have a network, so what it may use is built already.
        assert await code_of(inside, "ImageBuild", known) == "forbidden"
        for node in stage.plane.fleet.nodes.values():
            node.has_image(image_id(known.spec))
        assert (await ask(inside, "ImageBuild", known)).image_id == image_id(known.spec)
