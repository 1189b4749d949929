"""Autoscalers that are changed while their functions run."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from squall.protocol.autoscaler import AutoscalerGet, AutoscalerSettings, AutoscalerUpdate
from squall.protocol.errors import PlatformError
from squall.protocol.function import (
    BY_FILE,
    Definition,
    FunctionBind,
    FunctionBound,
    FunctionCreate,
    FunctionCreated,
    FunctionSpec,
    MethodSpec,
    ParameterSpec,
    Scaling,
)
from squall.protocol.pages import pages
from squall.protocol.parameters import encode
from squall.protocol.web import SERVER, WebSpec
from squall.server.autoscaler import STEP_KEPT_MAX
from squall.server.dispatch.fleet import fleet, scaling
from squall.server.dispatch.fleet.autoscaling import changed
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.model.config import ServerConfig
from tests.server.doubles import FakeClient, FakeGuest, Stage, make_spec, staged


async def update(stage: Stage, spec: FunctionSpec, **fields: object) -> AutoscalerSettings:
    record = AutoscalerUpdate(spec.function_id, **fields)  # type: ignore[arg-type]
    settings: AutoscalerSettings = await stage.client.ask("AutoscalerUpdate", record, AutoscalerSettings)
    return settings


def count(stage: Stage) -> int:
    return sum(not one.is_draining and not one.ending for one in stage.plane.fleet.containers.values())


async def test_settings_are_what_the_function_was_made_with() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=7, scaledown_window_s=30.0)

        found = await stage.client.ask("AutoscalerGet", AutoscalerGet(spec.function_id), AutoscalerSettings)

        assert found == AutoscalerSettings(0, 7, 0, 30.0)


def server_spec() -> dict[str, object]:
    """Of an app's server whose containers take ten requests at once."""
    definition = Definition(BY_FILE, "web", "Web", is_class=True)
    return {"definition": definition, "web": WebSpec(SERVER, port=8_000), "max_inputs": 10}


async def test_target_of_a_server_is_changed_for_containers_and_for_who_shares_requests_out() -> None:
    async with staged() as stage:
        spec = await stage.client.function(**server_spec())

        settings = await update(stage, spec, target_inputs=3, scaleup_window_s=20.0)

        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        assert (settings.target_inputs, settings.scaleup_window_s) == (3, 20.0)
        assert (dispatcher.scaling.target_inputs, dispatcher.target) == (3, 3)

        await stage.restart()
        assert stage.plane.apps.dispatchers[spec.function_id].target == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_inputs": 0}, "target_concurrency=0 must be from 1 to 10"),
        ({"target_inputs": 11}, "target_concurrency=11 must be from 1 to 10"),
        ({"scaleup_window_s": -1.0}, "scaleup_window=-1 must be from 0 to 3600 seconds"),
        ({"scaleup_window_s": 4_000.0}, "scaleup_window=4000 must be from 0 to 3600 seconds"),
    ],
)
async def test_impossible_values_of_a_server_are_refused(fields: dict[str, object], message: str) -> None:
    async with staged() as stage:
        spec = await stage.client.function(**server_spec())
        with pytest.raises(PlatformError, match=message):
            await update(stage, spec, **fields)


async def test_what_is_of_servers_is_refused_for_a_function() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        for fields in ({"target_inputs": 1}, {"scaleup_window_s": 1.0}):
            with pytest.raises(PlatformError, match="are of an app's server"):
                await update(stage, spec, **fields)


async def test_raising_the_minimum_starts_containers_at_once() -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        assert (await update(stage, spec, min_containers=3)).min_containers == 3
        await stage.until(lambda: len(stage.node.started) == 3)

        await stage.pass_time(200.0, 1.0)
        assert count(stage) == 3


async def test_lowering_the_minimum_lets_them_go_after_the_window() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=3, scaledown_window_s=10.0)
        await stage.until(lambda: len(stage.node.started) == 3)
        await stage.pass_time(30.0, 1.0)

        await update(stage, spec, min_containers=1)
        await stage.pass_time(0.2)

        assert count(stage) == 1


async def test_lowering_the_maximum_drains_what_is_too_much_and_ends_no_input() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = forever
        call = stage.client.call(spec.function_id, *range(4))
        await stage.until(lambda: len(stage.node.started) == 4 and all(one.running for one in stage.node.started))

        await update(stage, spec, max_containers=1)
        await stage.pass_time(1.0)

        assert count(stage) == 1
        assert len(stage.node.guests) == 4
        assert not call.outputs


async def forever(guest: FakeGuest, value: bytes) -> bytes:
    await asyncio.Event().wait()
    return value


