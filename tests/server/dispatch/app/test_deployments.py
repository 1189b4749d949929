"""Deployed apps: versions, what becomes of the containers and inputs of the one before, and the way back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from squall.protocol import ids
from squall.protocol.app import AppGet, AppInfo, AppList, AppListing, AppStop, AppStopped
from squall.protocol.autoscaler import AutoscalerGet, AutoscalerSettings, AutoscalerUpdate
from squall.protocol.call import (
    FAILED,
    SPAWN,
    CallOpen,
    CallSpawn,
    CallSpawned,
    Failure,
    InputBatch,
    SpawnBatch,
    decode_failure,
)
from squall.protocol.deployment import (
    AppHistory,
    AppHistoryGet,
    AppPublish,
    AppPublished,
    AppRollback,
    AppTagsPut,
    Commit,
)
from squall.protocol.empty import Empty
from squall.protocol.errors import PlatformError
from squall.protocol.function import FunctionBind, FunctionBound, FunctionGet, FunctionSpec
from squall.protocol.ids import new_id
from squall.protocol.mount import MountRef
from squall.protocol.node import ContainerHello
from tests.server.dispatch.deploying import deploy, deployable, keep_image, prepare, publish, roll_back
from tests.server.doubles import Failed, FakeCall, FakeClient, FakeGuest, Stage, settle, staged


class Gate:
    """A function that answers when it is let; the value says which code ran."""

    def __init__(self, stage: Stage) -> None:
        self.opened = asyncio.Event()
        self._stage = stage

    async def __call__(self, guest: FakeGuest, value: bytes) -> bytes:
        await self.opened.wait()
        return code_of(self._stage, guest).encode()


def code_of(stage: Stage, guest: FakeGuest) -> str:
    """Which code a container was started for."""
    start = next(one for one in stage.node.starts if one.container_id == guest.container_id)
    return start.env["CODE"]


async def answer_code(stage: Stage) -> None:
    async def run(guest: FakeGuest, value: bytes) -> bytes:
        return code_of(stage, guest).encode()

    stage.node.run = run


def function_id(published: AppPublished, name: str = "square") -> str:
    return ids.function_id(published.app_id, name)


async def failure_of(awaitable: Any) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await awaitable
    return caught.value


async def test_functions_keep_their_id_from_version_to_version() -> None:
    async with staged() as stage:
        first = await deploy(stage)
        second = await deploy(stage, code="2")

        assert (first.version, second.version) == (1, 2)
        assert first.app_id == second.app_id
        spec = await stage.client.ask(
            "FunctionGet", FunctionGet(app="greeter", name="square", has_env=True), FunctionSpec
        )
        assert (spec.function_id, spec.version, spec.env) == (function_id(first), 2, {"CODE": "2"})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"k":"ev","p":{"functions":[1]}}', b"[" * 100_000])
async def test_a_publication_whose_functions_cannot_be_read_is_refused(body: bytes) -> None:
    async with staged() as stage:
        prepared = await prepare(stage)
        record = AppPublish(prepared.app_id, "greeter", new_id("rq"))

        error = await failure_of(stage.client.ask("AppPublish", record, AppPublished, body))

        assert error.code == "invalid"


async def test_what_is_prepared_and_not_published_is_seen_by_nobody() -> None:
    async with staged() as stage:
        prepared = await prepare(stage)

        assert (await prepare(stage)).app_id == prepared.app_id
        assert (await stage.client.ask("AppList", AppList(), AppListing)).apps == ()
        assert (await failure_of(stage.client.ask("AppGet", AppGet("greeter"), AppInfo))).code == "not_found"

        await stage.restart()
        await stage.client.connect()
        assert (await stage.client.ask("AppList", AppList(), AppListing)).apps == ()


async def test_a_deploy_without_changes_makes_no_version() -> None:
    async with staged() as stage:
        first = await deploy(stage)
        second = await deploy(stage)
        tagged = await deploy(stage, tag="again")

        assert (second.version, second.is_unchanged) == (first.version, True)
        assert (tagged.version, tagged.is_unchanged) == (2, False)
        assert (await deploy(stage)).is_unchanged


async def test_a_publish_that_comes_again_is_the_same_version() -> None:
    async with staged() as stage:
        first = await deploy(stage, deploy_id="once")
        await deploy(stage, code="2")

        again = await deploy(stage, deploy_id="once")

        assert (again.version, again.is_unchanged) == (first.version, False)
        assert len(await stage.store.list_versions(first.app_id)) == 2


async def test_two_deploys_at_once_become_versions_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        prepared = await prepare(stage)
        publish_version = stage.store.publish_version

        async def publish_slowly(*arguments: Any) -> None:
            await settle(20)
            await publish_version(*arguments)

        monkeypatch.setattr(stage.store, "publish_version", publish_slowly)
        publishing = [
            publish(
                stage,
                prepared.app_id,
                deployable(prepared.app_id, "square", env={"CODE": code}),
                deployable(prepared.app_id, f"only{code}", env={"CODE": code}),
            )
            for code in "ab"
        ]

        answers = await asyncio.gather(*publishing, return_exceptions=True)

        assert sorted(getattr(one, "version", 0) for one in answers) == [1, 2], answers
        names = set(stage.plane.apps.live[prepared.app_id].functions)
        assert names in ({"square", "onlya"}, {"square", "onlyb"})
        (kept,) = names - {"square"}
        functions = await stage.store.list_version_functions(prepared.app_id, 2)
        assert {spec.env["CODE"] for spec in functions} == {kept[-1]}


async def test_a_first_deploy_that_another_one_overtook_says_so() -> None:
    async with staged() as stage:
        other = ids.new_id("ap")
        await deploy(stage)

        error = await failure_of(publish(stage, other, deployable(other)))

        assert (error.code, "deploy again" in error.message) == ("conflict", True)


async def test_rolling_lets_what_runs_finish_and_gives_what_comes_to_new_code() -> None:
    async with staged() as stage:
        gate = stage.node.run = Gate(stage)
        first = await deploy(stage, max_containers=1)
        old = stage.client.call(function_id(first), 1, 2)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        await deploy(stage, code="2", max_containers=1)
        new = stage.client.call(function_id(first), 3)
        await stage.until(lambda: len(stage.node.started) == 2 and stage.node.started[1].running)
        gate.opened.set()
        await stage.until(lambda: len(old.outputs) == 2 and new.outputs)

        assert old.outputs[0].value == b"1"
        assert {old.outputs[1].value, new.outputs[0].value} == {b"2"}
        await stage.until(lambda: len(stage.node.guests) == 1)


CHANGED = "square is a generator since version 2 of app greeter; call it again"


async def become_generator(stage: Stage, **fields: Any) -> None:
    """The next version of `square` yields what it returned."""
    await deploy(stage, code="2", is_generator=True, **fields)


async def test_what_waits_for_its_retry_is_not_run_by_what_became_a_generator() -> None:
    async with staged() as stage:

        async def fail(guest: FakeGuest, value: bytes) -> bytes:
            raise Failed()

        stage.node.run = fail
        first = await deploy(stage, retries=3)
        call = stage.client.call(function_id(first), 1)
        dispatcher = stage.plane.apps.dispatchers[function_id(first)]
        await stage.until(lambda: dispatcher.delayed)

        await become_generator(stage)
        await stage.pass_time(5.0, 0.5)

        assert CHANGED in call.outputs[0].failure.message
        assert (dispatcher.delayed, dispatcher.queued) == (0, 0)
        assert {start.version for start in stage.node.starts} == {1}


async def test_what_runs_is_not_run_again_by_what_became_a_generator() -> None:
    async with staged() as stage:
        stage.node.run = Gate(stage)
        first = await deploy(stage, retries=3)
        call = stage.client.call(function_id(first), 1)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        deploying = asyncio.ensure_future(become_generator(stage, strategy="recreate"))
        await stage.until(deploying.done)

        assert [CHANGED in one.failure.message for one in call.outputs.values()] == [True]
        assert {start.version for start in stage.node.starts} == {1}


async def test_a_call_that_was_open_is_not_run_by_what_became_a_generator() -> None:
    async with staged() as stage:
        first = await deploy(stage)
        call = stage.client.call(function_id(first), 1)
        await stage.done(call, 1)

        await become_generator(stage)
        stage.client.put(call, {1: b"2"})
        await stage.until(lambda: len(call.outputs) == 2)

        assert CHANGED in call.outputs[1].failure.message
        assert {start.version for start in stage.node.starts} == {1}


async def test_recreate_ends_what_runs_and_runs_it_again_in_new_code() -> None:
    async with staged() as stage:
        gate = stage.node.run = Gate(stage)
        first = await deploy(stage)
        call = stage.client.call(function_id(first), 1)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        deploying = asyncio.ensure_future(deploy(stage, code="2", strategy="recreate"))
        await stage.until(deploying.done)
        assert stage.node.started[0].container_id not in stage.node.guests
        gate.opened.set()
        await stage.until(lambda: call.outputs)

        assert deploying.result().left_container_count == 0
        assert (call.outputs[0].status, call.outputs[0].value) == (0, b"2")


async def test_an_input_survives_any_number_of_deploys_that_recreate() -> None:
    async with staged() as stage:
        gate = stage.node.run = Gate(stage)
        first = await deploy(stage, code="0")
        call = stage.client.call(function_id(first), 1)
        for number in range(1, 13):
            await stage.until(lambda: call.outputs or any(one.running for one in stage.node.guests.values()))
            deploying = asyncio.ensure_future(deploy(stage, code=str(number), strategy="recreate"))
            await stage.until(deploying.done)
        gate.opened.set()
        await stage.until(lambda: call.outputs)

        assert (call.outputs[0].status, call.outputs[0].value) == (0, b"12")


async def test_recreate_that_takes_too_long_says_how_many_are_left() -> None:
    async with staged() as stage:
        await deploy(stage, min_containers=1)
        await stage.until(lambda: stage.node.guests)
        stage.node.guests.clear()

        deploying = asyncio.ensure_future(deploy(stage, code="2", strategy="recreate"))
        await stage.pass_time(39.0, 1.0)
        assert not deploying.done()
        await stage.pass_time(2.0, 1.0)

        assert deploying.result().left_container_count == 1


async def test_a_function_that_stayed_as_it_was_keeps_its_containers() -> None:
    async with staged() as stage:
        await answer_code(stage)
        prepared = await prepare(stage)
        same = deployable(prepared.app_id, "same", env={"CODE": "1"}, min_containers=1)
        await publish(stage, prepared.app_id, same, deployable(prepared.app_id, "other", env={"CODE": "1"}))
        await stage.until(lambda: stage.node.guests)
        before = set(stage.node.guests)

        second = await publish(stage, prepared.app_id, same, deployable(prepared.app_id, "other", env={"CODE": "2"}))
        await stage.pass_time(5.0, 0.5)

        assert second.version == 2
        assert set(stage.node.guests) == before
        await stage.restart()
        await stage.pass_time(5.0, 0.5)
        assert set(stage.node.guests) == before


async def test_a_deploy_resets_what_autoscalers_go_by() -> None:
    async with staged() as stage:
        prepared = await prepare(stage)
        same = deployable(prepared.app_id, "same", env={"CODE": "1"})
        first = await publish(stage, prepared.app_id, same, deployable(prepared.app_id, "other", env={"CODE": "1"}))
        for name in ("same", "other"):
            update = AutoscalerUpdate(function_id(first, name), min_containers=2)
            await stage.client.ask("AutoscalerUpdate", update, AutoscalerSettings)

        await publish(stage, prepared.app_id, same, deployable(prepared.app_id, "other", env={"CODE": "2"}))

        for name in ("same", "other"):
            asked = AutoscalerGet(function_id(first, name))
            assert (await stage.client.ask("AutoscalerGet", asked, AutoscalerSettings)).min_containers == 0
        assert await stage.store.list_scaling(prepared.app_id) == {}


async def test_containers_of_an_old_version_drain_after_a_restart() -> None:
    async with staged() as stage:
        gate = stage.node.run = Gate(stage)
        first = await deploy(stage)
        call = stage.client.call(function_id(first), 1)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        await deploy(stage, code="2")

        await stage.restart()
        await stage.client.connect()
        stage.client.resume(call, {0: b"1"})
        new = stage.client.call(function_id(first), 2)
        gate.opened.set()
        await stage.until(lambda: call.outputs and new.outputs)

        assert (call.outputs[0].value, new.outputs[0].value) == (b"1", b"2")
        await stage.until(lambda: stage.node.started[0].container_id not in stage.node.guests)


async def test_a_deployed_app_goes_on_without_its_client_and_after_a_restart() -> None:
    async with staged() as stage:
        await answer_code(stage)
        first = await deploy(stage, min_containers=1)
        await stage.until(lambda: stage.node.guests)
        stage.client.disconnect()
        stage.node.guests.clear()
        await stage.pass_time(120.0, 1.0)

        await stage.restart()
        await stage.client.connect()
        await stage.until(lambda: stage.node.guests)
        call = stage.client.call(function_id(first), 1)
        await stage.until(lambda: call.outputs)

        assert call.outputs[0].value == b"1"
        assert not stage.plane.is_idle


async def test_containers_that_come_with_their_node_are_not_started_again() -> None:
    async with staged() as stage:
        prepared = await prepare(stage)
        specs = [deployable(prepared.app_id, name, env={"CODE": "1"}, min_containers=2) for name in ("a", "b")]
        await publish(stage, prepared.app_id, *specs)
        await stage.until(lambda: len(stage.node.guests) == 4)

        # The server is back before the node is, and asks for what it lacks.
        await stage.plane.__aexit__()
        stage.plane = stage.make_plane()
        await stage.plane.__aenter__()
        await stage.pass_time(1.0)
        stage.node.plane = stage.plane
        await stage.node.connect()
        for guest in list(stage.node.guests.values()):
            await guest.connect(is_reconnect=True)
        await stage.pass_time(5.0)

        assert len(stage.node.starts) == 4


async def test_a_function_left_out_fails_what_waits_and_finishes_what_runs() -> None:
    async with staged() as stage:
        gate = stage.node.run = Gate(stage)
        first = await deploy(stage, max_containers=1)
        call = stage.client.call(function_id(first), 1, 2)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        await deploy(stage, function="cube", code="2")
        await stage.until(lambda: call.outputs)
        late = stage.client.call(function_id(first), 3)
        await stage.until(lambda: late.outputs)
        gate.opened.set()
        await stage.until(lambda: len(call.outputs) == 2)

        assert call.outputs[0].value == b"1"
        for failed in (call.outputs[1], late.outputs[0]):
            assert failed.failure.kind == "not_found"
            assert "square was deleted in version 2 of app greeter" in failed.failure.message
        await stage.pass_time(40.0, 1.0)
        assert function_id(first) not in stage.plane.apps.dispatchers
        error = await failure_of(stage.client.ask("FunctionGet", FunctionGet(function_id(first)), FunctionSpec))
        assert error.code == "not_found"


async def test_a_name_that_is_almost_one_is_hinted_at() -> None:
    async with staged() as stage:
        await deploy(stage)

        function = await failure_of(
            stage.client.ask("FunctionGet", FunctionGet(app="greeter", name="sqare"), FunctionSpec)
        )
        app = await failure_of(stage.client.ask("AppGet", AppGet("greter"), AppInfo))

        assert "did you mean 'square'" in function.message
        assert "did you mean 'greeter'" in app.message


async def test_a_function_that_comes_back_has_its_old_id() -> None:
    async with staged() as stage:
        await answer_code(stage)
        first = await deploy(stage)
        await deploy(stage, function="cube")
        await deploy(stage, code="3")

        call = stage.client.call(function_id(first), 1)
        await stage.until(lambda: call.outputs)

        assert call.outputs[0].value == b"3"
        await stage.pass_time(5.0, 1.0)
        assert function_id(first) in stage.plane.apps.dispatchers


async def test_a_stopped_app_is_deployed_anew_as_another() -> None:
    async with staged() as stage:
        first = await deploy(stage)
        await stage.client.ask("AppStop", AppStop("greeter"), AppStopped)

        second = await deploy(stage)

        assert (second.version, second.app_id == first.app_id) == (1, False)
        error = await failure_of(publish(stage, first.app_id, deployable(first.app_id), name="elsewhere"))
        assert error.code == "conflict"


async def test_what_is_deployed_goes_before_a_newer_run_of_the_same_name() -> None:
    async with staged() as stage:
        deployed = await deploy(stage)
        await stage.client.app("greeter")

        info = await stage.client.ask("AppGet", AppGet("greeter"), AppInfo)

        assert (info.app_id, info.state, info.version) == (deployed.app_id, "deployed", 1)


async def test_rollback_publishes_the_version_before_as_a_new_one() -> None:
    async with staged() as stage:
        await answer_code(stage)
        await keep_image(stage)
        first = await deploy(stage, tag="one")
        await deploy(stage, code="2")

        back = await roll_back(stage)
        call = stage.client.call(function_id(first), 1)
        await stage.until(lambda: call.outputs)

        assert (back.version, call.outputs[0].value) == (3, b"1")
        history = await stage.client.ask("AppHistory", AppHistoryGet("greeter"), AppHistory)
        assert [(one.version, one.restored_version, one.tag) for one in history.versions] == [
            (3, 1, "one"),
            (2, 0, ""),
            (1, 0, "one"),
        ]


async def test_rollback_says_what_it_cannot_go_back_to() -> None:
    async with staged() as stage:
        await deploy(stage)

        assert "no version before 1" in (await failure_of(roll_back(stage))).message
        assert "it has v1" in (await failure_of(roll_back(stage, version=7))).message
        assert "current" in (await failure_of(roll_back(stage, version=1))).message
        await deploy(stage, code="2")
        assert "image im-test of version 1 was removed" in (await failure_of(roll_back(stage))).message
        app_id = await stage.client.app("running")
        assert "is ephemeral" in (await failure_of(roll_back(stage, app_id))).message


async def test_rollback_has_an_id_that_tells_it_from_others() -> None:
    async with staged() as stage:
        await keep_image(stage)
        for code in "123":
            await deploy(stage, code=code)

        error = await failure_of(stage.client.ask("AppRollback", AppRollback("greeter", ""), AppPublished))

        assert (error.code, "deploy_id is missing" in error.message) == ("invalid", True)
        assert (await roll_back(stage)).version == 4


async def test_rollover_replaces_every_container() -> None:
    async with staged() as stage:
        await keep_image(stage)
        await deploy(stage, min_containers=1)
        await stage.until(lambda: stage.node.guests)
        before = set(stage.node.guests)

        published = await roll_back(stage, is_rollover=True)
        await stage.until(lambda: stage.node.guests and not before & set(stage.node.guests))

        assert published.version == 2


async def test_what_kept_versions_need_is_in_use() -> None:
    async with staged() as stage:
        await deploy(stage, image_id="im-old")
        await deploy(stage, code="2", image_id="im-new")

        assert {"im-old", "im-new"} <= stage.plane.image_users.now().keys()
        await stage.restart()
        assert {"im-old", "im-new"} <= stage.plane.image_users.now().keys()


@pytest.mark.long
async def test_an_image_built_for_a_deploy_is_in_use_before_it_is_published() -> None:
    async with staged() as stage:
        prepared = await prepare(stage)
        stage.plane.image_users.claim(prepared.app_id, "im-first")
        await deploy(stage)
        stage.plane.image_users.claim(prepared.app_id, "im-next")
        assert {"im-first", "im-next"} <= stage.plane.image_users.now().keys()

        await stage.pass_time(25 * 3600.0, 3600.0)

        assert not {"im-first", "im-next"} & stage.plane.image_users.now().keys()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "a b"}, "is deployed under a name"),
        ({"tag": "a b"}, "a tag is"),
        ({"tag": "a" * 51}, "a tag is"),
        ({"strategy": "blue-green"}, "rolling, recreate"),
        ({"app_tags": {"a b": "c"}}, "tags are"),
        ({"deployed_by": "x" * 201}, "200 characters"),
        ({"commit": Commit("x" * 201)}, "200 characters"),
    ],
)
async def test_what_cannot_be_a_version_is_refused(fields: dict[str, Any], message: str) -> None:
    async with staged() as stage:
        prepared = await prepare(stage)

        error = await failure_of(publish(stage, prepared.app_id, deployable(prepared.app_id), **fields))

        assert error.code == "invalid"
        assert message in error.message
        assert prepared.app_id not in stage.plane.apps.live


async def test_functions_that_cannot_be_of_the_version_are_refused() -> None:
    async with staged() as stage:
        prepared = await prepare(stage)
        spec = deployable(prepared.app_id)
        for wrong, message in (
            ((spec, spec), "two functions have one name"),
            ((replace(spec, function_id=ids.new_id("fu")),), "the id of another"),
            ((replace(spec, is_interactive=True),), "needs a terminal"),
            ((replace(spec, is_pinned=True),), "a variant"),
            ((replace(spec, image_id=""),), "image_id is missing"),
        ):
            error = await failure_of(publish(stage, prepared.app_id, *wrong))
            assert (error.code, message in error.message) == ("invalid", True), error.message
        missing = replace(spec, mounts=(MountRef("mo-none", "/root"),))
        assert (await failure_of(publish(stage, prepared.app_id, missing))).code == "not_found"
        assert prepared.app_id not in stage.plane.apps.live


async def test_tags_are_replaced() -> None:
    async with staged() as stage:
        published = await deploy(stage)

        info = await stage.client.ask("AppTagsPut", AppTagsPut("greeter", {"team": "blue"}), AppInfo)

        assert info.tags == {"team": "blue"}
        assert (await stage.store.get_app(published.app_id)).tags == {"team": "blue"}


@pytest.mark.long
async def test_many_functions_are_one_version() -> None:
    async with staged() as stage:
        prepared = await prepare(stage)
        specs = [deployable(prepared.app_id, f"f{number}") for number in range(10_000)]

        published = await publish(stage, prepared.app_id, *specs)
        await stage.restart()

        assert published.version == 1
        assert len(stage.plane.apps.live[prepared.app_id].functions) == 10_000
        await settle()


def all_done(*calls: FakeCall) -> bool:
    return all(call.outputs for call in calls)


async def bind(stage: Stage, function: str, version: int, app_id: str = "") -> str:
    record = FunctionBind(function, version=version, app_id=app_id)
    bound: FunctionBound = await stage.client.ask("FunctionBind", record, FunctionBound)
    return bound.function_id


async def test_what_is_held_to_a_version_runs_its_code_whatever_is_deployed() -> None:
    async with staged() as stage:
        await answer_code(stage)
        first = await deploy(stage)
        held_id = await bind(stage, function_id(first), 1)
        await deploy(stage, code="2")

        for _ in range(2):
            held, current = stage.client.call(held_id, 1), stage.client.call(function_id(first), 1)
            await stage.until(partial(all_done, held, current))
            assert (held.outputs[0].value, current.outputs[0].value) == (b"1", b"2")
            await stage.restart()
            await stage.client.connect()


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_what_a_later_version_leaves_out_is_had_from_the_earlier_one(is_restarted: bool) -> None:
    async with staged() as stage:
        gate = stage.node.run = Gate(stage)
        prepared = await prepare(stage)
        outer = partial(deployable, prepared.app_id, "outer", env={"CODE": "always"})
        await publish(stage, prepared.app_id, outer(), deployable(prepared.app_id, "inner", env={"CODE": "1"}))
        await publish(stage, prepared.app_id, outer())
        inner_id = ids.function_id(prepared.app_id, "inner")
        if is_restarted:
            await stage.restart()
            await stage.client.connect()
        await stage.pass_time(2.0)

        outer_id = await bind(stage, ids.function_id(prepared.app_id, "outer"), 1)
        stage.client.call(outer_id, 1)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        inside = await FakeClient(stage.plane, stage.codec).connect_inside(stage.node.started[0].container_id)
        gate.opened.set()
        calls = [inside.call(inner_id, 1), stage.client.call(await bind(stage, inner_id, 1, prepared.app_id), 2)]
        await stage.until(partial(all_done, *calls))
        gone = stage.client.call(inner_id, 3)
        await stage.until(partial(all_done, gone))

        assert [call.outputs[0].value for call in calls] == [b"1", b"1"]
        assert decode_failure(gone.outputs[0].value)[0].kind == "not_found"
        with pytest.raises(PlatformError, match=r"version 2 of app .* has no function"):
            await bind(stage, inner_id, 2, prepared.app_id)


@pytest.mark.parametrize("is_in_template", [False, True])
async def test_calls_of_what_is_held_to_a_version_are_held_to_it(is_in_template: bool) -> None:
    async with staged() as stage:
        gate = stage.node.run = Gate(stage)
        prepared = await prepare(stage)

        async def deploy_both(code: str) -> None:
            outer = deployable(prepared.app_id, "outer", env={"CODE": "always"})
            await publish(stage, prepared.app_id, outer, deployable(prepared.app_id, "inner", env={"CODE": code}))

        await deploy_both("1")
        await deploy_both("2")
        held_id = await bind(stage, ids.function_id(prepared.app_id, "outer"), 2)
        await deploy_both("3")
        inside = FakeClient(stage.plane, stage.codec)
        if is_in_template:
            hello = ContainerHello(new_id("tp"), "template", app_id=prepared.app_id, function_id=held_id, version=2)
            await inside.connect_in_template(hello)
        else:
            stage.client.call(held_id, 1)
            await stage.until(lambda: stage.node.started and stage.node.started[0].running)
            await inside.connect_inside(stage.node.started[0].container_id)
        gate.opened.set()

        inner_id = ids.function_id(prepared.app_id, "inner")
        calls = [inside.call(inner_id, 1), inside.call(inner_id, 2)]
        opened = CallOpen(new_id("fc"), inner_id, SPAWN)
        await inside.ask("CallSpawn", CallSpawn(opened, InputBatch(opened.call_id, (0,), (1,))), CallSpawned, b"7")
        # What `.spawn` sends.
        many = SpawnBatch(inner_id, (new_id("fc"), new_id("fc")), (1, 1))
        await inside.ask("CallSpawnMany", many, Empty, b"77")
        await stage.until(lambda: all(call.outputs for call in calls))
        assert [call.outputs[0].value for call in calls] == [b"2", b"2"]
        for call_id in (opened.call_id, *many.call_ids):
            await stage.until(partial(stage.store._outputs[call_id].get, 0))
            assert stage.store._outputs[call_id][0].value == b"2"


async def test_a_call_of_what_is_held_to_a_version_fails_where_that_version_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with staged() as stage:
        gate = stage.node.run = Gate(stage)
        prepared = await prepare(stage)
        outer = partial(deployable, prepared.app_id, "outer", env={"CODE": "always"})
        await publish(stage, prepared.app_id, outer(), deployable(prepared.app_id, "other", env={"CODE": "1"}))
        added = (deployable(prepared.app_id, name, env={"CODE": "2"}) for name in ("other", "inner"))
        await publish(stage, prepared.app_id, outer(), *added)
        held_id = await bind(stage, ids.function_id(prepared.app_id, "outer"), 1)
        stage.client.call(held_id, 1)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        inside = await FakeClient(stage.plane, stage.codec).connect_inside(stage.node.started[0].container_id)
        gate.opened.set()

        missing = inside.call(ids.function_id(prepared.app_id, "inner"), 1)
        await stage.until(lambda: missing.outputs)
        put_variant = stage.store.put_variant

        async def fail(variant: object) -> None:
            raise PlatformError("unavailable", "the database cannot be reached")

        monkeypatch.setattr(stage.store, "put_variant", fail)
        unknown = inside.call(ids.function_id(prepared.app_id, "other"), 1)
        await stage.until(lambda: unknown.outputs)
        monkeypatch.setattr(stage.store, "put_variant", put_variant)
        found = inside.call(ids.function_id(prepared.app_id, "other"), 1)
        await stage.until(lambda: found.outputs)

        assert missing.outputs[0].status == FAILED
        assert missing.outputs[0].failure.kind == "not_found"
        assert "version 1 of app greeter has no function 'inner'" in missing.outputs[0].failure.message
        assert unknown.outputs[0].failure == Failure("unavailable", "the database cannot be reached")
        assert found.outputs[0].value == b"1"
