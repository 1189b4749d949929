"""Apps made inside containers: how many, how deep, of what kind, and when they end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from squall.protocol.app import AppCreate, AppCreated, AppGet, AppInfo, AppStop
from squall.protocol.autoscaler import AutoscalerSettings, AutoscalerUpdate
from squall.protocol.call import CallGet, OutputBatch
from squall.protocol.empty import Empty
from squall.protocol.errors import PlatformError
from squall.protocol.function import (
    SERVER_TIMEOUT_S,
    FunctionCreate,
    FunctionCreated,
    FunctionSpec,
    Resources,
    RetryPolicy,
    Scaling,
)
from squall.protocol.ids import input_id, new_id
from squall.protocol.limits import CONTAINERS_MAX, TAGS_MAX
from squall.protocol.volume import VolumeMount
from squall.protocol.web import SERVER, WebSpec
from squall.server.dispatch.app import children
from squall.server.model.store import StoredApp
from tests.server.dispatch.client.test_callers import container_of, make_family, spawned
from tests.server.doubles import FakeClient, FakeGuest, make_spec, settle, staged


def make_app(*ancestors: str) -> StoredApp:
    return StoredApp(new_id("ap"), "hello", ancestors=ancestors)


# The rules


@pytest.mark.parametrize(
    "record",
    [
        AppCreate("ap-1", state="detached"),
        AppCreate("ap-1", state="deployed"),
        AppCreate("ap-1", "a\x1b]0;title\x07"),
        AppCreate("ap-1", "x" * 65),
        AppCreate("ap-1", tags={"team": "two\nlines"}),
        AppCreate("ap-1", environment="/"),
        AppCreate("ap-1", tags={f"tag{number}": "x" for number in range(TAGS_MAX + 1)}),
    ],
)
def test_child_is_ephemeral_and_has_a_name_that_lists_can_show(record: AppCreate) -> None:
    with pytest.raises(PlatformError) as refused:
        children.check_new(record)

    assert refused.value.code == "invalid"
    children.check_new(AppCreate("ap-1", "hello-1.0_b", tags={"team": "blue"}))


def test_depth_is_bounded() -> None:
    ancestors = [f"ap-{number}" for number in range(children.DEPTH_MAX)]

    children.check_room(make_app(*ancestors[:-1]), is_stopping=False, live=[])
    with pytest.raises(PlatformError, match="does a function run its own app") as refused:
        children.check_room(make_app(*ancestors), is_stopping=False, live=[])

    assert refused.value.code == "exhausted"


def test_living_descendants_of_one_app_are_bounded() -> None:
    parent, other = make_app(), make_app()
    live = [parent, *(make_app(parent.app_id) for _ in range(children.CHILDREN_MAX - 1))]

    children.check_room(parent, is_stopping=False, live=[*live, *(make_app(other.app_id) for _ in range(9))])
    deep = make_app(parent.app_id, live[1].app_id)
    with pytest.raises(PlatformError, match="1000 apps started by functions") as refused:
        children.check_room(live[1], is_stopping=False, live=[*live, deep])

    assert refused.value.code == "exhausted"
    children.check_room(other, is_stopping=False, live=[*live, deep])


async def test_functions_below_one_app_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FUNCTIONS_MAX", 3)
    async with staged() as stage:
        family = await make_family(stage)
        one, two = make_spec(family.child.app_id, "one"), make_spec(family.child.app_id, "two")

        await family.inside.ask("FunctionCreate", FunctionCreate((one,)), FunctionCreated)
        await family.inside.ask("FunctionCreate", FunctionCreate((one,)), FunctionCreated)
        with pytest.raises(PlatformError, match="4 functions") as refused:
            await family.inside.ask("FunctionCreate", FunctionCreate((two,)), FunctionCreated)

        assert refused.value.code == "exhausted"
        await stage.client.function()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a b"},
        {"name": ""},
        {"scaling": Scaling(max_containers=10**9)},
        {"scaling": Scaling(min_containers=10**9)},
        {"scaling": Scaling(target_inputs=-1)},
        {"resources": Resources(cpu_milli=-4_000)},
        {"resources": Resources(memory_mib=-1)},
        {"resources": Resources(memory_limit_mib=2**60)},
        {"retries": RetryPolicy(1, initial_delay_s=1e300)},
        {"timeout_s": 1e300},
        {"timeout_s": SERVER_TIMEOUT_S},
        {"timeout_s": 1e300, "web": WebSpec(SERVER, port=1)},
        {"scaling": Scaling(scaleup_window_s=1e300)},
        {"env": {"A": "x" * children.SPEC_BYTES_MAX}},
        {"image_id": "im-" + "x" * children.SPEC_BYTES_MAX},
        {"volumes": (VolumeMount("vo-1", "/x", name="x" * children.SPEC_BYTES_MAX),)},
        {"volumes": tuple(VolumeMount(f"vo-{number}", f"/{number}/{'x' * 990}") for number in range(70))},
    ],
)
def test_function_made_inside_has_numbers_that_bend_no_sums(changes: dict[str, Any]) -> None:
    spec: FunctionSpec = replace(make_spec("ap-1"), **changes)

    with pytest.raises(PlatformError) as refused:
        children.check_function(spec, is_network_blocked=False)

    assert refused.value.code == "invalid"
    children.check_function(make_spec("ap-1", cpu_milli=1_000), is_network_blocked=False)
    server = make_spec("ap-1", timeout_s=SERVER_TIMEOUT_S, web=WebSpec(SERVER, port=1))
    children.check_function(server, is_network_blocked=False)


async def test_function_made_inside_may_name_as_many_containers_as_one_made_outside() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        many = {"min_containers": 0, "max_containers": CONTAINERS_MAX}
        inside = make_spec(family.child.app_id, "inside", **many)
        outside = await stage.client.function(**many)

        await family.inside.ask("FunctionCreate", FunctionCreate((inside,)), FunctionCreated)
        for spec, client in ((inside, family.inside), (outside, stage.client)):
            update = AutoscalerUpdate(spec.function_id, max_containers=CONTAINERS_MAX)
            settings = await client.ask("AutoscalerUpdate", update, AutoscalerSettings)
            assert settings.max_containers == CONTAINERS_MAX


# How they end


async def test_child_ends_with_its_block_and_its_parent_goes_on() -> None:
    async with staged() as stage:
        family = await make_family(stage)

        await family.inside.ask("AppStop", AppStop(family.child.app_id), Empty)

        assert set(stage.plane.apps.live) == {family.parent.app_id, family.foreign.app_id}
        running = {one.function_id for one in stage.node.guests.values()}
        assert running == {family.parent.function_id, family.foreign.function_id}


async def test_descendants_end_with_the_app_above_before_that_is_answered() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        call = family.below.call(family.grandchild.function_id, 1)

        await stage.client.ask("AppStop", AppStop(family.parent.app_id), Empty)
        await settle()

        assert set(stage.plane.apps.live) == {family.foreign.app_id}
        assert {one.function_id for one in stage.node.guests.values()} == {family.foreign.function_id}
        for spec in (family.child, family.grandchild):
            assert (await stage.client.ask("AppGet", AppGet(spec.app_id), AppInfo)).state == "stopped"
        assert not call.outputs or call.outputs[0].failure.kind == "stopped"


async def test_child_ends_at_once_when_its_container_dies() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        guest = next(one for one in stage.node.guests.values() if one.function_id == family.parent.function_id)

        guest.exit(9)
        await stage.pass_time(3.0, 0.5)

        live = set(stage.plane.apps.live)
        assert family.parent.app_id in live
        assert not live & {family.child.app_id, family.grandchild.app_id}


async def test_child_ends_at_once_also_when_the_connection_went_first() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        guest = next(one for one in stage.node.guests.values() if one.function_id == family.parent.function_id)

        family.inside.disconnect()
        await stage.pass_time(1.0, 0.5)
        assert family.child.app_id in stage.plane.apps.live
        guest.exit(9)
        await stage.pass_time(3.0, 0.5)

        assert family.child.app_id not in stage.plane.apps.live


async def test_child_waits_for_its_client_as_any_app_does() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        container_id = next(
            key for key, one in stage.node.guests.items() if one.function_id == family.parent.function_id
        )  # fmt: skip

        family.inside.disconnect()
        await stage.pass_time(5.0, 1.0)
        await family.inside.connect_inside(container_id)
        await family.inside.ask("AppCreate", AppCreate(family.child.app_id, "hello"), AppCreated)
        await stage.pass_time(20.0, 1.0)
        assert family.child.app_id in stage.plane.apps.live
        family.inside.disconnect()
        await stage.pass_time(12.0, 1.0)

        assert family.child.app_id not in stage.plane.apps.live


async def test_child_that_two_containers_hold_ends_when_neither_does() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=2)
        await stage.until(lambda: len(stage.node.guests) == 2)
        first, second = [
            await FakeClient(stage.plane, stage.codec).connect_inside(container_id)
            for container_id in stage.node.guests
        ]
        app_id = await first.app()
        await second.ask("AppCreate", AppCreate(app_id, "hello"), AppCreated)

        second.disconnect()
        await stage.pass_time(20.0, 1.0)
        assert app_id in stage.plane.apps.live
        guests = list(stage.node.guests.values())
        guests[0].exit(9)
        await stage.pass_time(15.0, 1.0)

        assert app_id not in stage.plane.apps.live
        assert spec.app_id in stage.plane.apps.live


async def test_app_that_is_being_stopped_starts_no_others() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        stage.node.guests = {
            key: one for key, one in stage.node.guests.items() if one.function_id == family.foreign.function_id
        }
        stopping = asyncio.ensure_future(stage.client.ask("AppStop", AppStop(family.parent.app_id), Empty))
        await stage.pass_time(1.0, 0.5)

        with pytest.raises(PlatformError, match="being stopped"):
            await family.inside.app()

        await stage.pass_time(40.0, 1.0)
        assert stopping.done()


async def test_child_becomes_nothing_else_and_outside_takes_none_of_it_up_otherwise() -> None:
    async with staged() as stage:
        family = await make_family(stage)

        record = AppCreate(family.child.app_id, "hello", "deployed")
        with pytest.raises(PlatformError, match="ends with it"):
            await stage.client.ask("AppCreate", record, AppCreated)

        assert stage.plane.apps.live[family.child.app_id].row.state == "ephemeral"


# Room


async def test_parent_that_waits_for_a_spawned_call_of_its_child_gives_it_its_processor() -> None:
    async with staged(cpu_milli=1_000) as stage:
        parent = await stage.client.function(cpu_milli=1_000, max_containers=1)
        waiting: list[FakeClient] = []

        async def spawn_below(guest: FakeGuest, value: bytes) -> bytes:
            if guest.function_id != parent.function_id:
                return value + b"!"
            inside = await FakeClient(stage.plane, stage.codec).connect_inside(guest.container_id)
            waiting.append(inside)
            child = await inside.function(cpu_milli=1_000)
            call_id = await spawned(inside, child)
            (own_call_id, index), *_ = guest.running
            record = CallGet(call_id, 0, 30.0, input_id(own_call_id, index))
            assert inside.peer is not None
            return (await inside.peer.request_with_body("CallGet", record, OutputBatch, timeout_s=40.0))[1]

        stage.node.run = spawn_below
        call = stage.client.call(parent.function_id, 1)
        await stage.pass_time(3.0)

        assert call.outputs[0].value == b"7!"
        assert not any(one.is_waiting for one in stage.plane.fleet.containers.values())


# Restarts


async def test_family_is_whole_after_a_restart_of_the_server() -> None:
    async with staged() as stage:
        family = await make_family(stage)

        await stage.restart()
        await stage.client.connect()
        await stage.take_up(family.parent)
        container_id = next(
            key for key, one in stage.node.guests.items() if one.function_id == family.parent.function_id
        )  # fmt: skip
        family.inside.plane = stage.plane
        await family.inside.connect_inside(container_id)
        await family.inside.ask("AppCreate", AppCreate(family.child.app_id, "hello"), AppCreated)
        call = family.inside.call(family.child.function_id, 7)

        assert (await stage.done(call, 1))[0].value == b"14"
        info = await stage.client.ask("AppGet", AppGet(family.grandchild.app_id), AppInfo)
        assert info.parent_app_id == family.child.app_id


async def test_child_whose_parent_was_stopped_meanwhile_does_not_come_back() -> None:
    async with staged() as stage:
        family = await make_family(stage)
        await stage.store.set_app_state(family.parent.app_id, "stopping")

        await stage.restart(is_reconnecting=False)

        assert not set(stage.plane.apps.live) & {family.parent.app_id, family.child.app_id, family.grandchild.app_id}
        assert (await stage.store.get_app(family.grandchild.app_id)).state == "stopped"


# What is remembered


async def test_only_so_many_ended_children_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "ENDED_KEPT_MAX", 3)
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        inside = await container_of(stage, spec)
        ended = []
        for _ in range(6):
            ended.append(await inside.app())
            stage.clock.advance(1.0)
            await inside.ask("AppStop", AppStop(ended[-1]), Empty)

        listed = {row.app_id for row in await stage.store.list_apps(limit=100)}

        assert listed == {spec.app_id, *ended[-3:]}
