"""Variants: made on demand, served as functions are, forgotten, found again, and gone with what they are made from."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from squall.protocol import call as wire
from squall.protocol.app import AppStop, AppStopped
from squall.protocol.autoscaler import AutoscalerGet, AutoscalerSettings, AutoscalerUpdate
from squall.protocol.call import CallOpen, CallSpawn, CallSpawned, InputBatch
from squall.protocol.container import ContainerList, ContainerListing
from squall.protocol.errors import PlatformError
from squall.protocol.function import (
    BY_FILE,
    Definition,
    FunctionBind,
    FunctionBound,
    FunctionCreate,
    FunctionCreated,
    FunctionGet,
    FunctionOptions,
    FunctionSpec,
    MethodSpec,
    ParameterSpec,
    Resources,
)
from squall.protocol.ids import new_id
from squall.protocol.log import LogBatch, LogEntry, LogRead
from squall.protocol.parameters import encode
from squall.protocol.records import replace
from squall.server.dispatch.app import variants
from squall.server.dispatch.app.deployments import Deployments
from squall.server.model.config import ServerConfig
from squall.server.model.variant import variant_id
from tests.server.dispatch.client.test_callers import container_of
from tests.server.dispatch.deploying import deploy, keep_image, roll_back
from tests.server.doubles import Failed, FakeClient, FakeGuest, Stage, make_spec, settle, staged

MODEL = Definition(
    BY_FILE, "hello", "Model", is_class=True,
    methods=(MethodSpec("run"), MethodSpec("stream", is_generator=True)),
    parameters=(ParameterSpec("size", "int"),),
)  # fmt: skip


async def make_model(stage: Stage, **fields: Any) -> FunctionSpec:
    return await stage.client.function(name="Model", definition=MODEL, **fields)


async def bind(client: FakeClient, spec: FunctionSpec, size: int = 3, **options: Any) -> str:
    given = FunctionOptions(**options) if options else None
    record = FunctionBind(spec.function_id, encode({"size": size}), given)
    bound: FunctionBound = await client.ask("FunctionBind", record, FunctionBound)
    return bound.function_id


def run(stage: Stage, function_id: str, value: bytes = b"4", method: str = "run") -> Any:
    call = stage.client.open(function_id, wire.REMOTE, method=method)
    stage.client.put(call, {0: value})
    return call


async def ran(stage: Stage, function_id: str) -> None:
    """One call from its beginning to its end."""
    call = run(stage, function_id)
    await stage.done(call, 1)
    stage.client.close_call(call)


async def refusal(answer: Any) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await answer
    return caught.value


async def test_objects_have_containers_of_their_own_which_know_their_parameters() -> None:
    async with staged() as stage:
        spec = await make_model(stage)
        three, four = await bind(stage.client, spec, 3), await bind(stage.client, spec, 4)

        for function_id in (three, four, three):
            await stage.done(run(stage, function_id), 1)

        boots = [guest.boot for guest in stage.node.started if guest.boot is not None]
        assert [boot.parameters for boot in boots] == ['{"size":3}', '{"size":4}']
        assert [boot.function_id for boot in boots] == [three, four]
        assert {boot.function_name for boot in boots} == {"Model"}
        assert boots[0].functions == {"Model": spec.function_id}
        listed = await stage.client.ask("ContainerList", ContainerList(), ContainerListing)
        assert {one.function_name for one in listed.containers} == {"Model(size=3)", "Model(size=4)"}


async def test_asking_twice_gives_one_variant_also_at_once() -> None:
    async with staged() as stage:
        spec = await make_model(stage)

        found = await asyncio.gather(*(bind(stage.client, spec) for _ in range(20)))

        assert len(set(found)) == 1
        assert sum(len(app.all_dispatchers) for app in stage.plane.apps.live.values()) == 2


async def test_asking_for_nothing_is_the_function_itself() -> None:
    async with staged() as stage:
        spec = await make_model(stage)

        record = FunctionBind(spec.function_id, "", FunctionOptions())
        bound = await stage.client.ask("FunctionBind", record, FunctionBound)

        assert bound.function_id == spec.function_id


async def test_a_variant_of_a_variant_has_both() -> None:
    async with staged() as stage:
        spec = await make_model(stage)
        first = await bind(stage.client, spec, 3)

        record = FunctionBind(first, "", FunctionOptions(timeout_s=5.0))
        second = (await stage.client.ask("FunctionBind", record, FunctionBound)).function_id

        found = await stage.client.ask("FunctionGet", FunctionGet(second), FunctionSpec)
        assert (found.variant_of, found.parameters, found.timeout_s) == (spec.function_id, '{"size":3}', 5.0)


async def test_what_cannot_be_is_refused() -> None:
    async with staged() as stage:
        spec = await make_model(stage)

        wrong = FunctionBind(spec.function_id, '{"depth":1}')
        assert "no parameter 'depth'" in (await refusal(stage.client.ask("FunctionBind", wrong, FunctionBound))).message
        huge = FunctionBind(spec.function_id, "", FunctionOptions(resources=Resources(2**40)))
        assert "is not between" in (await refusal(stage.client.ask("FunctionBind", huge, FunctionBound))).message
        unknown = FunctionBind(new_id("fu"), '{"size":1}')
        assert (await refusal(stage.client.ask("FunctionBind", unknown, FunctionBound))).code == "not_found"


async def test_methods_that_there_are_not_are_named_to_whoever_calls_them() -> None:
    async with staged() as stage:
        spec = await make_model(stage)
        function_id = await bind(stage.client, spec)

        outputs = await stage.done(run(stage, function_id, method="train"), 1)

        assert "has no method 'train'; it has: run, stream" in outputs[0].failure.message


async def test_containers_of_the_app_make_variants_and_those_of_others_do_not() -> None:
    async with staged() as stage:
        spec = await make_model(stage, min_containers=1)
        foreign = await make_model(stage, min_containers=1)
        inside, outside = await container_of(stage, spec), await container_of(stage, foreign)

        assert await bind(inside, spec) == await bind(stage.client, spec)
        assert (await refusal(bind(outside, spec))).code == "forbidden"


async def test_an_idle_variant_is_forgotten_and_found_again_when_it_is_called() -> None:
    async with staged() as stage:
        spec = await make_model(stage, scaledown_window_s=5.0)
        function_id = await bind(stage.client, spec)
        await ran(stage, function_id)

        await stage.pass_time(variants.IDLE_S / 2, 1.0)
        assert function_id in stage.plane.apps.dispatchers
        await stage.pass_time(2 * variants.IDLE_S, 1.0)
        assert function_id not in stage.plane.apps.dispatchers
        assert not stage.plane.apps.get_live(spec.app_id).variants
        again = run(stage, function_id, b"21")
        more = stage.client.open(spec.function_id, wire.REMOTE, method="run")
        stage.client.put(more, {0: b"1"})

        assert (await stage.done(again, 1))[0].value == b"42"
        assert (await stage.done(more, 1))[0].value == b"2"


async def test_a_call_that_waits_for_its_variant_keeps_its_order_and_may_be_closed() -> None:
    async with staged() as stage:
        spec = await make_model(stage)
        function_id = await bind(stage.client, spec)
        stage.plane.apps.forget_variant(function_id)

        call = stage.client.open(function_id, wire.MAP, method="run")
        for index in range(50):
            stage.client.put(call, {index: b"%d" % index})
        closed = run(stage, function_id)
        stage.client.close_call(closed)
        await stage.done(call, 50)

        assert [call.outputs[index].value for index in range(50)] == [b"%d" % (2 * index) for index in range(50)]
        await settle()
        assert not closed.outputs


async def test_unknown_functions_are_told_apart_from_forgotten_ones() -> None:
    async with staged() as stage:
        outputs = await stage.done(run(stage, new_id("fu")), 1)

        assert "does not exist" in outputs[0].failure.message


async def test_a_million_objects_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "IN_MEMORY_MAX", 20)
    async with staged() as stage:
        spec = await make_model(stage)

        for size in range(20):
            await bind(stage.client, spec, size)
        refused = await refusal(bind(stage.client, spec, 20))
        await stage.pass_time(variants.JUST_ASKED_S + variants.SWEEP_FOR_ROOM_S, 1.0)
        for size in range(20, 200):
            await bind(stage.client, spec, size)
            await stage.pass_time(1.0, 1.0)

        assert refused.code == "exhausted"
        assert len(stage.plane.apps.dispatchers) <= 21
        assert len(stage.store._variants) == 200


async def test_objects_of_one_app_keep_those_of_another_out_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "IN_MEMORY_MAX", 20)
    async with staged() as stage:
        greedy, other = await make_model(stage), await make_model(stage)
        for size in range(20):
            await bind(stage.client, greedy, size)

        assert (await refusal(bind(stage.client, greedy, 20))).code == "exhausted"
        await ran(stage, await bind(stage.client, other, 1))


async def test_what_is_started_from_an_app_has_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "IN_MEMORY_MAX", 3)
    async with staged() as stage:
        spec = await make_model(stage)
        await ran(stage, await bind(stage.client, spec, 0))
        inside = await FakeClient(stage.plane, stage.codec).connect_inside(stage.node.started[0].container_id)
        child = make_spec(await inside.app("child"), "Model", definition=MODEL)
        await inside.ask("FunctionCreate", FunctionCreate((child,)), FunctionCreated)
        for size in (1, 2):
            await bind(inside, child, size)

        assert (await refusal(bind(inside, child, 3))).code == "exhausted"
        assert (await refusal(bind(stage.client, spec, 3))).code == "exhausted"


async def test_who_is_refused_has_the_variants_searched_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "IN_MEMORY_MAX", 3)
    async with staged() as stage:
        spec = await make_model(stage)
        for size in range(3):
            await bind(stage.client, spec, size)
        searches = 0
        dispatchers = stage.plane.calls.dispatchers

        def counted() -> Any:
            nonlocal searches
            searches += 1
            return dispatchers()

        monkeypatch.setattr(stage.plane.calls, "dispatchers", counted)
        for size in range(3, 50):
            await refusal(bind(stage.client, spec, size))

        assert searches == 1


async def test_an_app_has_a_bounded_number_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "STORED_MAX", 3)
    async with staged(ServerConfig(results_kept_s=3_600.0)) as stage:
        spec, other = await make_model(stage), await make_model(stage)
        ids = [await bind(stage.client, spec, size) for size in range(3)]

        refused = await refusal(bind(stage.client, spec, 3))

        assert (refused.code, "are forgotten" in refused.message) == ("exhausted", True)
        assert [await bind(stage.client, spec, size) for size in range(3)] == ids
        await bind(stage.client, other, 1)
        await stage.pass_time(stage.plane.config.results_kept_s + 3 * 3_600.0, 3_600.0)
        assert await bind(stage.client, spec, 3) not in ids


async def test_what_the_store_has_comes_into_memory_within_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "IN_MEMORY_MAX", 4)
    async with staged() as stage:
        spec = await make_model(stage)
        ids = []
        for size in range(8):
            ids.append(await bind(stage.client, spec, size))
            await stage.pass_time(variants.JUST_ASKED_S + variants.SWEEP_FOR_ROOM_S, 1.0)

        outcomes = [await code_of(stage, function_id) for function_id in ids]

        assert outcomes.count("exhausted") >= 3
        assert len(stage.plane.apps.dispatchers) <= 5


async def code_of(stage: Stage, function_id: str) -> str:
    try:
        await stage.client.ask("FunctionGet", FunctionGet(function_id), FunctionSpec)
    except PlatformError as error:
        return error.code
    return ""


async def test_what_has_calls_or_containers_is_not_forgotten_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "IN_MEMORY_MAX", 3)
    async with staged() as stage:
        spec = await make_model(stage)
        gate = asyncio.Event()

        async def wait(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = wait
        ids = [await bind(stage.client, spec, size) for size in range(3)]
        calls = [run(stage, one) for one in ids]
        await stage.pass_time(2 * variants.IDLE_S, 1.0)

        assert (await refusal(bind(stage.client, spec, 9))).code == "exhausted"
        assert set(ids) < stage.plane.apps.dispatchers.keys()
        gate.set()
        for call in calls:
            await stage.done(call, 1)


async def test_a_stopped_app_takes_its_variants_along() -> None:
    async with staged() as stage:
        spec = await make_model(stage)
        function_id = await bind(stage.client, spec)
        gate = asyncio.Event()

        async def wait(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = wait
        call = run(stage, function_id)
        await stage.until(lambda: bool(stage.node.guests))

        await stage.client.ask("AppStop", AppStop(spec.app_id, "test"), AppStopped)

        assert call.outputs[0].failure.kind == "stopped"
        assert not stage.node.guests
        assert function_id not in stage.plane.apps.dispatchers
        assert "does not exist" in (await refusal(bind(stage.client, spec))).message
        later = await stage.done(run(stage, function_id), 1)
        assert "its app was stopped" in later[0].failure.message


async def test_spawned_methods_of_variants_survive_a_restart() -> None:
    async with staged() as stage:
        spec = await make_model(stage, max_containers=1)
        function_id = await bind(stage.client, spec)
        gate = asyncio.Event()

        async def wait(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value + b"!"

        stage.node.run = wait
        spawned = []
        for number in range(3):
            call_id, value = new_id("fc"), b"%d" % number
            record = CallSpawn(
                CallOpen(call_id, function_id, wire.SPAWN, method="run"), InputBatch(call_id, (0,), (len(value),))
            )
            await stage.client.ask("CallSpawn", record, CallSpawned, value)
            spawned.append(call_id)
        await stage.until(lambda: any(guest.running for guest in stage.node.guests.values()))

        await stage.restart()
        gate.set()
        await stage.client.connect()
        await stage.take_up(spec)

        for number, call_id in enumerate(spawned):
            outputs = stage.store._outputs[call_id]
            await stage.until(outputs.__len__)
            assert stage.store._outputs[call_id][0].value == b"%d!" % number
        assert len(stage.node.started) == 1


async def test_containers_of_variants_are_adopted_by_the_next_server() -> None:
    async with staged() as stage:
        spec = await make_model(stage)
        function_id = await bind(stage.client, spec)
        await stage.done(run(stage, function_id), 1)

        await stage.restart()
        await stage.client.connect()
        await stage.take_up(spec)
        await stage.done(run(stage, function_id), 1)

        assert len(stage.node.started) == 1


async def test_the_store_forgets_what_nobody_uses() -> None:
    async with staged(ServerConfig(results_kept_s=3_600.0)) as stage:
        spec = await make_model(stage)
        used, unused = await bind(stage.client, spec, 1), await bind(stage.client, spec, 2)

        call = stage.client.open(used, wire.MAP, method="run")
        stage.node.run = _never
        stage.client.put(call, {0: b"1"})

        for _ in range(9):
            await stage.pass_time(600.0, 30.0)

        assert set(stage.store._variants) == {used}
        assert unused not in stage.plane.apps.dispatchers


async def _never(guest: FakeGuest, value: bytes) -> bytes:
    await asyncio.Event().wait()
    return value


async def test_an_object_that_is_kept_ready_stays_so_also_after_it_was_forgotten() -> None:
    async with staged() as stage:
        spec = await make_model(stage, scaledown_window_s=5.0)
        function_id = await bind(stage.client, spec)
        await stage.client.ask("AutoscalerUpdate", AutoscalerUpdate(function_id, min_containers=1), AutoscalerSettings)
        await stage.until(lambda: len(stage.node.guests) == 1)

        await stage.pass_time(3 * variants.IDLE_S, 1.0)
        assert len(stage.node.guests) == 1
        await stage.client.ask(
            "AutoscalerUpdate", AutoscalerUpdate(function_id, min_containers=0, max_containers=7), AutoscalerSettings
        )
        await stage.pass_time(3 * variants.IDLE_S, 1.0)
        assert function_id not in stage.plane.apps.dispatchers

        found = await stage.client.ask("AutoscalerGet", AutoscalerGet(function_id), AutoscalerSettings)
        assert (found.min_containers, found.max_containers) == (0, 7)


# Deploys


async def env_of(stage: Stage, function_id: str) -> tuple[dict[str, str], int]:
    """Of the container that runs a call of it: what it was started with."""
    await ran(stage, function_id)
    start = next(one for one in reversed(stage.node.starts) if one.function_id == function_id)
    return start.env, start.version


async def test_a_deploy_changes_variants_with_their_function() -> None:
    async with staged() as stage:
        published = await deploy(stage, code="1", function="Model", definition=MODEL)
        base = (await stage.plane.store.list_functions(published.app_id))[0]
        function_id = await bind(stage.client, base)
        sleeping = await bind(stage.client, base, 4)
        assert await env_of(stage, function_id) == ({"CODE": "1"}, 1)
        stage.plane.apps.forget_variant(sleeping)

        await deploy(stage, code="2", function="Model", definition=MODEL)

        assert await env_of(stage, function_id) == ({"CODE": "2"}, 2)
        assert await env_of(stage, sleeping) == ({"CODE": "2"}, 2)
        assert await bind(stage.client, base) == function_id


async def test_what_is_held_to_a_version_stays_what_it_was_also_after_a_restart() -> None:
    async with staged() as stage:
        published = await deploy(stage, code="1", function="Model", definition=MODEL)
        base = (await stage.plane.store.list_functions(published.app_id))[0]
        record = FunctionBind(base.function_id, encode({"size": 3}), version=1)
        held = (await stage.client.ask("FunctionBind", record, FunctionBound)).function_id
        await deploy(stage, code="2", function="Model", definition=MODEL)
        assert await env_of(stage, held) == ({"CODE": "1"}, 1)

        await stage.restart()
        await stage.client.connect()
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await settle()

        assert await env_of(stage, held) == ({"CODE": "1"}, 1)


async def test_what_waits_for_a_variant_is_not_ended_because_the_store_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with staged() as stage:
        published = await deploy(stage, code="1", function="Model", definition=MODEL)
        base = (await stage.plane.store.list_functions(published.app_id))[0]
        record = FunctionBind(base.function_id, encode({"size": 3}), version=1)
        held = (await stage.client.ask("FunctionBind", record, FunctionBound)).function_id
        await deploy(stage, code="2", function="Model", definition=MODEL)
        stage.node.is_slow_to_load = True
        call_id = new_id("fc")
        spawned = CallSpawn(CallOpen(call_id, held, wire.SPAWN, method="run"), InputBatch(call_id, (0,), (1,)))
        await stage.client.ask("CallSpawn", spawned, CallSpawned, b"4")

        async def fail(*asked: object) -> FunctionSpec:
            raise PlatformError("unavailable", "the database cannot be reached")

        with monkeypatch.context() as away:
            away.setattr(Deployments, "function_of_id", fail)
            with pytest.raises(PlatformError, match="cannot be reached"):
                await stage.restart()
        await stage.restart()
        stage.node.is_slow_to_load = False
        for guest in list(stage.node.guests.values()):
            guest.exit(0)

        await stage.until(lambda: stage.store._outputs[call_id])
        assert stage.store._outputs[call_id][0].value == b"8"


async def test_variants_of_a_function_that_is_deleted_are_told_so() -> None:
    async with staged() as stage:
        published = await deploy(stage, function="Model", definition=MODEL)
        base = (await stage.plane.store.list_functions(published.app_id))[0]
        function_id = await bind(stage.client, base)
        await ran(stage, function_id)

        await deploy(stage, function="other")

        outputs = await stage.done(run(stage, function_id), 1)
        assert outputs[0].status != wire.SUCCEEDED
        assert "Model" in outputs[0].failure.message or "does not exist" in outputs[0].failure.message


@pytest.mark.parametrize("is_rollback", [False, True])
@pytest.mark.parametrize("is_base_forgotten", [False, True])
async def test_objects_of_a_class_that_comes_back_are_there_again(is_base_forgotten: bool, is_rollback: bool) -> None:
    async with staged() as stage:
        await keep_image(stage)
        published = await deploy(stage, function="Model", definition=MODEL)
        base = (await stage.plane.store.list_functions(published.app_id))[0]
        function_id = await bind(stage.client, base)
        await ran(stage, function_id)
        await deploy(stage, function="other")
        if is_base_forgotten:
            await stage.pass_time(5.0, 1.0)
            assert base.function_id not in stage.plane.apps.dispatchers

        if is_rollback:
            await roll_back(stage)
        else:
            await deploy(stage, code="3", function="Model", definition=MODEL)

        assert await bind(stage.client, base) == function_id
        assert await env_of(stage, function_id) == ({"CODE": "1" if is_rollback else "3"}, 3)


async def test_an_object_of_a_class_that_comes_back_while_it_runs_is_there_again() -> None:
    async with staged() as stage:
        opened = asyncio.Event()

        async def wait(guest: FakeGuest, value: bytes) -> bytes:
            await opened.wait()
            return value

        stage.node.run = wait
        await keep_image(stage)
        published = await deploy(stage, function="Model", definition=MODEL)
        base = (await stage.plane.store.list_functions(published.app_id))[0]
        function_id = await bind(stage.client, base)
        running = run(stage, function_id)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        await deploy(stage, function="other")
        await stage.pass_time(5.0, 1.0)
        assert base.function_id not in stage.plane.apps.dispatchers

        await roll_back(stage)
        later = run(stage, function_id, b"5")
        await stage.pass_time(1.0)
        opened.set()

        assert (await stage.done(running, 1))[0].value == b"4"
        assert (await stage.done(later, 1))[0].value == b"5"


async def test_what_an_object_of_a_deleted_class_would_try_again_ends() -> None:
    async with staged() as stage:
        opened = asyncio.Event()

        async def fail(guest: FakeGuest, value: bytes) -> bytes:
            await opened.wait()
            raise Failed()

        stage.node.run = fail
        published = await deploy(stage, function="Model", definition=MODEL, retries=3)
        base = (await stage.plane.store.list_functions(published.app_id))[0]
        function_id = await bind(stage.client, base)
        call = run(stage, function_id)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        await deploy(stage, function="other")
        opened.set()
        await stage.pass_time(60.0, 0.5)

        assert "Model was deleted in version 2" in call.outputs[0].failure.message
        assert len(stage.node.starts) == 1
        assert function_id not in stage.plane.apps.dispatchers


async def test_an_object_of_a_class_that_was_deleted_a_moment_ago_is_told_so() -> None:
    async with staged() as stage:
        published = await deploy(stage, function="Model", definition=MODEL)
        base = (await stage.plane.store.list_functions(published.app_id))[0]
        await deploy(stage, function="other")
        assert base.function_id in stage.plane.apps.dispatchers

        function_id = await bind(stage.client, base)
        outputs = await stage.done(run(stage, function_id), 1)

        assert "Model was deleted in version 2" in outputs[0].failure.message
        assert stage.node.starts == []
        await stage.pass_time(2.0, 1.0)
        assert function_id not in stage.plane.apps.dispatchers


async def test_a_container_takes_no_ids_but_those_of_its_own_functions() -> None:
    async with staged() as stage:
        spec = await make_model(stage)
        await ran(stage, await bind(stage.client, spec, 3))
        inside = await FakeClient(stage.plane, stage.codec).connect_inside(stage.node.started[0].container_id)
        child = await inside.app("child")
        free = variant_id(FunctionBind(spec.function_id, encode({"size": 4})))

        for taken in (free, spec.function_id, new_id("fu")):
            squatter = replace(make_spec(child, "square"), function_id=taken)
            error = await refusal(inside.ask("FunctionCreate", FunctionCreate((squatter,)), FunctionCreated))
            assert (error.code, "has the id of another" in error.message) == ("invalid", True)
        await inside.ask("FunctionCreate", FunctionCreate((make_spec(child, "square"),)), FunctionCreated)

        assert await bind(stage.client, spec, 4) == free


async def test_no_function_is_created_under_the_id_of_a_variant() -> None:
    async with staged() as stage:
        spec = await make_model(stage)
        three = await bind(stage.client, spec, 3)
        await stage.pass_time(variants.IDLE_S + variants.SWEEP_EVERY_S, 1.0)
        assert three not in stage.plane.apps.dispatchers

        squatter = replace(make_spec(spec.app_id, "other"), function_id=three)
        error = await refusal(stage.client.ask("FunctionCreate", FunctionCreate((squatter,)), FunctionCreated))

        assert (error.code, f"is a variant of {spec.function_id}" in error.message) == ("conflict", True)


async def test_what_the_autoscaler_of_a_variant_goes_by_is_forgotten_with_it_and_comes_back_until_a_deploy() -> None:
    async with staged() as stage:
        published = await deploy(stage, function="Model", definition=MODEL)
        base = (await stage.plane.store.list_functions(published.app_id))[0]
        function_id = await bind(stage.client, base)
        app = stage.plane.apps.live[base.app_id]
        record = AutoscalerUpdate(function_id, max_containers=7)
        await stage.client.ask("AutoscalerUpdate", record, AutoscalerSettings)

        stage.plane.apps.forget_variant(function_id)
        assert not app.scaling
        found = await stage.client.ask("AutoscalerGet", AutoscalerGet(function_id), AutoscalerSettings)
        assert found.max_containers == 7

        stage.plane.apps.forget_variant(function_id)
        await deploy(stage, code="2", function="Model", definition=MODEL)
        found = await stage.client.ask("AutoscalerGet", AutoscalerGet(function_id), AutoscalerSettings)
        assert found.max_containers is None


async def logged(stage: Stage, spec: FunctionSpec, function: str, **fields: Any) -> list[str]:
    """The lines of a function or variant, by name or id."""
    assert stage.client.peer is not None
    stream = stage.client.peer.stream("LogRead", LogRead(app=spec.app_id, function=function, tail=-1, **fields))
    return [entry.text async for batch, _ in stream.items(LogBatch) for entry in batch.entries]


async def print_in_each(stage: Stage, *function_ids: str) -> None:
    """A container of each prints its number."""
    for number, function_id in enumerate(function_ids):
        await ran(stage, function_id)
        (container_id,) = [one.container_id for one in stage.node.started if one.function_id == function_id]
        stage.node.tell("Logs", LogBatch((LogEntry(1.0, "stdout", f"line {number}", container_id),)))
    await settle()


async def test_lines_of_a_variant_are_found_by_its_id_also_when_it_is_forgotten() -> None:
    async with staged() as stage:
        spec = await make_model(stage)
        three, four = await bind(stage.client, spec, 3), await bind(stage.client, spec, 4)
        await print_in_each(stage, spec.function_id, three, four)

        assert await logged(stage, spec, three) == ["line 1"]
        assert await logged(stage, spec, "Model") == await logged(stage, spec, spec.function_id) == ["line 0"]
        assert await logged(stage, spec, "Model", has_variants=True) == ["line 0", "line 1", "line 2"]

        await stage.client.ask("AppStop", AppStop(spec.app_id), AppStopped)
        assert await logged(stage, spec, four) == ["line 2"]


async def test_lines_of_a_class_whose_objects_need_parameters_are_those_of_its_objects() -> None:
    async with staged() as stage:
        needy = replace(MODEL, parameters=(ParameterSpec("size", "int", is_required=True),))
        spec = await stage.client.function(name="Model", definition=needy)
        three, four = await bind(stage.client, spec, 3), await bind(stage.client, spec, 4)
        await print_in_each(stage, three, four)

        assert await logged(stage, spec, "Model") == ["line 0", "line 1"]
        assert await logged(stage, spec, three) == ["line 0"]


async def test_lines_of_what_is_no_function_of_the_app_are_refused() -> None:
    async with staged() as stage:
        spec = await make_model(stage)
        theirs = await stage.client.function(name="other")
        of_theirs = (
            await stage.client.ask(
                "FunctionBind", FunctionBind(theirs.function_id, "", FunctionOptions(timeout_s=9.0)), FunctionBound
            )
        ).function_id

        for function in ("nothing", "fu-nothing", theirs.function_id, of_theirs):
            error = await refusal(logged(stage, spec, function))
            assert (error.code, repr(function) in error.message) == ("not_found", True), error
