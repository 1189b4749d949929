"""What no answer of the server tells: what is in the environment variables of functions, and in secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from squall.protocol import (
    app,
    asset,
    autoscaler,
    call,
    container,
    deployment,
    environment,
    flight,
    image_catalog,
    schedule,
    secret,
    template,
)
from squall.protocol import function as wire
from squall.protocol import function_window as window
from squall.protocol.errors import FORBIDDEN, PlatformError
from squall.protocol.ids import new_id
from squall.protocol.methods import CLIENT, METHODS, UNARY
from squall.protocol.parameters import encode
from squall.protocol.records import to_wire
from squall.protocol.server import ServerStatusRequest
from squall.protocol.web import WebAddressList
from tests.server.dispatch.app.test_variants import MODEL
from tests.server.dispatch.deploying import deployable, prepare, publish
from tests.server.doubles import FakeClient, Stage, staged

SECRET = "planted-4711"

ASKED: dict[str, Callable[[str, str, str, str], Any]] = {
    "AppGet": lambda app_id, base, variant, call_id: app.AppGet(app_id),
    "AppHistory": lambda app_id, base, variant, call_id: deployment.AppHistoryGet(app_id),
    "AppList": lambda app_id, base, variant, call_id: app.AppList(),
    "AppPrepare": lambda app_id, base, variant, call_id: deployment.AppPrepare("greeter"),
    "AppTagsPut": lambda app_id, base, variant, call_id: deployment.AppTagsPut(app_id, {"a": "b"}),
    "AppWindow": lambda app_id, base, variant, call_id: window.AppWindowGet(app_id),
    "AssetGet": lambda app_id, base, variant, call_id: asset.AssetGet(asset.SECRET, "token"),
    "AssetList": lambda app_id, base, variant, call_id: asset.AssetList(asset.SECRET),
    "AutoscalerGet": lambda app_id, base, variant, call_id: autoscaler.AutoscalerGet(variant),
    "AutoscalerUpdate": lambda app_id, base, variant, call_id: autoscaler.AutoscalerUpdate(variant, max_containers=3),
    "CallGraph": lambda app_id, base, variant, call_id: flight.CallGraph(call_id),
    "CallInfo": lambda app_id, base, variant, call_id: call.CallInfoGet(call_id),
    "CallList": lambda app_id, base, variant, call_id: flight.CallList(app_id),
    "CallShow": lambda app_id, base, variant, call_id: flight.CallShow(call_id),
    "ContainerList": lambda app_id, base, variant, call_id: container.ContainerList(),
    "EnvironmentGet": lambda app_id, base, variant, call_id: environment.EnvironmentGet("main"),
    "EnvironmentList": lambda app_id, base, variant, call_id: environment.EnvironmentList(),
    "FunctionBind": lambda app_id, base, variant, call_id: wire.FunctionBind(variant, encode({"size": 9})),
    "FunctionGet": lambda app_id, base, variant, call_id: wire.FunctionGet(variant),
    "FunctionList": lambda app_id, base, variant, call_id: wire.FunctionList(app_id),
    "FunctionStats": lambda app_id, base, variant, call_id: wire.FunctionStatsGet(base),
    "FunctionWindow": lambda app_id, base, variant, call_id: window.FunctionWindowGet(base, has_variants=True),
    "ImageList": lambda app_id, base, variant, call_id: image_catalog.ImageList(),
    "ImageNameList": lambda app_id, base, variant, call_id: image_catalog.ImageNameList(),
    "ScheduleList": lambda app_id, base, variant, call_id: schedule.ScheduleList(),
    "SecretCreate": lambda app_id, base, variant, call_id: creation("again"),
    "SecretGet": lambda app_id, base, variant, call_id: secret.SecretGet("token", required_keys=("HIDDEN",)),
    "SecretKeyRotate": lambda app_id, base, variant, call_id: secret.SecretKeyRotate(),
    "SecretList": lambda app_id, base, variant, call_id: secret.SecretList(),
    "SecretUpdate": lambda app_id, base, variant, call_id: secret.SecretUpdate("token", {"MORE": SECRET}),
    "ServerStatus": lambda app_id, base, variant, call_id: ServerStatusRequest(),
    "TemplateDrop": lambda app_id, base, variant, call_id: template.TemplateDrop(app=app_id),
    "TemplateList": lambda app_id, base, variant, call_id: template.TemplateList(app_id),
    "VariantList": lambda app_id, base, variant, call_id: window.VariantList(base),
    "WebAddressList": lambda app_id, base, variant, call_id: WebAddressList(app_id),
}
ELSEWHERE = frozenset({
    # They answer with bytes of the user's, or with no more than an id or a count.
    "AppCreate", "AppPublish", "AppRollback", "AppStop", "AssetCreate", "AssetDelete", "AssetRename", "BlobGet",
    "BlobPut", "BlobStat", "CallCancel", "CallExtend",
    "CallGather", "CallGet", "CallInputGet", "CallRead", "CallReplay", "CallSpawn", "CallSpawnMany", "ContainerShow",
    "ContainerStop", "EnvironmentCreate", "EnvironmentDelete", "FunctionCreate", "Hello", "ImageDelete", "ImageGc",
    "ImageGet", "ImageNameDelete", "ImagePublish", "MountCreate", "ScheduleRun", "ServerStop",
})  # fmt: skip

OF_ASSETS = ("Asset", "Dict", "ProxyToken", "Queue", "Tunnel", "Volume")
"""What their methods begin with, which know no function."""


def test_every_method_that_clients_may_ask_is_looked_at() -> None:
    asked = {name for name, method in METHODS.items() if method.asked_by == CLIENT and method.shape == UNARY}

    of_assets = {name for name in asked if name.startswith(OF_ASSETS)}
    assert asked == ASKED.keys() | ELSEWHERE | of_assets


def creation(name: str, **fields: Any) -> secret.SecretCreate:
    return secret.SecretCreate(new_id("st"), {"HIDDEN": SECRET}, name, **fields)


async def planted(stage: Stage) -> tuple[str, str, str, str]:
    """A deployed class and an object of it, both with a secret, and a call of that."""
    prepared = await prepare(stage)
    named = (await stage.client.ask("SecretCreate", creation("token"), secret.SecretInfo)).asset_id
    of_app = creation("", app_id=prepared.app_id)
    unnamed = (await stage.client.ask("SecretCreate", of_app, secret.SecretInfo)).asset_id
    spec = deployable(prepared.app_id, "Model", definition=MODEL, env={"TOKEN": SECRET}, secrets=(named, unnamed))
    await publish(stage, prepared.app_id, spec)
    options = wire.FunctionOptions({"TOKEN": SECRET, "OTHER": SECRET}, secrets=(unnamed, named))
    asked = wire.FunctionBind(spec.function_id, encode({"size": 3}), options)
    variant = (await stage.client.ask("FunctionBind", asked, wire.FunctionBound)).function_id
    call_id = new_id("fc")
    spawn = call.CallSpawn(
        call.CallOpen(call_id, variant, call.SPAWN, method="run"), call.InputBatch(call_id, (0,), (1,))
    )
    await stage.client.ask("CallSpawn", spawn, call.CallSpawned, b"7")
    await stage.until(lambda: not stage.plane.calls.get(call_id))
    return prepared.app_id, spec.function_id, variant, call_id


async def test_no_answer_tells_what_is_in_variables() -> None:
    async with staged() as stage:
        ids = await planted(stage)
        assert stage.node.starts[0].secrets == {"HIDDEN": SECRET}

        for method, record in ASKED.items():
            answer = await stage.client.ask(method, record(*ids), METHODS[method].reply)

            assert SECRET not in json.dumps(to_wire(answer), default=str), method


async def test_names_of_variables_are_told() -> None:
    async with staged() as stage:
        _, base, variant, _ = await planted(stage)

        spec = await stage.client.ask("FunctionGet", wire.FunctionGet(variant), wire.FunctionSpec)
        listing = await stage.client.ask("VariantList", window.VariantList(base), window.VariantListing)

        assert spec.env == {"TOKEN": "", "OTHER": ""}
        assert json.loads(listing.variants[0].options)["env"] == ["OTHER", "TOKEN"]


async def test_who_replays_is_told_and_a_container_is_not() -> None:
    async with staged() as stage:
        _, _, variant, _ = await planted(stage)
        asked = wire.FunctionGet(variant, has_env=True)
        inside = await FakeClient(stage.plane, stage.codec).connect_inside(stage.node.started[0].container_id)

        spec = await stage.client.ask("FunctionGet", asked, wire.FunctionSpec)
        with pytest.raises(PlatformError) as caught:
            await inside.ask("FunctionGet", asked, wire.FunctionSpec)

        assert spec.env == {"TOKEN": SECRET, "OTHER": SECRET}
        assert caught.value.code == FORBIDDEN
