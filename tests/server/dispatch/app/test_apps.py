"""Apps: leases, functions, and how they end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from squall.protocol.app import AppCreate, AppCreated, AppGet, AppInfo, AppList, AppListing, AppStop, AppStopped
from squall.protocol.call import SPAWN, CallInfo, CallInfoGet, CallOpen, CallSpawn, CallSpawned, InputBatch
from squall.protocol.empty import Empty
from squall.protocol.errors import ChannelClosed, PlatformError
from squall.protocol.function import (
    FunctionCreate,
    FunctionCreated,
    FunctionGet,
    FunctionSpec,
    FunctionStats,
    FunctionStatsGet,
)
from squall.protocol.ids import new_id
from squall.protocol.limits import CONTAINERS_MAX, RETRIES_MAX, TAGS_MAX
from squall.protocol.mount import MountCreate, MountCreated, MountFile, MountManifest, MountRef
from squall.server.model.config import ServerConfig
from squall.server.model.store import StoredApp
from tests.server.doubles import FakeClient, FakeGuest, heartbeat, make_spec, settle, staged


async def forever(guest: FakeGuest, value: bytes) -> bytes:
    await asyncio.Event().wait()
    return value


async def test_stop_cancels_inputs_ends_containers_and_then_answers() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1, 2)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        await stage.client.ask("AppStop", AppStop(spec.app_id, "enough"), Empty)
        await settle()

        assert not stage.node.guests
        assert {got.failure.kind for got in call.outputs.values()} == {"stopped"}
        info = await stage.client.ask("AppGet", AppGet(spec.app_id), AppInfo)
        assert info.state == "stopped"
        assert info.stopped_at is not None


async def test_stop_answers_even_when_a_container_stays() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.guests)
        stage.node.guests.clear()

        stopping = asyncio.ensure_future(stage.client.ask("AppStop", AppStop(spec.app_id), Empty))
        await stage.pass_time(10.0, 1.0)
        assert not stopping.done()
        await stage.pass_time(10.0, 1.0)

        assert stopping.done()


async def test_calls_of_an_app_that_is_being_stopped_are_told_that_none_has_begun() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.guests)
        stage.node.guests.clear()
        stopping = asyncio.ensure_future(stage.client.ask("AppStop", AppStop(spec.app_id), Empty))
        await stage.pass_time(1.0, 1.0)

        called = await stage.done(stage.client.call(spec.function_id, 1), 1)
        call_id = new_id("fc")
        spawn = CallSpawn(CallOpen(call_id, spec.function_id, SPAWN), InputBatch(call_id, (0,), (1,)))
        with pytest.raises(PlatformError, match="was stopped") as refused:
            await stage.client.ask("CallSpawn", spawn, CallSpawned, b"x")

        assert not stopping.done()
        assert (called[0].failure.kind, refused.value.code) == ("not_found", "not_found")
        assert "was stopped" in called[0].failure.message
        await stage.pass_time(20.0, 1.0)
        assert stopping.done()


async def test_app_that_is_being_stopped_takes_no_functions() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.guests)
        stage.node.guests.clear()
        stopping = asyncio.ensure_future(stage.client.ask("AppStop", AppStop(spec.app_id), Empty))
        await stage.pass_time(1.0, 1.0)

        late = make_spec(spec.app_id, "late", min_containers=1)
        with pytest.raises(PlatformError, match="being stopped"):
            await stage.client.ask("FunctionCreate", FunctionCreate((late,)), FunctionCreated)

        await stage.pass_time(20.0, 1.0)
        assert stopping.done()
        assert len(stage.node.starts) == 1


async def test_ephemeral_app_ends_when_its_client_does_not_come_back() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.guests)

        stage.client.disconnect()
        await stage.pass_time(9.0, 1.0)
        assert stage.node.guests
        await stage.pass_time(2.0, 1.0)

        assert not stage.node.guests
        assert spec.app_id not in stage.plane.apps.live


async def test_app_taken_up_within_the_grace_time_lives() -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        stage.client.disconnect()
        await stage.pass_time(5.0, 1.0)
        await stage.client.connect()
        await stage.client.ask("AppCreate", AppCreate(spec.app_id, "hello"), AppCreated)
        await stage.pass_time(20.0, 1.0)

        assert spec.app_id in stage.plane.apps.live


async def spawn(client: FakeClient, function_id: str) -> str:
    opened = CallOpen(new_id("fc"), function_id, SPAWN)
    batch = InputBatch(opened.call_id, (0,), (1,))
    await client.ask("CallSpawn", CallSpawn(opened, batch), CallSpawned, b"7")
    return opened.call_id


async def test_detached_app_that_its_program_left_goes_on_until_its_spawned_calls_are_done() -> None:
    async with staged() as stage:
        app_id = await stage.client.app(state="detached")
        spec = make_spec(app_id, max_containers=1)
        await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
        gate = asyncio.Event()

        async def slow(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = slow
        call_id = await spawn(stage.client, spec.function_id)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        held = stage.client.call(spec.function_id, 1)
        await settle()

        ended = await stage.client.ask("AppStop", AppStop(app_id, is_sparing=True), AppStopped)
        await settle()

        assert ended.goes_on
        assert {got.failure.kind for got in held.outputs.values()} == {"cancelled"}
        for _ in range(3):
            await stage.pass_time(20.0, 1.0)
            heartbeat(stage.node.started[0], held=1)
        assert app_id in stage.plane.apps.live
        gate.set()
        await stage.pass_time(3.0, 1.0)
        assert app_id not in stage.plane.apps.live
        info = await stage.client.ask("CallInfo", CallInfoGet(call_id), CallInfo)
        assert info.statuses == ("succeeded",)


@pytest.mark.parametrize("state", ["detached", "ephemeral"])
async def test_app_with_nothing_to_spare_is_stopped_when_its_program_ends(state: str) -> None:
    async with staged() as stage:
        app_id = await stage.client.app(state=state)
        spec = make_spec(app_id)
        await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
        stage.node.run = forever
        stage.client.call(spec.function_id, 1)
        if state == "ephemeral":
            await spawn(stage.client, spec.function_id)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        ended = await stage.client.ask("AppStop", AppStop(app_id, is_sparing=True), AppStopped)

        assert ended == AppStopped()
        assert app_id not in stage.plane.apps.live


async def test_stop_tells_whether_the_app_was_stopped_before() -> None:
    async with staged() as stage:
        app_id = await stage.client.app()

        first = await stage.client.ask("AppStop", AppStop(app_id), AppStopped)
        second = await stage.client.ask("AppStop", AppStop(app_id), AppStopped)

        assert (first.was_stopped, second.was_stopped) == (False, True)


async def test_detached_app_ends_when_its_calls_are_done() -> None:
    async with staged() as stage:
        app_id = await stage.client.app(state="detached")
        spec = make_spec(app_id)
        await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
        gate = asyncio.Event()

        async def slow(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = slow
        stage.client.call(spec.function_id, 1)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        stage.client.disconnect()
        for _ in range(5):
            await stage.pass_time(40.0, 1.0)
            heartbeat(stage.node.started[0], held=1)
        assert app_id in stage.plane.apps.live
        gate.set()
        await stage.pass_time(15.0, 1.0)

        assert app_id not in stage.plane.apps.live


async def test_creating_twice_is_harmless_and_another_definition_is_a_conflict() -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        again = await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
        other = replace(spec, timeout_s=1.0)
        with pytest.raises(PlatformError) as refused:
            await stage.client.ask("FunctionCreate", FunctionCreate((other,)), FunctionCreated)

        assert again.function_ids == (spec.function_id,)
        assert refused.value.code == "conflict"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"timeout_s": 0.0}, "timeouts"),
        ({"name": ""}, "name"),
        ({"image_id": ""}, "image_id"),
        ({"function_id": "x"}, "no id"),
    ],
)
async def test_wrong_specs_are_refused(change: dict[str, object], word: str) -> None:
    async with staged() as stage:
        spec = replace(make_spec(await stage.client.app()), **change)  # type: ignore[arg-type]

        with pytest.raises(PlatformError, match=word) as refused:
            await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)

        assert refused.value.code == "invalid"


async def test_function_with_an_unknown_mount_is_refused() -> None:
    async with staged() as stage:
        spec = make_spec(await stage.client.app(), mounts=(MountRef("mo-none", "/root"),))

        with pytest.raises(PlatformError) as refused:
            await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)

        assert refused.value.code == "not_found"


async def test_function_is_found_by_names() -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        found = await stage.client.ask("FunctionGet", FunctionGet(app="hello", name="square"), FunctionSpec)
        with pytest.raises(PlatformError, match="no function 'cube'"):
            await stage.client.ask("FunctionGet", FunctionGet(app="hello", name="cube"), FunctionSpec)

        assert found == spec


async def test_stats_count_what_waits_and_what_runs() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = forever
        stage.client.call(spec.function_id, 1, 2, 3)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        stats = await stage.client.ask("FunctionStats", FunctionStatsGet(spec.function_id), FunctionStats)

        assert stats == FunctionStats(2, 1, 1, 0)


async def test_list_is_newest_first() -> None:
    async with staged() as stage:
        first = await stage.client.app("one")
        stage.clock.advance(1.0)
        second = await stage.client.app("two")

        listing = await stage.client.ask("AppList", AppList(), AppListing)

        assert [app.app_id for app in listing.apps] == [second, first]


async def test_min_containers_run_without_inputs() -> None:
    async with staged() as stage:
        await stage.client.function(min_containers=3)

        await stage.pass_time(0.5)

        assert len(stage.node.guests) == 3


async def test_idle_containers_go_after_the_scaledown_window() -> None:
    async with staged() as stage:
        spec = await stage.client.function(scaledown_window_s=10.0)
        await stage.done(stage.client.call(spec.function_id, 1), 1)

        await stage.pass_time(8.0, 0.5)
        assert stage.node.guests
        await stage.pass_time(4.0, 0.5)

        assert not stage.node.guests
        assert not stage.plane.fleet.containers
        assert stage.plane.fleet.stopped


async def test_two_clients_hold_an_app_together() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        other = await FakeClient(stage.plane, stage.codec).connect()
        await other.ask("AppCreate", AppCreate(spec.app_id, "hello"), AppCreated)

        stage.client.disconnect()
        await stage.pass_time(20.0, 1.0)

        assert spec.app_id in stage.plane.apps.live


async def test_stopped_app_cannot_be_taken_up() -> None:
    async with staged() as stage:
        app_id = await stage.client.app()
        await stage.client.ask("AppStop", AppStop(app_id), Empty)

        with pytest.raises(PlatformError) as refused:
            await stage.client.ask("AppCreate", AppCreate(app_id, "hello"), AppCreated)

        assert refused.value.code == "conflict"
        assert new_id("ap") != app_id


async def test_mount_that_a_function_names_is_kept_from_then_on() -> None:
    async with staged() as stage:
        manifest = MountManifest((MountFile("a.py", "ab" * 32, 3),))
        made_at = stage.plane.clock.now()
        mount_id = (await stage.client.ask("MountCreate", MountCreate(manifest), MountCreated)).mount_id
        await stage.pass_time(5.0, 1.0)

        await stage.client.function(mounts=(MountRef(mount_id, "/root"),))
        (app,) = stage.plane.apps.live.values()
        await stage.plane.apps.stop(app, "")

        assert await stage.store.prune_mounts(made_at + 4.0) == 0
        assert await stage.store.prune_mounts(made_at + 6.0) == 1


async def test_app_whose_client_is_cut_off_while_it_is_created_can_be_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        put_app, is_kept, may_go_on = stage.store.put_app, asyncio.Event(), asyncio.Event()

        async def wait_after(app: StoredApp) -> None:
            await put_app(app)
            is_kept.set()
            await may_go_on.wait()

        monkeypatch.setattr(stage.store, "put_app", wait_after)
        app_id = new_id("ap")
        record = AppCreate(app_id, "hello")
        creating = asyncio.ensure_future(stage.client.ask("AppCreate", record, AppCreated))
        await stage.until(is_kept.is_set)
        stage.client.disconnect()
        with pytest.raises(ChannelClosed):
            await creating
        await stage.client.connect()
        again = asyncio.ensure_future(stage.client.ask("AppCreate", record, AppCreated))
        await settle()
        may_go_on.set()

        assert (await again).app_id == app_id
        assert stage.plane.apps.live[app_id].holders


async def test_app_whose_client_is_gone_before_it_is_created_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(ServerConfig(app_grace_s=5.0)) as stage:
        put_app, is_kept, may_go_on = stage.store.put_app, asyncio.Event(), asyncio.Event()

        async def wait_after(app: StoredApp) -> None:
            await put_app(app)
            is_kept.set()
            await may_go_on.wait()

        monkeypatch.setattr(stage.store, "put_app", wait_after)
        app_id = new_id("ap")
        creating = asyncio.ensure_future(stage.client.ask("AppCreate", AppCreate(app_id, "hello"), AppCreated))
        await stage.until(is_kept.is_set)
        stage.client.disconnect()
        with pytest.raises(ChannelClosed):
            await creating
        may_go_on.set()
        await stage.pass_time(10.0, 1.0)

        assert (await stage.store.get_app(app_id)).state == "stopped"
        assert not stage.plane.apps.live


async def test_client_that_leaves_while_its_app_ends_leaves_no_timer_behind() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.guests)
        stopping = asyncio.ensure_future(stage.client.ask("AppStop", AppStop(spec.app_id), Empty))
        await settle(4)
        assert stage.plane.apps.live[spec.app_id].stopping is not None

        stage.client.disconnect()
        with pytest.raises(ChannelClosed):
            await stopping
        await stage.pass_time(20.0, 1.0)

        assert not stage.plane.apps.live
        assert not stage.plane.apps._timers


async def test_what_may_be_asked_for_at_most_is_what_the_sdk_lets_through() -> None:
    async with staged() as stage:
        await stage.client.function(retries=RETRIES_MAX, min_containers=0, max_containers=CONTAINERS_MAX)
        with pytest.raises(PlatformError, match=f"retries must be between 0 and {RETRIES_MAX}"):
            await stage.client.function(retries=RETRIES_MAX + 1)
        for name in ("max_containers", "buffer_containers"):
            with pytest.raises(PlatformError, match=f"counts of containers must be from 0 to {CONTAINERS_MAX}"):
                await stage.client.function(**{name: CONTAINERS_MAX + 1})


@pytest.mark.parametrize(
    "record",
    [
        AppCreate(new_id("ap"), "x" * 65),
        AppCreate(new_id("ap"), tags={f"tag{number}": "x" for number in range(TAGS_MAX + 1)}),
        AppCreate(new_id("ap"), tags={"tag": "x" * 65}),
    ],
)
async def test_app_whose_name_or_tags_are_too_large_for_lists_is_refused(record: AppCreate) -> None:
    async with staged() as stage:
        with pytest.raises(PlatformError, match=r"AppCreate: app .* 100 tags at most") as refused:
            await stage.client.ask("AppCreate", record, AppCreated)

        assert refused.value.code == "invalid"
