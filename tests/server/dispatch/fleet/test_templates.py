"""Templates are told what to load and may use their app, as its containers may; they are none."""

from __future__ import annotations

from typing import Any

import pytest

from squall.protocol.app import AppCreate, AppCreated, AppGet, AppInfo, AppStop, AppStopped
from squall.protocol.blob import BlobChunk, BlobGet
from squall.protocol.channel.memory import MemoryChannel
from squall.protocol.container import ContainerList, ContainerListing
from squall.protocol.errors import PlatformError
from squall.protocol.function import FunctionBind, FunctionBound, FunctionOptions, FunctionSpec
from squall.protocol.guest import Boot, BootRefused
from squall.protocol.ids import new_id
from squall.protocol.log import LogBatch, LogEntry, LogRead
from squall.protocol.node import ContainerHello
from squall.protocol.peer import Peer
from squall.protocol.records import replace
from squall.protocol.request import Request
from tests.server.doubles import FakeClient, Stage, settle, staged


class FakeTemplate:
    """A template's connection to the server."""

    def __init__(self, stage: Stage, spec: FunctionSpec, **fields: Any) -> None:
        self.hello = replace(
            ContainerHello(new_id("tp"), "template", "", False, spec.app_id, spec.function_id, spec.version), **fields
        )
        self.told: list[tuple[str, Any]] = []
        here, there = MemoryChannel.pair()
        stage.plane.accept_container(there)
        self._codec = stage.codec
        self.peer = Peer(here, stage.codec, self)
        self.peer.start()
        self.peer.event("ContainerHello", self.hello)

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        """See `Service`."""
        raise PlatformError("invalid", "a template answers nothing")

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `Service`."""
        record = {"Boot": Boot, "BootRefused": BootRefused}[method]
        self.told.append((method, self._codec.record(record, params)))

    def closed(self, reason: str) -> None:
        """See `Service`."""


async def client_of(stage: Stage, template: FakeTemplate) -> FakeClient:
    """The SDK in a template."""
    client = await FakeClient(stage.plane, stage.codec).connect_in_template(template.hello)
    await settle()
    return client


async def test_a_template_is_told_what_a_container_would_be() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_inputs=3, timeout_s=7.0)
        await stage.done(stage.client.call(spec.function_id, 1), 1)
        of_container = stage.node.started[0].boot
        assert of_container is not None

        template = FakeTemplate(stage, spec)
        await settle()

        assert template.told == [("Boot", replace(of_container, container_id=template.hello.container_id))]
        assert not template.peer.is_closed


async def test_a_variant_that_only_the_store_has_is_found_for_its_template() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        asked = FunctionBind(spec.function_id, options=FunctionOptions(timeout_s=5.0))
        variant_id = (await stage.client.ask("FunctionBind", asked, FunctionBound)).function_id
        await stage.restart()
        assert variant_id not in stage.plane.apps.dispatchers

        template = FakeTemplate(stage, spec, function_id=variant_id)
        await settle()

        assert [(method, boot.function_id, boot.timeout_s) for method, boot in template.told] == [
            ("Boot", variant_id, 5.0)
        ]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"function_id": "fu-00000001"}, "does not exist any more, or its app was stopped"),
        ({"app_id": "ap-00000001"}, "does not exist any more, or its app was stopped"),
        ({"version": 3}, "function square was deployed anew: it is of version 0 now"),
        ({"container_id": "ct-00000001"}, "is no id of a template of that function"),
    ],
    ids=["function", "app", "version", "id"],
)
async def test_a_template_of_what_there_is_not_is_told_so_and_cut_off(changes: dict[str, Any], cause: str) -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        template = FakeTemplate(stage, spec, **changes)
        await settle()

        assert [method for method, _ in template.told] == ["BootRefused"]
        assert cause in template.told[0][1].cause
        assert template.peer.is_closed


async def test_a_template_of_an_app_that_ends_is_told_so() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        await stage.client.ask("AppStop", AppStop(spec.app_id), AppStopped)

        template = FakeTemplate(stage, spec)
        await settle()

        assert [method for method, _ in template.told] == ["BootRefused"]


async def test_a_template_is_no_container() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        template = FakeTemplate(stage, spec)
        await client_of(stage, template)

        listed = await stage.client.ask("ContainerList", ContainerList(include_stopped=True), ContainerListing)
        template.peer.channel.close()
        await stage.pass_time(5.0)

        assert not listed.containers
        assert not stage.node.starts
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        assert (dispatcher.failures_in_a_row, dict(dispatcher.containers)) == (0, {})


async def test_code_in_a_template_may_call_functions_of_its_app_and_get_blobs() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.blobs.blobs["a" * 64] = b"value"
        inside = await client_of(stage, FakeTemplate(stage, spec))

        outputs = await stage.done(inside.call(spec.function_id, 21), 1)
        blob = await inside.ask("BlobGet", BlobGet("a" * 64), BlobChunk)

        assert outputs[0].value == b"42"
        assert blob.size_bytes == 5


async def test_code_in_a_template_may_use_no_other_app_and_no_method_of_clients_outside() -> None:
    async with staged() as stage:
        spec, foreign = await stage.client.function(), await stage.client.function()
        inside = await client_of(stage, FakeTemplate(stage, spec))

        call = inside.call(foreign.function_id, 1)
        await stage.done(call, 1)

        assert call.outputs[0].failure.kind == "invalid"
        for method, record, reply in (
            ("AppGet", AppGet(foreign.app_id), AppInfo),
            ("AppStop", AppStop(spec.app_id), AppStopped),
            ("ContainerList", ContainerList(), ContainerListing),
        ):
            with pytest.raises(PlatformError) as refused:
                await inside.ask(method, record, reply)
            assert refused.value.code == "forbidden"


async def test_a_client_of_a_template_that_may_not_be_is_cut_off() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        hello = ContainerHello(new_id("tp"), "client", "", False, spec.app_id, spec.function_id, 7)

        client = await FakeClient(stage.plane, stage.codec).connect_in_template(hello)
        await settle()

        assert client.peer is not None
        assert client.peer.is_closed


async def test_what_a_template_began_ends_when_it_is_ready() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        template = FakeTemplate(stage, spec)
        inside = await client_of(stage, template)
        child_id = await inside.app("child")

        inside.disconnect()
        template.peer.channel.close()
        await stage.pass_time(1.0)

        assert child_id not in stage.plane.apps.live
        assert spec.app_id in stage.plane.apps.live


async def test_an_app_of_a_template_stays_while_the_template_loads() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        template = FakeTemplate(stage, spec)
        inside = await client_of(stage, template)
        child_id = await inside.app("child")

        inside.disconnect()
        await stage.pass_time(1.0)
        await (await client_of(stage, template)).ask("AppCreate", AppCreate(child_id, "child"), AppCreated)

        assert child_id in stage.plane.apps.live
        assert not template.peer.is_closed


async def test_lines_of_a_template_are_those_of_its_function() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        asked = FunctionBind(spec.function_id, options=FunctionOptions(timeout_s=5.0))
        variant_id = (await stage.client.ask("FunctionBind", asked, FunctionBound)).function_id
        lines = [
            LogEntry(1.0, "stdout", "loaded", new_id("tp"), app_id=spec.app_id, function_id=spec.function_id),
            LogEntry(2.0, "stdout", "also", new_id("tp"), app_id=spec.app_id, function_id=variant_id),
        ]

        stage.node.tell("Logs", LogBatch(tuple(lines)))
        await settle()

        assert [(one.text, one.app_id, one.function_id, one.variant_id) for one in stage.logs.entries] == [
            ("loaded", spec.app_id, spec.function_id, ""),
            ("also", spec.app_id, spec.function_id, variant_id),
        ]
        assert stage.client.peer is not None
        read = stage.client.peer.stream("LogRead", LogRead(app=spec.app_id, container_id=lines[0].container_id))
        texts = [entry.text async for batch, _ in read.items(LogBatch) for entry in batch.entries]
        assert texts == ["loaded"]
