"""Templates of all nodes are listed and dropped, also when a node is slow or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from squall.protocol.app import AppCreate, AppCreated, AppStop, AppStopped
from squall.protocol.codec import Codec
from squall.protocol.environment import EnvironmentCreate, EnvironmentInfo
from squall.protocol.errors import PlatformError
from squall.protocol.function import FunctionBind, FunctionBound, FunctionOptions, FunctionSpec
from squall.protocol.ids import new_id
from squall.protocol.node import NodeReport
from squall.protocol.records import replace
from squall.protocol.request import Request
from squall.protocol.server import ServerStatus, ServerStatusRequest
from squall.protocol.template import (
    DROPPED,
    READY,
    NodeTemplate,
    NodeTemplateDrop,
    NodeTemplateDropped,
    NodeTemplateList,
    NodeTemplateListing,
    NodeTemplatesFree,
    NodeTemplatesUnneeded,
    TemplateDrop,
    TemplateDropped,
    TemplateInfo,
    TemplateList,
    TemplateListing,
)
from squall.server.dispatch import ControlPlane
from squall.server.dispatch.app import variants
from tests.server.dispatch.deploying import deployable, keep_image, prepare, publish
from tests.server.doubles import FakeNode, Stage, make_spec, settle, staged

Answer = Callable[[], Awaitable[Any]]


class NodeWithTemplates(FakeNode):
    """An agent that has some."""

    def __init__(self, plane: ControlPlane, codec: Codec) -> None:
        super().__init__(plane, codec)
        self.asked_mib: list[int] = []
        """Of how much memory it was to free."""

    templates: tuple[NodeTemplate, ...] = ()
    freeable: tuple[str, ...] = ()
    """Which it drops when it is to free memory."""
    before: Answer | None = None
    """Awaited before it answers."""

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        """See `Service`."""
        if not request.method.startswith("NodeTemplate"):
            return await super().answer(request)
        if self.before is not None:
            await self.before()
        if request.method == "NodeTemplateList":
            function_id = request.record(NodeTemplateList).function_id
            found = tuple(one for one in self.templates if function_id in ("", one.function_id))
            return NodeTemplateListing(found, bool(function_id) and not found), b""
        if request.method == "NodeTemplatesFree":
            self.asked_mib.append(request.record(NodeTemplatesFree).wanted_mib)
            wanted = self.freeable
        else:
            wanted = request.record(NodeTemplateDrop).template_ids
        gone = tuple(one.template_id for one in self.templates if one.template_id in wanted)
        self.templates = tuple(one for one in self.templates if one.template_id not in gone)
        return NodeTemplateDropped(gone), b""


async def add_node(stage: Stage, *templates: NodeTemplate) -> NodeWithTemplates:
    node = NodeWithTemplates(stage.plane, stage.codec)
    node.templates = templates
    await node.connect()
    return node


def template(spec: FunctionSpec, **fields: Any) -> NodeTemplate:
    return replace(NodeTemplate(new_id("tp"), spec.app_id, spec.function_id, "function", READY), **fields)


async def listed(stage: Stage, **asked: Any) -> TemplateListing:
    found: TemplateListing = await stage.client.ask("TemplateList", TemplateList(**asked), TemplateListing)
    return found


async def dropped(stage: Stage, **asked: Any) -> TemplateDropped:
    found: TemplateDropped = await stage.client.ask("TemplateDrop", TemplateDrop(**asked), TemplateDropped)
    return found


def ids_of(found: TemplateListing | TemplateDropped) -> set[str]:
    return {one.template.template_id for one in found.templates}


async def only_node(stage: Stage, *templates: NodeTemplate) -> NodeWithTemplates:
    """The stage's own, by an agent that has templates to tell of."""
    node = NodeWithTemplates(stage.plane, stage.codec)
    node.node_id, node.templates = stage.node.node_id, templates
    stage.node = node
    await node.connect()
    return node