async def test_taking_the_maximum_away_starts_more() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = forever
        stage.client.call(spec.function_id, *range(4))
        await stage.pass_time(3.0)
        assert count(stage) == 1

        assert (await update(stage, spec, is_unbounded=True)).max_containers is None
        await stage.until(lambda: count(stage) == 4)


async def test_a_shorter_window_counts_for_containers_that_are_idle_already() -> None:
    async with staged() as stage:
        spec = await stage.client.function(scaledown_window_s=600.0)
        await stage.done(stage.client.call(spec.function_id, 1), 1)
        await stage.pass_time(20.0, 1.0)
        assert count(stage) == 1

        await update(stage, spec, scaledown_window_s=10.0)
        await stage.pass_time(0.2)

        assert count(stage) == 0


async def test_what_was_changed_outlives_the_server() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        await update(stage, spec, min_containers=2, scaledown_window_s=5.0)

        await stage.restart()
        await stage.client.connect()
        await stage.take_up(spec)
        found = await stage.client.ask("AutoscalerGet", AutoscalerGet(spec.function_id), AutoscalerSettings)

        assert found == AutoscalerSettings(2, None, 0, 5.0)


async def test_what_contradicts_is_refused_and_changes_nothing() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=2)

        with pytest.raises(PlatformError, match="max_containers=1 is less than min_containers=2"):
            await update(stage, spec, max_containers=1)

        assert stage.plane.apps.dispatchers[spec.function_id].scaling == spec.scaling
        assert await stage.store.list_scaling(spec.app_id) == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_containers": -1}, "min_containers=-1 must be between 0 and"),
        ({"min_containers": 10**9}, "min_containers=1000000000 must be between 0 and"),
        ({"max_containers": 0}, "max_containers=0 must be between 1 and"),
        ({"buffer_containers": -5}, "buffer_containers=-5 must be between 0 and"),
        ({"scaledown_window_s": 1.0}, "scaledown_window=1 must be between 2 and 3600"),
        ({"scaledown_window_s": float("nan")}, "scaledown_window=nan must be between 2 and 3600"),
    ],
)
def test_impossible_values_are_named(fields: dict[str, float], message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        changed(Scaling(), AutoscalerUpdate("fu-1", **fields), "square")  # type: ignore[arg-type]


def test_what_is_left_out_stays() -> None:
    before = Scaling(min_containers=1, max_containers=9, buffer_containers=2, scaledown_window_s=30.0, max_inputs=4)

    assert changed(before, AutoscalerUpdate("fu-1", buffer_containers=0), "f") == replace(before, buffer_containers=0)


async def test_a_container_may_change_its_own_function_and_no_other() -> None:
    async with staged() as stage:
        mine, other = await stage.client.function(), await stage.client.function()
        await stage.done(stage.client.call(mine.function_id, 1), 1)
        inside = await FakeClient(stage.plane, stage.codec).connect_inside(stage.node.started[0].container_id)

        await inside.ask("AutoscalerUpdate", AutoscalerUpdate(mine.function_id, min_containers=1), AutoscalerSettings)

        with pytest.raises(PlatformError, match="another"):
            await inside.ask("AutoscalerUpdate", AutoscalerUpdate(other.function_id), AutoscalerSettings)
        most = AutoscalerUpdate(mine.function_id, min_containers=100_001)
        with pytest.raises(PlatformError, match="must be between 0 and 100000"):
            await inside.ask("AutoscalerUpdate", most, AutoscalerSettings)


async def test_of_two_changes_at_once_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        store, set_scaling = stage.store, stage.store.set_scaling

        async def slow(app_id: str, function_id: str, changed_to: Scaling) -> None:
            await asyncio.sleep(0)
            await set_scaling(app_id, function_id, changed_to)

        monkeypatch.setattr(store, "set_scaling", slow)
        await asyncio.gather(update(stage, spec, buffer_containers=2), update(stage, spec, max_containers=5))

        found = await stage.client.ask("AutoscalerGet", AutoscalerGet(spec.function_id), AutoscalerSettings)
        assert (found.buffer_containers, found.max_containers) == (2, 5)
        on_disk = (await store.list_scaling(spec.app_id))[spec.function_id]
        assert (on_disk.buffer_containers, on_disk.max_containers) == (2, 5)


async def test_containers_are_kept_for_objects_and_not_for_a_class_that_needs_parameters() -> None:
    parameters = (ParameterSpec("size", "int", is_required=True), ParameterSpec("name", "str"))
    definition = Definition(BY_FILE, "m", "Model", is_class=True, methods=(MethodSpec("run"),), parameters=parameters)
    async with staged() as stage:
        spec = await stage.client.function(name="Model", definition=definition)
        given = FunctionBind(spec.function_id, encode({"size": 3}))
        bound = await stage.client.ask("FunctionBind", given, FunctionBound)

        with pytest.raises(PlatformError, match=r"update the autoscaler of one of them, Model\(size=…\)"):
            await update(stage, spec, min_containers=2)
        await update(stage, spec, max_containers=7)
        assert not stage.node.starts

        await update(stage, replace(spec, function_id=bound.function_id), min_containers=2)
        await stage.until(lambda: len(stage.node.started) == 2)


async def test_containers_of_an_app_that_wait_for_a_place_are_bounded_and_none_waits_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleet, "PENDING_MAX", 20)
    async with staged(ServerConfig(containers_per_node_max=10)) as stage:
        greedy = await stage.client.function(name="greedy", min_containers=1_000)
        await stage.pass_time(5.0)
        pending = stage.plane.fleet.starts.pending
        assert len(pending) == 20

        modest = make_spec(greedy.app_id, "modest")
        await stage.client.ask("FunctionCreate", FunctionCreate((modest,)), FunctionCreated)
        stage.client.call(modest.function_id, 1)
        await stage.pass_time(1.0)
        assert len(pending) == 21
        await update(stage, greedy, min_containers=0)
        await stage.until(lambda: not pending)

        await update(stage, greedy, min_containers=9, max_containers=9)
        await stage.until(lambda: count(stage) >= 9)


