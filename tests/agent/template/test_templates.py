"""Templates of a node: which there are, what the next agent finds of them, how much they may occupy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import replace
from typing import Any

import pytest

from squall.agent import containers
from squall.agent.outfit import Outfit, Outfits
from squall.agent.record import read_record
from squall.agent.template import memory, pools, templates, verdicts, wanted
from squall.protocol import codec as wire
from squall.protocol.channel.stream import connect_unix
from squall.protocol.errors import PlatformError
from squall.protocol.frames import Frame
from squall.protocol.function import Resources
from squall.protocol.guest import ENV_CONTAINER_ID, ENV_TEMPLATE, ENV_TOKEN, ROLE_CLIENT, GuestHello
from squall.protocol.ids import new_id
from squall.protocol.image_catalog import NodeGc, NodeImageGc
from squall.protocol.template import (
    NodeTemplateDrop,
    NodeTemplateDropped,
    NodeTemplatesFree,
)
from squall.runtime.contract import TemplateReport
from squall.runtime.errors import SpawnerGone
from squall.runtime.fake import FakeRuntime
from squall.runtime.removal import remove_tree
from squall.runtime.spec import ContainerSpec
from tests.agent.nodes import filled, node, snapshot, specs, started, template_of, told
from tests.agent.parts import CODEC, Inbox, until
from tests.agent.world import World, make_start

pytestmark = [pytest.mark.long, pytest.mark.timeout(60), pytest.mark.usefixtures("impatient")]

SECRET = "hunter2-hunter2"


# One template per function


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"TOKEN": "new"}},
        {"secrets": {"KEY": "new"}, "secrets_mark": "st-1:2"},
        {"version": 2},
        {"resources": Resources(cpu_milli=4_000)},
        {"is_network_blocked": True},
    ],
)
async def test_a_function_that_is_another_one_now_has_another_template(world: World, changes: dict[str, Any]) -> None:
    async with node(world) as agent:
        before, _ = await snapshot(world, env={"TOKEN": "old"})
        old = template_of(world)

        after, answer = await snapshot(world, **{"env": {"TOKEN": "old"}, **changes})

        assert answer.path in ("fork", "parked")
        assert old.state == "dropped"
        assert template_of(world) is not old
        # The clone goes on, and what there is of the old template stays until it ends.
        await until(lambda: world.templates[0].report.done() and old.pid)
        assert agent.containers.is_running(before)
        assert old.template_id in world.slots.held
        await world.end(before)
        await asyncio.wait_for(old.gone.wait(), 5)
        assert old.template_id not in world.slots.held
        assert agent.containers.is_running(after)
        await agent.end_all(0.0)
    assert not world.left()


async def test_secrets_are_in_no_file_label_or_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with node(world):
        await snapshot(world, env={"PASSWORD": SECRET})
        await filled(world)
        await snapshot(world, env={"PASSWORD": SECRET})

        tokens = [one.env[ENV_TOKEN] for one in (*specs(world, "tp-"), *specs(world, "ce-"))]
        content = [path.read_bytes() for path in world.data_dir.rglob("*") if path.is_file()]
        for value in (SECRET, *tokens):
            assert not [one for one in content if value.encode() in one]
            assert value not in caplog.text
            assert value not in repr(await told(world))
        every = [*(one.spec for one in world.machine.containers.values()), *world.machine.prepared.values()]
        assert not [one for one in every if SECRET in repr((one.labels, one.argv, one.container_id, one.state_dir))]
        assert not [one for one in world.machine.prepared.values() if one.env]


async def test_tokens_of_a_template_and_its_clones_open_no_socket_but_their_own(world: World) -> None:
    async with node(world):
        for _ in range(2):
            _, answer = await snapshot(world)
            assert answer.path in ("fork", "parked")
        spec_of = {one.env[ENV_CONTAINER_ID]: one for kind in ("tp-", "ce-") for one in specs(world, kind) if one.env}
        assert len(spec_of) == 3

        for asked, its_spec in spec_of.items():
            for spec in spec_of.values():
                hello = client_hello(spec.env[ENV_TOKEN], asked)
                assert await gets_in(world, its_spec, hello) == (spec is its_spec)


async def gets_in(world: World, spec: ContainerSpec, hello: Frame) -> bool:
    """Whether the socket of this container lets one through that says this."""
    channel, inbox = await connect_unix(f"{spec.state_dir}/agent/agent.sock"), Inbox()
    channel.start(inbox)
    before = len(world.server.container_channels)
    channel.send(hello)
    await until(lambda: len(world.server.container_channels) > before or inbox.reason is not None)
    channel.close()
    return len(world.server.container_channels) > before


def client_hello(token: str, container_id: str) -> Frame:
    hello = GuestHello(token, ROLE_CLIENT, container_id, "0", 1, client_id="cl-1")
    return Frame(CODEC.encode(wire.EVENT, 0, "GuestHello", hello), b"")


# The next agent


async def test_the_next_agent_adopts_templates_and_clones_and_makes_the_rest_anew(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "squall.agent")
    async with node(world):
        container_id, _ = await snapshot(world)
        await filled(world)
        made_ahead = set(world.machine.prepared)
        template_id = template_of(world).template_id

    async with node(world) as agent:
        assert [one.container_id for one in world.server.hellos[-1].containers] == [container_id]
        assert template_of(world).template_id == template_id
        assert template_of(world).is_ready
        assert "took over containers: 1, templates: 1, in " in caplog.text
        assert template_of(world).clones == {agent.containers._known[container_id].runtime_id}
        with contextlib.suppress(TimeoutError):
            await until(lambda: not made_ahead & set(world.machine.prepared))
        assert not made_ahead & set(world.machine.prepared)

        _, answer = await snapshot(world)

        assert answer.path == "fork"
        assert len(world.templates) == 1
        await filled(world)
        await agent.end_all(0.0)
        assert len(world.server.exits) == 2
    assert not world.left()


@pytest.mark.parametrize("has_record", [True, False])
async def test_clones_live_on_when_the_next_agent_has_no_use_for_their_template(world: World, has_record: bool) -> None:
    async with node(world):
        container_id, answer = await snapshot(world)
        template_id = template_of(world).template_id
        assert answer.path != "plain"
    if not has_record:
        (world.agent.config.containers_dir / template_id / "template.json").write_text("{")

    async with node(world, "plain") as agent:
        await until(lambda: world.templates[0].report.done() and not agent.templates._roster.live)
        await asyncio.sleep(0.1)

        assert agent.containers.is_running(container_id)
        assert not world.server.exits
        await world.end(container_id)
        await agent.end_all(0.0)


async def test_what_was_about_to_begin_when_the_agent_was_killed_never_was(world: World) -> None:
    async with node(world):
        await snapshot(world)
        await filled(world)
        cell = template_of(world).parked[0]
        identity = read_record(cell.outfit.directory)
        assert identity is not None
        # As it is between the record of the container and its beginning.
        runtime = world.agent._runtime
        began = asyncio.Event()

        async def never(container_id: str, env: object, volumes: object = ()) -> Any:
            began.set()
            await asyncio.sleep(60)

        runtime.begin = never  # type: ignore[method-assign]
        starting = asyncio.ensure_future(snapshot(world))
        await began.wait()
        found = read_record(cell.outfit.directory)
        assert found is not None
        assert found.container_id.startswith("ct-")
        # Killed: nothing is cleared away.
        world.agent.containers._outfits.give_back = _nothing  # type: ignore[method-assign]
        starting.cancel()

    async with node(world) as agent:
        assert len(world.server.hellos[-1].containers) == 1
        await until(lambda: cell.cell_id not in world.machine.prepared)
        await agent.end_all(0.0)
    assert not world.left()


async def _nothing(outfit: Outfit, failure: BaseException | None = None) -> bool:
    return False


async def test_a_template_that_was_being_made_is_waited_for_by_the_next_agent(world: World) -> None:
    world.may_report.clear()
    async with node(world):
        starting = asyncio.ensure_future(snapshot(world))
        await until(lambda: world.templates)
        starting.cancel()
    async with node(world):
        again = asyncio.ensure_future(snapshot(world))
        await asyncio.sleep(0.05)
        assert not again.done()
        world.may_report.set()

        assert (await again)[1].path in ("fork", "parked")
        assert len(world.templates) == 1


async def test_a_template_without_a_record_is_removed_with_its_last_clone(world: World) -> None:
    async with node(world):
        container_id, _ = await snapshot(world)
        directory = template_of(world).outfit.directory
    (directory / "template.json").write_text("{")
    async with node(world) as agent:
        assert agent.containers.is_running(container_id)
        await world.end(container_id)
        await until(lambda: not specs(world, "tp-"))
        assert not agent.templates._roster.live
        await agent.end_all(0.0)
    assert not world.left()


@pytest.mark.parametrize("has_record", [True, False])
async def test_a_clone_that_cannot_be_taken_over_does_not_hold_its_template(world: World, has_record: bool) -> None:
    async with node(world) as agent:
        container_id, _ = await snapshot(world)
        template = template_of(world)
        clone = agent.containers._known[container_id].outfit
    remove_tree(str(clone.directory / "agent"))
    if not has_record:
        (template.outfit.directory / "template.json").write_text("{")

    async with node(world) as agent:
        assert not agent.containers.is_running(container_id)
        assert clone.runtime_id not in world.machine.containers
        if has_record:
            assert not template_of(world).is_held
        else:
            await until(lambda: template.template_id not in world.machine.containers)
        await agent.end_all(0.0)
    assert not world.left()


async def test_a_hundred_templates_are_asked_side_by_side_by_the_next_agent(world: World) -> None:
    async with node(world, "fork", template_memory_mib=4_000):
        answers = await asyncio.gather(*(snapshot(world, function_id=f"fu-{number:08}") for number in range(100)))
        assert len(specs(world, "tp-")) == 100
        await asyncio.gather(*(world.end(container_id) for container_id, _ in answers))
    delays = 0

    class Slow(FakeRuntime):
        """As if each answer took 10 ms."""

        async def adopt(self, container_id: str) -> Any:
            nonlocal delays
            delays += 1
            await asyncio.sleep(0.01)
            return await super().adopt(container_id)

        async def template_report(self, container_id: str) -> TemplateReport:
            await asyncio.sleep(0.01)
            return await super().template_report(container_id)

    agent = world.agent
    runtime = Slow(world.machine)
    statuses = [one for one in await runtime.list() if one.container_id.startswith("tp-")]
    services = replace(agent.containers._services, runtime=runtime)
    outfits = Outfits(services)
    adopting = templates.Templates(
        replace(agent.config, start_path="auto", template_memory_mib=4_000), services, outfits, lambda: 1.0
    )
    before = time.monotonic()
    await adopting.adopt(statuses)
    took_s = time.monotonic() - before

    assert delays == 100
    assert len([one for one in adopting._roster.live.values() if one.is_ready]) == 100
    # A hundred answers one after the other would take 2 s.
    assert took_s < 0.6
    await adopting.close()
    await outfits.close()
    services.logs.close()
    await runtime.close()


async def test_when_the_spawner_has_died_templates_come_again(world: World) -> None:
    async with node(world) as agent:
        await snapshot(world)
        await filled(world)
        runtime = FakeRuntime(world.machine)
        world.machine.agents.clear()
        for container_id in [*world.machine.containers, *world.machine.prepared]:
            await runtime.remove(container_id)
        await agent.containers._find_lost()
        await until(lambda: not agent.templates._roster.there)
        assert [exited.is_lost for exited in world.server.exits] == [True]

        _, answer = await snapshot(world)

        assert answer.path == "fork"
        assert len(world.templates) == 2
        # Nobody holds it against the code.
        assert not [one for one in await told(world) if one.state == "unfit"]


async def test_a_spawner_that_dies_while_a_template_is_made_is_not_its_fault(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(world) as agent:
        world.machine.start_failures.append(SpawnerGone("the spawner is gone"))
        _, answer = await snapshot(world)
        assert answer.path == "plain"

        _, again = await snapshot(world)
        assert again.path in ("fork", "parked")
        await agent.end_all(0.0)


# Memory


@pytest.mark.usefixtures("no_pools")
async def test_templates_used_longest_ago_go_when_all_are_too_much(world: World) -> None:
    async with node(world, template_memory_mib=70) as agent:
        for number in range(4):
            world.now += 1.0
            container_id, answer = await snapshot(world, function_id=f"fu-{number:08}")
            assert answer.path in ("fork", "parked")
            await world.end(container_id)

        assert sorted(function_id for function_id, _ in agent.templates._roster._key_of) == [
            "fu-00000001",
            "fu-00000002",
            "fu-00000003",
        ]
        assert agent.templates.memory_bytes() <= 70 * 2**20
        await until(lambda: len(specs(world, "tp-")) == 3)


@pytest.mark.usefixtures("no_pools")
async def test_a_clock_that_is_set_back_makes_no_template_the_one_used_longest_ago(world: World) -> None:
    async with node(world, template_memory_mib=50) as agent:

        async def start_one(function_id: str) -> None:
            container_id, _ = await snapshot(world, function_id=function_id)
            await world.end(container_id)

        for function_id in ("fu-00000001", "fu-00000002"):
            await start_one(function_id)
        world.now -= 24 * 3_600.0
        await start_one("fu-00000001")

        await start_one("fu-00000003")

        left = [one.request.function_id for one in agent.templates._roster.live.values()]
        assert sorted(left) == ["fu-00000001", "fu-00000003"]


async def test_one_that_was_just_made_does_not_go_for_those_whose_clones_run(world: World) -> None:
    async with node(world, template_memory_mib=50) as agent:
        held = [await snapshot(world, function_id=f"fu-{number:08}") for number in range(3)]

        later = [(await snapshot(world, function_id="fu-00000007"))[1] for _ in range(2)]

        assert [one.path for _, one in held] == ["fork"] * 3
        assert [one.path for one in later] in (["fork", "fork"], ["fork", "parked"])
        # They count when their clones have ended.
        world.now += 1.0
        for container_id, _ in held:
            await world.end(container_id)
        agent.templates._roster.keep_within()
        await until(lambda: agent.templates._roster.unshared_bytes() <= 50 * 2**20)
        assert agent.templates._roster.find_of("fu-00000007", "function") is not None


async def test_a_template_larger_than_all_may_be_is_not_made_again_and_again(world: World) -> None:
    async with node(world, template_memory_mib=10):
        answers = [(await snapshot(world))[1] for _ in range(3)]

        assert [answer.path for answer in answers] == ["plain"] * 3
        assert "20 MiB" in answers[0].cause
        assert [one.env[ENV_TEMPLATE] for one in world.templates].count("function") == 1


async def test_templates_make_room_for_what_a_container_reserves(world: World) -> None:
    async with node(world, memory_mib=1_000) as agent:
        container_id, _ = await snapshot(world)
        await snapshot(world, function_id="fu-00000002", resources=Resources(memory_mib=500))
        await world.end(container_id)
        assert len(agent.templates._roster.live) == 2

        world.now += 1.0
        await snapshot(world, function_id="fu-00000003", resources=Resources(memory_mib=470))

        # Its own stays: it is what it starts from. So does the one whose clone runs and would have all of it.
        assert sorted(function_id for function_id, _ in agent.templates._roster._key_of) == [
            "fu-00000002",
            "fu-00000003",
        ]


async def test_memory_of_templates_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "UPKEEP_S", 0.02)
    async with node(world, report_period_s=0.02):
        await snapshot(world)
        await until(lambda: world.server.reports[-1].template_memory_mib >= 1)
        world.machine.memory_bytes[template_of(world).template_id] = 300 * 2**20
        await until(lambda: 300 <= world.server.reports[-1].template_memory_mib < 400)


async def test_a_template_stays_while_its_app_lives_however_long_nobody_uses_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "UPKEEP_S", 0.02)
    async with node(world) as agent:
        now = [time.monotonic()]
        agent.templates._pools._monotonic = lambda: now[0]
        container_id, _ = await snapshot(world)
        await world.end(container_id)
        world.now += 30 * 86_400.0
        now[0] += 30 * 86_400.0
        # What is made ahead goes by demand, and its memory is another one's.
        await until(lambda: not template_of(world).ahead)
        agent.templates._roster.keep_within()

        container_id, later = await snapshot(world)

        assert (later.path, later.cause, len(world.templates)) == ("fork", "", 1)
        agent.templates.drop_of("ap-00000001")
        await until(lambda: not agent.templates._roster.live)
        await world.end(container_id)
        await until(lambda: not world.machine.containers and not world.machine.prepared)
    assert not world.left()


async def test_no_more_templates_than_a_bound_whatever_starts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TEMPLATES_MAX", 5)
    async with node(world, "fork", template_memory_mib=100_000) as agent:
        for number in range(12):
            world.now += 1.0
            container_id, _ = await snapshot(world, function_id=f"fu-{number:08}")
            await world.end(container_id)
        assert len(agent.templates._roster.live) == 5
        await until(lambda: len(specs(world, "tp-")) == 5)


# What the server asks


async def test_templates_are_listed_and_dropped(world: World) -> None:
    async with node(world) as agent:
        container_id, _ = await snapshot(world)
        await filled(world)
        (one,) = await told(world)
        template = template_of(world)
        assert one.template_id == template.template_id
        assert (one.app_id, one.function_id, one.kind, one.state) == ("ap-00000001", "fu-00000001", "function", "ready")
        assert (one.clone_count, one.parked_count, one.cell_count) == (1, len(template.parked), len(template.cells))
        assert one.memory_mib >= 20
        assert one.used_at == world.now

        drop = NodeTemplateDrop((one.template_id, new_id("tp")))
        dropped = await world.server.peer.request("NodeTemplateDrop", drop, NodeTemplateDropped)

        assert dropped.template_ids == (one.template_id,)
        await until(lambda: not world.machine.prepared)
        (again,) = await told(world)
        assert (again.state, again.memory_mib, again.shared_mib) == ("dropped", 20, 20)
        assert agent.templates.memory_bytes() == 20 * 2**20, "the clone has it"
        assert agent.containers.is_running(container_id)
        await world.end(container_id)
        await until(lambda: not agent.templates._roster.there)
        assert not await told(world)
        assert agent.templates.memory_bytes() == 0


async def test_what_clones_hold_of_a_dropped_template_is_measured_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "UPKEEP_S", 0.02)
    async with node(world) as agent:
        await snapshot(world)
        template = template_of(world)
        agent.templates.drop_of("ap-00000001")

        world.machine.memory_bytes[template.template_id] = 15 * 2**20

        await until(lambda: agent.templates.memory_bytes() == 15 * 2**20)


async def test_a_node_short_of_memory_drops_what_frees_some_and_keeps_the_rest(world: World) -> None:
    async with node(world) as agent:
        container_id, _ = await snapshot(world)
        world.now += 1.0
        other_id, _ = await snapshot(world, function_id="fu-00000002")
        await world.end(other_id)
        other = agent.templates._roster.find_of("fu-00000002", "function")
        assert other is not None

        freed = [
            await world.server.peer.request("NodeTemplatesFree", NodeTemplatesFree(100), NodeTemplateDropped)
            for _ in range(2)
        ]

        assert [one.template_ids for one in freed] == [(other.template_id,), ()]
        assert other.cause == "its node was short of memory"
        assert agent.containers.is_running(container_id)


async def test_a_verdict_that_is_dropped_is_forgotten(world: World) -> None:
    world.report = TemplateReport(is_ready=False, cause="a socket is open")
    async with node(world):
        await snapshot(world)
        (unfit,) = await told(world)
        world.report = TemplateReport(is_ready=True)
        assert (await snapshot(world))[1].path == "plain"

        drop = NodeTemplateDrop((unfit.template_id,))
        await world.server.peer.request("NodeTemplateDrop", drop, NodeTemplateDropped)

        assert (await snapshot(world))[1].path in ("fork", "parked")


async def test_what_is_unfit_in_some_objects_of_a_class_is_not_loaded_twice_in_each(world: World) -> None:
    world.report = TemplateReport(is_ready=False, cause="module watch started a thread")
    async with node(world):
        answers = [(await snapshot(world, function_id=f"fu-{n:08}", follows_id="fu-class"))[1] for n in range(6)]

        assert [one.env[ENV_TEMPLATE] for one in world.templates].count("function") == verdicts.ALIKE_MIN
        assert {answer.cause for answer in answers[: verdicts.ALIKE_MIN]} == {"module watch started a thread"}
        (cause,) = {answer.cause for answer in answers[verdicts.ALIKE_MIN :]}
        assert cause.startswith("not tried, as other objects of its class, or variants")
        assert cause.endswith("are unfit: module watch started a thread")

        world.report = TemplateReport(is_ready=True)
        _, other_code = await snapshot(world, function_id="fu-00000007", follows_id="fu-class", version=2)
        _, other_class = await snapshot(world, function_id="fu-00000008", follows_id="fu-other")

        assert {other_code.path, other_class.path} <= {"fork", "parked"}


async def test_objects_are_tried_where_another_one_of_their_class_was_fit(world: World) -> None:
    async with node(world) as agent:
        _, fit = await snapshot(world, function_id="fu-00000009", follows_id="fu-class")
        assert fit.path in ("fork", "parked")
        agent.templates.drop_ids((template_of(world).template_id,))
        world.report = TemplateReport(is_ready=False, cause="a socket is open")
        for n in range(4):
            await snapshot(world, function_id=f"fu-{n:08}", follows_id="fu-class")

        assert [one.env[ENV_TEMPLATE] for one in world.templates].count("function") == 5


async def test_an_object_that_is_too_large_says_nothing_of_the_others(world: World) -> None:
    world.report = TemplateReport(is_ready=True, memory_bytes=2**40)
    async with node(world):
        for n in range(4):
            _, answer = await snapshot(world, function_id=f"fu-{n:08}", follows_id="fu-class")
            assert answer.cause.startswith("it takes 1048576 MiB")


async def test_what_there_is_is_told_however_many_there_are_that_cannot_be(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "NODE_TEMPLATES_MAX", 3)
    async with node(world) as agent:
        await snapshot(world)
        live = {one.template_id for one in agent.templates._roster.live.values()}
        world.report = TemplateReport(is_ready=False, cause="a socket is open")
        for number in range(5):
            world.now += 1.0
            await snapshot(world, function_id=f"fu-{number + 2:08}")
        live |= {one.template_id for one in agent.templates._roster.there.values()}

        told = agent.templates.told()

        assert live <= {one.template_id for one in told}
        assert len(told) == max(3, len(live))
        assert [one.used_at for one in told] == sorted((one.used_at for one in told), reverse=True)
        assert told[0].cause == "a socket is open"


async def test_a_template_keeps_no_image_that_nobody_needs(world: World) -> None:
    async with node(world) as agent:
        container_id, _ = await snapshot(world)
        await world.end(container_id)
        image_id = make_start().image_id
        await world.server.peer.request("NodeImageGc", NodeImageGc(0.0, needed={image_id: ("app",)}), NodeGc)
        assert agent.templates._roster.live

        await world.server.peer.request("NodeImageGc", NodeImageGc(0.0), NodeGc)

        assert not agent.templates._roster.there


async def drop_and_keep_back(world: World) -> str:
    """Drop a template whose slot is not given back before `may_release`; returns its id."""
    container_id, _ = await snapshot(world)
    template_id: str = template_of(world).template_id
    await world.end(container_id)
    world.slots.may_release.clear()
    world.agent.templates.drop_ids((template_id,))
    await until(lambda: template_id not in world.machine.containers)
    return template_id


async def test_a_node_is_taken_down_when_what_was_dropped_before_is_given_back(world: World) -> None:
    async with node(world) as agent:
        await drop_and_keep_back(world)

        ending = asyncio.ensure_future(agent.end_all(0.0))
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert not ending.done()

        world.slots.may_release.set()
        await ending
    assert not world.left()


async def test_a_node_is_taken_down_though_something_is_never_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(containers, "END_ALL_S", 0.1)
    async with node(world) as agent:
        template_id = await drop_and_keep_back(world)

        await agent.end_all(0.0)

        assert f"not gone after 0.1 s: {template_id}" in caplog.text
        world.slots.may_release.set()
        await until(lambda: not world.slots.held)


async def test_a_cell_is_thrown_away_whatever_becomes_of_who_does_it(world: World) -> None:
    async with node(world) as agent:
        await snapshot(world)
        await filled(world)
        (reserve,) = template_of(world).reserves.values()
        cell = reserve.take_cell()
        world.slots.may_release.clear()
        discarding = asyncio.ensure_future(agent.templates.cells.discard(cell))
        await until(lambda: cell.cell_id not in world.machine.prepared)

        discarding.cancel()
        await asyncio.wait([discarding])
        world.slots.may_release.set()

        await until(lambda: cell.cell_id not in world.slots.held)
        assert not cell.outfit.directory.exists()
        await agent.end_all(0.0)
    assert not world.left()


async def test_a_node_that_is_taken_down_leaves_no_template(world: World) -> None:
    async with node(world) as agent:
        await snapshot(world)
        await filled(world)
        await agent.end_all(0.0)
        assert not world.machine.containers
        assert not world.machine.prepared
        with pytest.raises(PlatformError, match="taken down"):
            await snapshot(world)
    assert not world.left()


async def test_two_hundred_at_once_are_forks_of_one_template_and_leave_nothing(world: World) -> None:
    async with node(world) as agent:
        await snapshot(world)
        before = len(os.listdir("/proc/self/fd"))
        answers = await asyncio.gather(*(snapshot(world) for _ in range(200)))

        assert {answer.path for _, answer in answers} <= {"fork", "parked"}
        assert len(world.templates) == 1
        await until(lambda: len(world.server.container_channels) == 201)
        await asyncio.gather(*(world.end(container_id) for container_id, _ in answers))
        assert len(world.server.exits) == 200
        agent.templates.drop_ids([template_of(world).template_id])
        await until(lambda: not world.machine.prepared)
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 8)
        await agent.end_all(0.0)
    assert not world.left()


async def test_no_image_template_is_made_that_its_function_is_not_started_with_any_more(world: World) -> None:
    async with node(world) as agent:
        world.may_report.clear()
        await started(world, function_id="fu-00000002", env={"B": "1"})
        await until(lambda: world.templates)  # and nobody else's is made meanwhile
        waiting = agent.templates._wanted._to_begin
        await started(world, env={"SECRET": "before"})
        await until(lambda: len(waiting) == 1)
        await started(world, env={"SECRET": "now"})
        await until(lambda: len(waiting) == 2)
        world.may_report.set()

        await until(lambda: agent.templates.ready_count == 2)
        assert [one.env.get("SECRET") for one in world.templates] == [None, "now"]


async def test_no_template_is_made_for_an_app_that_has_ended_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted, "SETTLE_S", 0.2)
    async with node(world) as agent:
        await started(world)
        await until(lambda: agent.templates._wanted._to_begin)
        agent.templates.drop_of(make_start().app_id)
        await asyncio.sleep(0.4)

        assert not world.templates
        await started(world)
        await until(lambda: world.templates)