async def test_templates_of_all_nodes_are_listed_with_names() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        first, second = template(spec, memory_mib=40), template(spec, kind="image", clone_count=2)
        nodes = [await only_node(stage, first), await add_node(stage, second)]

        found = await listed(stage)

        expected = [
            TemplateInfo(one, node.node_id, "hello", "square", "main")
            for node, one in zip(nodes, (first, second), strict=True)
        ]
        assert found.templates == tuple(sorted(expected, key=lambda one: one.node_id))
        assert not found.silent_nodes


async def test_a_template_of_an_app_that_is_gone_is_listed_without_names() -> None:
    async with staged() as stage:
        gone = NodeTemplate(new_id("tp"), "ap-00000001", "fu-00000001", "image", READY)
        node = await only_node(stage, gone)

        assert (await listed(stage)).templates == (TemplateInfo(gone, node.node_id),)


async def test_those_of_one_app_or_environment_are_listed_alone() -> None:
    async with staged() as stage:
        one, other = await stage.client.function(), await stage.client.function()
        ours, theirs = template(one), template(other)
        await only_node(stage, ours, theirs)
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("staging"), EnvironmentInfo)

        assert ids_of(await listed(stage, app=one.app_id)) == {ours.template_id}
        assert ids_of(await listed(stage, environment="main")) == {ours.template_id, theirs.template_id}
        assert ids_of(await listed(stage, environment="staging")) == set()
        with pytest.raises(PlatformError, match="no app is called 'nobody'"):
            await listed(stage, app="nobody")


async def test_those_of_an_environment_are_named_so_and_dropped_alone() -> None:
    async with staged() as stage:
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("staging"), EnvironmentInfo)
        ours = template(await stage.client.function())
        app_id = new_id("ap")
        await stage.client.ask("AppCreate", AppCreate(app_id, "hello", environment="staging"), AppCreated)
        theirs, gone = template(make_spec(app_id)), NodeTemplate(new_id("tp"), "ap-00000001", "", "image", READY)
        node = await only_node(stage, ours, theirs, gone)

        found = await listed(stage)
        assert {one.template.template_id: one.environment for one in found.templates} == {
            ours.template_id: "main", theirs.template_id: "staging", gone.template_id: "",
        }  # fmt: skip
        assert ids_of(await dropped(stage, is_all=True, environment="staging")) == {theirs.template_id}
        assert {one.template_id for one in node.templates} == {ours.template_id, gone.template_id}
        assert ids_of(await dropped(stage, is_all=True, environment="main")) == {ours.template_id}
        assert ids_of(await dropped(stage, is_all=True)) == {gone.template_id}


async def test_of_one_function_it_is_told_whether_one_is_coming() -> None:
    async with staged() as stage:
        one, other = await stage.client.function(), await stage.client.function()
        ours = template(one)
        await only_node(stage, ours, template(other))

        there, coming = await listed(stage, function_id=one.function_id), await listed(stage, function_id="fu-00000001")

        assert (ids_of(there), there.is_one_coming) == ({ours.template_id}, False)
        assert (ids_of(coming), coming.is_one_coming) == (set(), True)
        assert not (await listed(stage)).is_one_coming


async def test_many_are_listed_a_page_at_a_time() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        many = [template(spec) for _ in range(2_500)]
        await only_node(stage, *many[:1_300])
        await add_node(stage, *many[1_300:])

        asked: TemplateList | None = TemplateList()
        found: list[str] = []
        pages = 0
        while asked is not None:
            page = await stage.client.ask("TemplateList", asked, TemplateListing)
            found += [one.template.template_id for one in page.templates]
            pages += 1
            asked = asked.following(page)

        assert pages == 3
        assert len(found) == len(set(found)) == len(many)