async def test_what_is_kept_starts_in_steps_until_all_are_there() -> None:
    async with staged(ServerConfig(containers_per_node_max=500)) as stage:
        stage.node.is_slow_to_load = True
        await stage.client.function(min_containers=200)
        await stage.pass_time(0.5)
        assert len(stage.plane.fleet.containers) == STEP_KEPT_MAX

        await stage.pass_time(4.0)

        assert len(stage.plane.fleet.containers) == 200


async def test_setting_the_clock_of_the_machine_starts_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        spec = await stage.client.function(scaledown_window_s=30.0)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        idle = await stage.client.function(scaledown_window_s=30.0, min_containers=1)
        await stage.until(lambda: len(stage.node.guests) == 2)
        now = stage.clock.now

        for jump_s in (10 * 365 * 24 * 3_600.0, -20 * 365 * 24 * 3_600.0):
            monkeypatch.setattr(stage.clock, "now", lambda jump_s=jump_s: now() + jump_s)
            await stage.pass_time(20.0, 1.0)

        assert len(stage.node.guests) == 2
        assert len(stage.node.starts) == 2
        assert not call.outputs
        assert len(stage.plane.apps.dispatchers[idle.function_id].idle) == 1


@pytest.mark.long
async def test_ten_thousand_functions_of_one_app_that_do_nothing_are_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with staged() as stage:
        app_id = await stage.client.app()
        specs = tuple(make_spec(app_id, f"f{number}") for number in range(10_000))
        for page in pages(stage.codec, specs):
            await stage.client.ask("FunctionCreate", FunctionCreate(page), FunctionCreated)
        await stage.done(stage.client.call(specs[77].function_id, 1), 1)
        await stage.pass_time(1.0)
        looks: list[str] = []
        monkeypatch.setattr(Dispatcher, "sweep", lambda self, now: looks.append(self.spec.name))
        monkeypatch.setattr(scaling, "load_of", lambda dispatcher, now: looks.append(dispatcher.spec.name))

        await stage.pass_time(5.0)

        assert set(looks) == {"f77"}  # it has a container


async def test_what_there_was_no_room_to_ask_for_is_asked_for_again_within_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleet, "PENDING_MAX", 4)
    async with staged(ServerConfig(containers_per_node_max=2)) as stage:
        app_id = await stage.client.app()
        kept = make_spec(app_id, "kept", min_containers=1, scaledown_window_s=600.0)
        other = make_spec(app_id, "other")
        await stage.client.ask("FunctionCreate", FunctionCreate((kept, other)), FunctionCreated)
        dispatcher = stage.plane.apps.dispatchers[kept.function_id]
        await stage.until(lambda: len(dispatcher.idle) == 1)
        stage.node.run = forever
        stage.client.call(other.function_id, 1)
        await stage.until(lambda: len(stage.node.guests) == 2)
        waiting = stage.client.call(other.function_id, *range(9))
        await stage.pass_time(3.0)

        # Only one may wait besides the four of the other function, and none is placed: nothing else is told of.
        dispatcher.rescale(replace(dispatcher.scaling, min_containers=3))
        await stage.pass_time(0.5)
        assert len(dispatcher.containers) == 2
        stage.client.close_call(waiting)
        await stage.pass_time(2.0)

        assert len(dispatcher.containers) == 3
