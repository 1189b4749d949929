"""Clients, above all those in containers: what they leave behind, and whom they can keep out."""

from __future__ import annotations

import pytest

from squall.protocol import call as wire
from squall.protocol.call import CallOpen
from squall.protocol.errors import PlatformError
from squall.protocol.ids import new_id
from squall.protocol.server import Hello, Welcome
from squall.protocol.version import PROTOCOL_VERSION, VERSION
from squall.server.dispatch.client import client as client_module
from squall.server.dispatch.client import clients
from tests.server.dispatch.client.test_callers import container_of, make_family
from tests.server.doubles import FakeClient, Stage, settle, staged


async def serving(stage: Stage) -> str:
    """A container that runs."""
    spec = await stage.client.function(max_containers=1, timeout_s=86_400)
    await stage.done(stage.client.call(spec.function_id, 1), 1)
    return stage.node.started[-1].container_id


async def test_container_that_connects_for_ever_leaves_nothing_behind() -> None:
    async with staged() as stage:
        container_id = await serving(stage)
        before = len(stage.plane.clients._clients)

        for _ in range(20):
            client = await FakeClient(stage.plane, stage.codec).connect_inside(container_id)
            await settle()
            client.disconnect()
            await settle()
        await stage.pass_time(1.0)

        assert len(stage.plane.fleet.containers[container_id].on_stopped) == 1
        assert len(stage.plane.clients._clients) == before


async def test_containers_of_an_app_keep_nobody_out_but_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "CLIENTS_BELOW_MAX", 2)
    monkeypatch.setattr(clients, "CLIENTS_MAX", 4)
    async with staged() as stage:
        greedy, modest = await serving(stage), await serving(stage)

        for _ in range(2):
            await FakeClient(stage.plane, stage.codec).connect_inside(greedy)
        other = await FakeClient(stage.plane, stage.codec).connect_inside(modest)
        await settle()
        assert other.client_id in {client_id for _, client_id in stage.plane.clients._clients}
        for _ in range(2):
            await FakeClient(stage.plane, stage.codec).connect()
        with pytest.raises(PlatformError, match="clients are connected") as caught:
            stage.plane.clients._check_room(stage.plane.fleet.containers[greedy].dispatcher.spec.app_id)

        assert caught.value.code == "exhausted"


async def test_connection_is_one_clients() -> None:
    async with staged() as stage:
        again = Hello(VERSION, PROTOCOL_VERSION, stage.client.client_id)
        await stage.client.ask("Hello", again, Welcome)

        with pytest.raises(PlatformError, match="open another") as caught:
            await stage.client.ask("Hello", Hello(VERSION, PROTOCOL_VERSION, new_id("cl")), Welcome)

        assert caught.value.code == "conflict"


async def test_client_stays_when_an_older_one_of_its_name_is_forgotten() -> None:
    async with staged() as stage:
        container_id = await serving(stage)
        inside = await FakeClient(stage.plane, stage.codec).connect_inside(container_id)
        await settle()
        key = next(one for one in stage.plane.clients._clients if one[1] == inside.client_id)
        old = stage.plane.clients._clients[key]
        stage.plane.clients.forget(old)
        await inside.connect_inside(container_id)
        await settle()

        stage.plane.clients.forget(old)

        assert key in stage.plane.clients._clients


@pytest.mark.parametrize(
    "record",
    [CallOpen("x" * 1_000, "fu-1", wire.MAP), CallOpen("fc-" + "0" * 22, "fu-1", "map" * 1_000)],
    ids=["an id", "a kind"],
)
async def test_call_with_more_than_an_id_and_a_kind_is_not_remembered(record: CallOpen) -> None:
    async with staged() as stage:
        (client,) = stage.plane.clients._clients.values()
        assert client.peer is not None

        with pytest.raises(ValueError, match="no kind of one"):
            client.peer._service.event("CallOpen", stage.codec._encoder.encode(record), b"")  # type: ignore[union-attr]

        assert not client.calls
        assert not client._refusals


async def test_clients_below_one_app_share_how_many_calls_they_may_have_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "CALLS_BELOW_MAX", 4)
    async with staged() as stage:
        family = await make_family(stage)
        function_id = family.child.function_id
        other, child = await container_of(stage, family.parent), family.below
        open_before = [client.call(function_id, 1) for client in (family.inside, family.inside, other, child)]
        await settle()

        refused = child.call(function_id, 1)
        await stage.done(refused, 1)

        failure = refused.outputs[0].failure
        assert failure.kind == "exhausted"
        for part in ("CallOpen", refused.call_id, family.parent.app_id, "4 calls open", "let some of them end"):
            assert part in failure.message
        assert (await stage.done(stage.client.call(function_id, 1), 1))[0].value == b"2"
        family.inside.close_call(open_before[0])
        assert (await stage.done(child.call(function_id, 1), 1))[0].value == b"2"
        for client in (family.inside, other, child):
            for call in client.calls.values():
                client.close_call(call)
        await settle()
        assert stage.plane.calls.open_below[family.parent.app_id] == 0
        assert stage.plane.calls.refused_below[family.parent.app_id] == 0


async def test_calls_of_clients_that_are_gone_count_until_they_have_ended() -> None:
    async with staged() as stage:
        container_id = await serving(stage)
        app_id = stage.plane.fleet.containers[container_id].dispatcher.spec.app_id
        (dispatcher,) = stage.plane.apps.live[app_id].dispatchers.values()
        dispatcher.outlives_client = True
        stage.node.started[-1].is_holding = True
        inside = await FakeClient(stage.plane, stage.codec).connect_inside(container_id)
        inside.call(dispatcher.spec.function_id, 1)
        await settle()
        client = next(one for one in stage.plane.clients._clients.values() if one.client_id == inside.client_id)

        stage.plane.clients.forget(client)
        assert stage.plane.calls.open_below[app_id] == 1
        stage.node.started[-1].is_holding = False
        stage.node.started[-1].begin()
        await stage.until(lambda: not stage.plane.calls.open_below[app_id])

        assert len(stage.plane.calls.open_below) <= 1


async def test_refused_calls_of_clients_below_one_app_are_remembered_within_one_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "CALLS_MAX", 10)
    async with staged() as stage:
        container_id = await serving(stage)
        app_id = stage.plane.fleet.containers[container_id].dispatcher.spec.app_id
        insides = [await FakeClient(stage.plane, stage.codec).connect_inside(container_id) for _ in range(5)]

        for inside in insides:
            for _ in range(10):
                inside.open(new_id("fu"))
        await settle()

        remembered = [len(one._refusals) for one in stage.plane.clients._clients.values() if one.scope_app_id]
        assert sum(remembered) == stage.plane.calls.refused_below[app_id] == 10
        for inside in insides:
            inside.disconnect()
        await stage.pass_time(1.0)
        assert stage.plane.calls.refused_below[app_id] == 0