async def test_a_node_that_does_not_answer_is_named_and_keeps_nobody_waiting_long() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        ours = template(spec)
        await only_node(stage, ours)
        refusing = await add_node(stage, template(spec))
        away = await add_node(stage, template(spec))

        async def refuse() -> None:
            raise PlatformError("unavailable", "busy")

        refusing.before = refuse
        assert away.peer is not None
        away.peer.channel.close()
        found = await listed(stage)

        assert ids_of(found) == {ours.template_id}
        assert {one.node_id: one.cause for one in found.silent_nodes} == {
            refusing.node_id: "busy",
            away.node_id: "its agent is away; see `squall server status`",
        }


async def test_one_is_dropped_by_its_id() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        one, other = template(spec), template(spec)
        node = await only_node(stage, one, other)

        done = await dropped(stage, template_ids=(one.template_id,))

        assert done.templates == (TemplateInfo(one, node.node_id, "hello", "square", "main"),)
        assert [one.template_id for one in node.templates] == [other.template_id]


async def test_those_of_a_function_are_dropped_with_its_variants() -> None:
    async with staged() as stage:
        spec, other = await stage.client.function(), await stage.client.function()
        asked = FunctionBind(spec.function_id, options=FunctionOptions(timeout_s=5.0))
        variant_id = (await stage.client.ask("FunctionBind", asked, FunctionBound)).function_id
        of_it, of_variant, of_other = template(spec), template(spec, function_id=variant_id), template(other)
        node = await only_node(stage, of_it, of_variant, of_other)

        done = await dropped(stage, app=spec.app_id, function="square")

        assert ids_of(done) == {of_it.template_id, of_variant.template_id}
        assert node.templates == (of_other,)


async def test_those_of_an_app_or_all_are_dropped() -> None:
    async with staged() as stage:
        spec, other = await stage.client.function(), await stage.client.function()
        one, two, three = template(spec), template(spec), template(other, state=DROPPED)
        node = await only_node(stage, one, two, three)

        assert ids_of(await dropped(stage, app=spec.app_id)) == {one.template_id, two.template_id}
        node.templates = (one, three)
        assert ids_of(await dropped(stage, is_all=True)) == {one.template_id}, (
            "one that is dropped is not dropped again"
        )
        assert not (await dropped(stage, app=spec.app_id)).templates


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        ({}, "invalid", "say what is to go"),
        ({"function": "square"}, "invalid", "say what is to go"),
        ({"is_all": True, "app": "hello"}, "invalid", "say what is to go"),
        ({"template_ids": ("tp-00000001",)}, "not_found", "no node has tp-00000001; `squall template list`"),
        ({"app": "nobody"}, "not_found", "no app is called 'nobody'"),
        ({"app": "hello", "function": "nothing"}, "not_found", "has no function 'nothing'"),
    ],
)
async def test_what_cannot_be_dropped_is_said(asked: dict[str, Any], code: str, message: str) -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        node = await only_node(stage, template(spec))

        with pytest.raises(PlatformError, match=message) as refused:
            await dropped(stage, **asked)

        assert refused.value.code == code
        assert len(node.templates) == 1


async def test_an_id_that_a_silent_node_may_have_is_not_said_to_be_nowhere() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        node = await only_node(stage, template(spec))
        assert node.peer is not None
        node.peer.channel.close()

        done = await dropped(stage, template_ids=("tp-00000001",))

        assert not done.templates
        assert [one.node_id for one in done.silent_nodes] == [node.node_id]


async def test_a_node_that_goes_away_in_between_is_silent() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        node = await only_node(stage, template(spec))
        asked: list[None] = []

        async def leave_when_asked_again() -> None:
            asked.append(None)
            if len(asked) == 2:
                assert node.peer is not None
                node.peer.channel.close()

        node.before = leave_when_asked_again
        done = await dropped(stage, is_all=True)

        assert not done.templates
        assert [one.node_id for one in done.silent_nodes] == [node.node_id]


async def test_from_inside_a_container_templates_are_nobodys_business() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.guests)
        inside = await type(stage.client)(stage.plane, stage.codec).connect_inside(next(iter(stage.node.guests)))
        assert spec.app_id

        for method, record, reply in (
            ("TemplateList", TemplateList(), TemplateListing),
            ("TemplateDrop", TemplateDrop(is_all=True), TemplateDropped),
        ):
            with pytest.raises(PlatformError) as refused:
                await inside.ask(method, record, reply)
            assert refused.value.code == "forbidden"


# What nobody needs any more


def unneeded(stage: Stage) -> list[NodeTemplatesUnneeded]:
    record = stage.codec.record
    return [
        record(NodeTemplatesUnneeded, params) for name, params in stage.node.told if name == "NodeTemplatesUnneeded"
    ]


async def test_nodes_are_told_of_an_app_that_has_ended() -> None:
    async with staged() as stage:
        spec, other = await stage.client.function(), await stage.client.function()

        await stage.client.ask("AppStop", AppStop(spec.app_id), AppStopped)
        await settle()

        assert unneeded(stage) == [NodeTemplatesUnneeded(spec.app_id)]
        assert other.app_id in stage.plane.apps.live


async def test_nodes_are_told_of_a_function_that_a_deploy_has_left_out_once_nothing_of_it_runs() -> None:
    async with staged() as stage:
        prepared = await prepare(stage)
        kept, left_out = deployable(prepared.app_id, "kept"), deployable(prepared.app_id, "left_out")
        await publish(stage, prepared.app_id, kept, left_out)
        await stage.done(stage.client.call(left_out.function_id, 1), 1)

        await publish(stage, prepared.app_id, kept)
        assert not [one for one in unneeded(stage) if one.function_id]
        await stage.pass_time(5.0)

        assert unneeded(stage)[-1] == NodeTemplatesUnneeded(prepared.app_id, left_out.function_id)


async def test_nodes_are_told_at_once_what_an_app_goes_on_with_and_since_when_it_is_so() -> None:
    async with staged() as stage:
        prepared = await prepare(stage)
        app_id = prepared.app_id
        one, two = deployable(app_id, "one"), deployable(app_id, "two")
        edited = replace(one, env={"CODE": "2"})
        for functions in ((one,), (one, two), (edited, two), (edited,)):
            await publish(stage, app_id, *functions)

        a, b = one.function_id, two.function_id
        told = [one.functions for one in unneeded(stage) if not one.function_id]
        assert told == [{a: 1}, {a: 1, b: 2}, {a: 3, b: 2}, {a: 3}]


async def test_nodes_know_with_what_a_container_is_deployed_anew() -> None:
    async with staged() as stage:
        prepared = await prepare(stage)
        await keep_image(stage)
        spec = deployable(prepared.app_id, "one")
        await publish(stage, prepared.app_id, spec)
        variant = FunctionBind(spec.function_id, "", FunctionOptions(timeout_s=5.0))
        pinned = FunctionBind(spec.function_id, version=1, app_id=prepared.app_id)
        for asked in (None, variant, pinned):
            function_id = spec.function_id
            if asked is not None:
                function_id = (await stage.client.ask("FunctionBind", asked, FunctionBound)).function_id
            await stage.done(stage.client.call(function_id, 1), 1)

        assert [(one.follows_id, one.version) for one in stage.node.starts] == [
            (spec.function_id, 1), (spec.function_id, 1), ("", 1),
        ]  # fmt: skip
        assert len({one.function_id for one in stage.node.starts}) == 3


async def test_a_node_that_was_away_is_told_when_it_comes() -> None:
    async with staged() as stage:
        prepared, spec = await prepare(stage), await stage.client.function()
        deployed, later = deployable(prepared.app_id, "one"), deployable(prepared.app_id, "two")
        await publish(stage, prepared.app_id, deployed)
        await publish(stage, prepared.app_id, deployed, later)
        gone = NodeTemplate(new_id("tp"), "ap-00000000gone", "", "image", READY)

        node = await add_node(stage, template(spec), template(deployed), gone)
        await settle()

        record = stage.codec.record
        told = [record(NodeTemplatesUnneeded, params) for name, params in node.told if name == "NodeTemplatesUnneeded"]
        functions = {deployed.function_id: 1, later.function_id: 2}
        assert told == [
            NodeTemplatesUnneeded(prepared.app_id, functions=functions), NodeTemplatesUnneeded(gone.app_id),
        ]  # fmt: skip


async def measured(stage: Stage, spec: FunctionSpec) -> str:
    """A variant whose starts are measured, by its id."""
    asked = FunctionBind(spec.function_id, options=FunctionOptions(is_measured=True))
    found: FunctionBound = await stage.client.ask("FunctionBind", asked, FunctionBound)
    return found.function_id


async def test_what_was_made_for_a_measurement_goes_when_that_was_killed() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        asked = FunctionBind(spec.function_id, options=FunctionOptions(timeout_s=5.0))
        kept = (await stage.client.ask("FunctionBind", asked, FunctionBound)).function_id
        function_id = await measured(stage, spec)

        await stage.pass_time(variants.IDLE_S / 2, 1.0)
        assert not unneeded(stage)
        await stage.pass_time(variants.IDLE_S, 1.0)

        assert unneeded(stage) == [NodeTemplatesUnneeded(spec.app_id, function_id)]
        assert kept not in stage.plane.apps.dispatchers, "which is forgotten as well, and may be called again"


async def test_a_measurement_that_goes_on_keeps_what_was_made_for_it() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        function_id = await measured(stage, spec)

        for number in range(4):
            await stage.pass_time(variants.IDLE_S * 0.7, 1.0)
            if number % 2:
                await stage.done(stage.client.call(function_id, 1), 1)
                await stage.pass_time(3.0, 1.0)
                for guest in list(stage.node.guests.values()):
                    guest.exit(0, None)
            else:
                await listed(stage, function_id=function_id)

        assert not unneeded(stage)


async def test_a_node_that_was_away_when_a_measurement_was_forgotten_is_told_when_it_comes() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        asked = FunctionBind(spec.function_id, options=FunctionOptions(timeout_s=5.0))
        kept = (await stage.client.ask("FunctionBind", asked, FunctionBound)).function_id
        function_id = await measured(stage, spec)
        ours = [template(spec, function_id=one) for one in (function_id, kept, "")]
        under_way = await add_node(stage, *ours)
        await settle()
        assert not under_way.told
        await stage.restart()

        node = await add_node(stage, *ours)
        await settle()

        record = stage.codec.record
        told = [record(NodeTemplatesUnneeded, params) for name, params in node.told if name == "NodeTemplatesUnneeded"]
        assert told == [NodeTemplatesUnneeded(spec.app_id, function_id)]


async def test_a_node_that_is_away_keeps_no_app_from_ending() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        assert stage.node.peer is not None
        stage.node.peer.channel.close()
        await settle()

        await stage.client.ask("AppStop", AppStop(spec.app_id), AppStopped)

        assert not unneeded(stage)


# Memory


async def report(stage: Stage, node: NodeWithTemplates, used_mib: int, template_mib: int) -> None:
    """The node says how it is, and the server has its second."""
    node.tell("NodeReport", NodeReport(0, used_mib, 100_000, 1, template_mib))
    await settle()
    stage.plane.fleet.tick()
    await settle()


async def idle_container(stage: Stage) -> FunctionSpec:
    spec = await stage.client.function(scaledown_window_s=3_600.0)
    await stage.done(stage.client.call(spec.function_id, 1), 1)
    return spec


def living(stage: Stage) -> int:
    return sum(not one.is_draining for one in stage.plane.fleet.containers.values())


async def test_when_memory_runs_out_templates_go_before_containers() -> None:
    async with staged() as stage:
        node = await only_node(stage)
        spec = await idle_container(stage)
        some, other = template(spec, memory_mib=100), template(spec, memory_mib=100)
        node.templates, node.freeable = (some, other), (some.template_id,)

        await report(stage, node, 7_636, 200)  # 100 MiB over 92 % of 8,192

        assert node.asked_mib == [100]
        assert [one.template_id for one in node.templates] == [other.template_id]
        assert living(stage) == 1


async def test_each_report_is_acted_upon_once() -> None:
    async with staged() as stage:
        node = await only_node(stage)
        spec = await idle_container(stage)
        node.templates = (template(spec),)
        node.freeable = (node.templates[0].template_id,)

        await report(stage, node, 8_000, 100)
        stage.plane.fleet.tick()
        await settle()

        assert living(stage) == 1


async def test_a_node_that_takes_its_time_to_free_memory_is_asked_once_and_keeps_its_containers() -> None:
    async with staged() as stage:
        node = await only_node(stage)
        await idle_container(stage)
        may_answer = asyncio.Event()

        async def wait() -> None:
            await may_answer.wait()

        node.before, node.freeable = wait, ("tp-1",)
        node.templates = (NodeTemplate("tp-1", "ap-1", "fu-1", "function", READY),)
        for _ in range(3):
            await report(stage, node, 8_000, 100)
        may_answer.set()
        await settle()
        stage.plane.fleet.tick()
        await settle()

        assert len(node.asked_mib) == 1, "what it said meanwhile is from before"
        assert living(stage) == 1


async def test_a_node_that_goes_away_while_it_is_asked_loses_no_container() -> None:
    async with staged() as stage:
        node = await only_node(stage)
        await idle_container(stage)

        async def go() -> None:
            assert node.peer is not None
            node.peer.channel.close()

        node.before = go
        await report(stage, node, 8_000, 100)

        assert living(stage) == 1


async def test_what_was_being_made_when_memory_ran_out_goes_when_it_is_ready() -> None:
    async with staged() as stage:
        node = await only_node(stage)
        spec = await idle_container(stage)
        await idle_container(stage)
        await report(stage, node, 8_000, 0)
        assert living(stage) == 1

        made = template(spec, memory_mib=2_000)
        node.templates, node.freeable = (made,), (made.template_id,)
        await report(stage, node, 8_000, 2_000)

        assert not ids_of(await listed(stage))
        assert living(stage) == 1


async def test_memory_that_suffices_costs_no_template() -> None:
    async with staged() as stage:
        node = await only_node(stage)
        await idle_container(stage)
        await report(stage, node, 7_535, 100)

        assert not node.asked_mib
        assert living(stage) == 1


async def test_where_templates_have_nothing_to_give_an_idle_container_ends() -> None:
    async with staged() as stage:
        node = await only_node(stage)
        await idle_container(stage)

        await report(stage, node, 8_000, 100)

        assert living(stage) == 0


async def test_a_node_that_drops_nothing_loses_an_idle_container_instead() -> None:
    async with staged() as stage:
        node = await only_node(stage)
        await idle_container(stage)

        async def refuse() -> None:
            raise PlatformError("unavailable", "busy")

        node.before = refuse
        await report(stage, node, 8_000, 100)

        assert living(stage) == 0


async def test_what_templates_hold_is_told_and_taken_from_no_container() -> None:
    async with staged() as stage:
        node = await only_node(stage)
        await report(stage, node, 6_000, 5_000)
        spec = await stage.client.function(memory_mib=8_000)

        status = await stage.client.ask("ServerStatus", ServerStatusRequest(), ServerStatus)
        outputs = await stage.done(stage.client.call(spec.function_id, 1), 1)

        assert status.template_memory_mib == 5_000
        assert outputs[0].value == b"2"
