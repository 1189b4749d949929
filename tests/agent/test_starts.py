"""By which paths containers come to be, what happens when a path fails, and what the next agent finds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squall.agent.agent import Agent
from squall.agent.launch import THREAD_COUNTS
from squall.agent.outfit import Outfit, Outfits
from squall.agent.record import read_record
from squall.agent.template import making, memory, pools, templates
from squall.protocol.container import ContainerExec, TerminalOutput
from squall.protocol.errors import PlatformError
from squall.protocol.function import GVISOR, Resources
from squall.protocol.guest import ENV_CONTAINER_ID, ENV_TEMPLATE, ENV_TOKEN
from squall.protocol.ids import new_id
from squall.protocol.image_catalog import NodeGc, NodeImageGc
from squall.protocol.node import ContainerStarted
from squall.protocol.template import (
    NodeTemplate,
    NodeTemplateDrop,
    NodeTemplateDropped,
    NodeTemplateList,
    NodeTemplateListing,
)
from squall.runtime.contract import TemplateReport
from squall.runtime.errors import RuntimeFailure, SpawnerGone, TemplateUnfit
from squall.runtime.fake import FakeProcess, FakeRuntime
from squall.runtime.spec import ContainerSpec
from tests.agent.parts import until
from tests.agent.world import World, make_start

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]

SECRET = "hunter2-hunter2"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "SETTLE_S", 0.0)
    monkeypatch.setattr(templates, "END_AGAIN_S", 0.05)


@pytest.fixture
def no_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made ahead."""
    monkeypatch.setattr(pools, "AT_ONCE", 0)


@contextlib.asynccontextmanager
async def node(world: World, start_path: str = "auto", **changes: Any) -> AsyncIterator[Agent]:
    """An agent, on a node that has the image."""
    async with asyncio.timeout(30), world.running(start_path=start_path, **changes) as agent:
        if not world.images.built:
            await world.build()
        yield agent


async def started(world: World, **changes: Any) -> tuple[str, ContainerStarted]:
    """Start a container; returns its id, and the answer."""
    container_id = new_id("ct")
    return container_id, await world.ask(container_id=container_id, **changes)


async def snapshot(world: World, **changes: Any) -> tuple[str, ContainerStarted]:
    """The same, of a function that asks for function templates."""
    return await started(world, is_snapshot_enabled=True, **changes)


async def told(world: World) -> list[NodeTemplate]:
    listing = await world.server.peer.request("NodeTemplateList", NodeTemplateList(), NodeTemplateListing)
    return list(listing.templates)


def template_of(world: World) -> Any:
    """The one template of the node."""
    (found,) = world.agent.templates._live.values()
    return found


def specs(world: World, kind: str) -> list[ContainerSpec]:
    """What runs, by the kinds of ids."""
    return [one.spec for name, one in world.machine.containers.items() if name.startswith(kind)]


async def filled(world: World) -> None:
    """Wait until as much is ready as is wanted."""
    await until(lambda: template_of(world).parked and template_of(world).cells)
    await until(lambda: not world.agent.templates._pools.wanted([template_of(world)]))


# The paths


@pytest.mark.usefixtures("no_pools")
async def test_after_a_first_container_has_got_going_the_next_ones_are_forks(world: World) -> None:
    async with node(world) as agent:
        first, plain = await started(world)
        await until(lambda: world.templates and template_of(world).is_ready)
        second, fork = await started(world)
        await until(lambda: len(world.server.container_channels) == 2)

        assert (plain.path, plain.cause, fork.path, fork.cause) == ("plain", "", "fork", "")
        assert "runtime" in fork.phase_ms
        (spec,) = specs(world, "ce-")
        (template,) = specs(world, "tp-")
        assert spec.template_id == template.container_id
        assert spec.env[ENV_CONTAINER_ID] == second
        assert ENV_TEMPLATE not in spec.env
        assert spec.id_range == template.id_range == specs(world, "ct-")[0].id_range
        # A clone enters a network that its template's user has power over; the template is as any container.
        owner = world.slots.owners[spec.container_id]
        assert owner is not None
        assert (owner.id_range, owner.uid) == (spec.id_range, 0)
        assert world.slots.owners[template.container_id] is None

        assert {one.container_id for one in agent.containers.running()} == {first, second}
        await world.end(second)
        assert [exited.container_id for exited in world.server.exits] == [second]
        await agent.end_all(0.0)
    assert not world.left()


async def test_a_template_is_started_as_a_container_is_but_for_who_it_is(world: World) -> None:
    async with node(world):
        await started(world, env={"MINE": "1", "OMP_NUM_THREADS": "4"}, resources=Resources(cpu_milli=2_000))
        await until(lambda: world.templates)

        (plain,), (template,) = specs(world, "ct-"), specs(world, "tp-")
        differ = {name for name in {*plain.env, *template.env} if plain.env.get(name) != template.env.get(name)}
        assert differ == {ENV_CONTAINER_ID, ENV_TOKEN, ENV_TEMPLATE, "GLIBC_TUNABLES", *THREAD_COUNTS}
        assert {template.env[name] for name in THREAD_COUNTS} == {"1"}
        assert template.env[ENV_TEMPLATE] == "guest"
        assert template.is_template
        assert not plain.is_template
        for same in ("argv", "layers", "cwd", "user", "limits", "id_range"):
            assert getattr(plain, same) == getattr(template, same), same


async def test_tunables_that_the_function_names_are_its_own(world: World) -> None:
    async with node(world, "fork"):
        await started(world, env={"GLIBC_TUNABLES": "glibc.malloc.check=3"})

        assert specs(world, "tp-")[0].env["GLIBC_TUNABLES"] == "glibc.malloc.check=3"


@pytest.mark.usefixtures("no_pools")
async def test_starts_wait_for_a_function_template_that_is_made_once(world: World) -> None:
    world.may_report.clear()
    async with node(world):
        asked = [asyncio.ensure_future(snapshot(world)) for _ in range(5)]
        await until(lambda: world.templates)
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in asked)
        assert not world.agent.containers.running()

        world.may_report.set()
        answers = [answer for _, answer in await asyncio.gather(*asked)]

        assert [answer.path for answer in answers] == ["fork"] * 5
        assert len(world.templates) == 1
        assert world.templates[0].env[ENV_TEMPLATE] == "function"
        assert all("template" in answer.phase_ms for answer in answers)


async def test_a_start_that_is_given_up_leaves_the_template_to_the_others(world: World) -> None:
    world.may_report.clear()
    async with node(world) as agent:
        request = replace(make_start(), is_snapshot_enabled=True)
        given_up = asyncio.ensure_future(agent.containers.start(request))
        await until(lambda: world.templates)
        given_up.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await given_up
        world.may_report.set()

        _, answer = await snapshot(world)

        assert answer.path in ("fork", "parked")
        assert len(world.templates) == 1


async def test_a_start_waits_only_so_long_and_later_ones_are_forks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "WAIT_S", 0.05)
    world.may_report.clear()
    async with node(world):
        _, answer = await snapshot(world)
        assert answer.path == "plain"
        assert "not ready within 0.05 s" in answer.cause

        world.may_report.set()
        await until(lambda: template_of(world).is_ready)
        _, later = await snapshot(world)
        assert later.path in ("fork", "parked")


async def test_what_is_ready_is_used_the_shortest_path_first(world: World) -> None:
    async with node(world) as agent:
        await snapshot(world)
        await filled(world)
        template = template_of(world)
        cells, parked = list(template.cells), list(template.parked)
        with agent.templates._pools.starting():  # so that nothing is made meanwhile
            paths = [(await snapshot(world))[1].path for _ in range(len(parked) + len(cells) + 1)]

        assert paths == ["parked"] * len(parked) + ["fork"] * (len(cells) + 1)
        used = [one.container_id for one in specs(world, "ce-")]
        # The one that has waited longest begins first.
        assert used[1:-1] == [cell.cell_id for cell in (*parked, *cells)]
        await agent.end_all(0.0)
    assert not world.left()


@pytest.mark.parametrize("failure", [TemplateUnfit("its child did not join"), RuntimeFailure("no room for a cgroup")])
async def test_a_shortcut_that_fails_is_followed_by_the_next_one_and_leaves_nothing(
    world: World, failure: RuntimeFailure
) -> None:
    async with node(world) as agent:
        await snapshot(world)
        await filled(world)
        with agent.templates._pools.starting():
            world.machine.begin_failures += [failure]
            _, second = await snapshot(world)
            world.machine.begin_failures += [failure, failure, failure]
            world.machine.prepare_failures += [failure]
            agent.templates._live[template_of(world).key].early_end_count = -10
            container_id, third = await snapshot(world)

        assert second.path == "fork"
        assert "failed_parked" in second.phase_ms
        # Whatever else is wrong, the plain path is there.
        assert third.path == "plain"
        assert str(failure) in third.cause
        assert agent.containers.is_running(container_id)
        await agent.end_all(0.0)
    assert not world.left()
    assert not world.machine.prepared


async def test_a_template_that_has_ended_is_noticed_when_it_is_to_be_forked(world: World) -> None:
    async with node(world):
        first, _ = await snapshot(world)
        await filled(world)
        for template_id in [name for name in world.machine.containers if name.startswith("tp-")]:
            # Its end is told after that of its last clone, which goes on.
            await FakeRuntime(world.machine).kill(template_id, signal.SIGTERM)
        template_of(world).parked.clear()

        _, answer = await snapshot(world)

        assert answer.path == "plain"
        await until(lambda: not world.agent.templates._live)
        assert world.agent.containers.is_running(first)
        (unfit,) = [one for one in await told(world) if one.state == "unfit"]
        assert "ended" in unfit.cause


async def test_what_cannot_be_forked_is_started_plainly(world: World) -> None:
    async with node(world):
        _, other_kernel = await snapshot(world, isolation=GVISOR)
        _, silent = await started(world, isolation=GVISOR)
        world.images._config = replace(world.images._config, entrypoint=("python3",))
        world.agent.containers._services.images._built.clear()
        _, entrypoint = await snapshot(world)

        assert [one.path for one in (other_kernel, silent, entrypoint)] == ["plain"] * 3
        assert "gvisor" in other_kernel.cause
        assert silent.cause == ""
        assert "entrypoint" in entrypoint.cause
        assert not world.templates


@pytest.mark.parametrize(("start_path", "path"), [("plain", "plain"), ("fork", "fork"), ("parked", "parked")])
async def test_a_path_can_be_forced(world: World, start_path: str, path: str) -> None:
    async with node(world, start_path) as agent:
        answers = [(await started(world))[1] for _ in range(3)] + [(await snapshot(world, function_id="fu-2"))[1]]

        assert [answer.path for answer in answers] == [path] * 4
        assert [answer.cause for answer in answers] == [""] * 4
        assert bool(world.templates) == (path != "plain")
        await agent.end_all(0.0)
    assert not world.left()


# Unfit


async def test_an_unfit_template_is_told_and_not_tried_again(world: World) -> None:
    cause = "a thread runs: Thread-1, started by module pool\x1b[31m\n" + "x" * 10_000
    world.report = TemplateReport(is_ready=False, cause=cause)
    async with node(world):
        _, first = await snapshot(world)
        _, second = await snapshot(world)

        assert (first.path, second.path) == ("plain", "plain")
        assert first.cause == second.cause
        assert "started by module pool" in first.cause
        assert len(first.cause) <= 500
        assert first.cause.isprintable()
        assert len(world.templates) == 1
        await until(lambda: not specs(world, "tp-"))
        (unfit,) = await told(world)
        assert (unfit.state, unfit.cause, unfit.kind) == ("unfit", first.cause, "function")

        # Other code is another matter.
        world.report = TemplateReport(is_ready=True)
        _, third = await snapshot(world, version=2)
        assert third.path in ("fork", "parked")


async def test_what_is_the_machines_fault_is_tried_again_after_pauses_that_grow(world: World) -> None:
    world.report = None
    async with node(world) as agent:
        now = 1_000.0
        agent.templates._monotonic = lambda: now
        _, first = await snapshot(world)
        assert (first.path, first.cause) == ("plain", "it ended before it was ready")
        tried = []
        for _ in range(60):
            now += 1.0
            await snapshot(world)
            tried.append(len(world.templates))

        # At 0, then after 5, 10, 20 s, and not yet after 40 more.
        assert [tried.count(count) for count in (1, 2, 3, 4)] == [4, 10, 20, 26]
        world.report = TemplateReport(is_ready=True)
        now += 60.0
        assert (await snapshot(world))[1].path in ("fork", "parked")


async def test_a_template_that_cannot_be_started_costs_no_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(making, "write_template_record", full)
    async with node(world) as agent:
        _, answer = await snapshot(world)

        assert answer.path == "plain"
        assert "No space left" in answer.cause
        await agent.end_all(0.0)
    assert not world.left()


async def test_clones_that_end_at_once_again_and_again_speak_against_their_template(world: World) -> None:
    async def dies(process: FakeProcess) -> int:
        if ENV_TEMPLATE in process.env:
            return await world.template(process)
        return 9

    world.machine.programs["python3"] = dies
    async with node(world):
        paths = []
        for count in range(1, 6):
            paths.append((await snapshot(world))[1].path)
            await until(functools.partial(_has_exits, world, count))

        assert [path == "plain" for path in paths] == [False, False, False, True, True]
        assert [exited.exit_code for exited in world.server.exits] == [9] * 5
        (unfit,) = [one for one in await told(world) if one.state == "unfit"]
        assert "ended at once" in unfit.cause


async def test_clones_that_are_ended_or_have_got_going_do_not(world: World) -> None:
    async with node(world):
        for _ in range(4):
            container_id, answer = await snapshot(world)
            assert answer.path != "plain"
            await world.end(container_id)


async def test_a_crash_soon_after_its_guest_has_spoken_counts_too(world: World) -> None:
    async with node(world) as agent:
        for _ in range(3):
            container_id, answer = await snapshot(world)
            assert answer.path != "plain"
            known = agent.containers._known[container_id]
            await until(functools.partial(getattr, known.outfit, "has_guest"))
            await FakeRuntime(world.machine).kill(known.runtime_id, signal.SIGSEGV)
            await known.removed.wait()

        assert (await snapshot(world))[1].path == "plain"


# One template per function


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"TOKEN": "new"}},
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
        assert template_of(world) is not old
        assert old.state == "dropped"
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


# What else there is of a clone


async def test_a_command_runs_in_a_clone_with_what_the_clone_began_with(world: World) -> None:
    async def show(process: FakeProcess) -> int:
        await process.write(f"{process.env.get('MINE')} {process.env.get(ENV_TOKEN)}".encode())
        return 0

    world.machine.programs["show"] = show
    async with node(world):
        container_id, answer = await snapshot(world, env={"MINE": "1"})
        assert answer.path == "fork"

        stream = world.server.peer.stream("NodeExec", ContainerExec(container_id, ("show",)))
        items = [item async for item in stream.items(TerminalOutput)]

        (spec,) = specs(world, "ce-")
        assert b"".join(body for _, body in items).decode() == f"1 {spec.env[ENV_TOKEN]}"


async def test_a_clone_over_its_disk_limit_is_ended(world: World) -> None:
    async with node(world):
        container_id, _ = await snapshot(world, resources=Resources(disk_mib=1))
        (spec,) = specs(world, "ce-")
        folder = Path(spec.state_dir) / "rw"
        folder.mkdir(exist_ok=True)

        (folder / "file").write_bytes(bytes(2 * 2**20))
        await until(lambda: world.server.exits)

        assert world.server.exits[0].container_id == container_id
        assert "its limit is 1 MiB" in world.server.exits[0].over_disk


async def test_lines_of_a_template_are_its_functions_under_its_own_id(world: World) -> None:
    async with node(world):
        container_id, _ = await snapshot(world)
        await until(lambda: len(world.server.lines) >= 2)

        lines = {entry.container_id: (entry.text, entry.function_id) for entry in world.server.lines}
        assert lines[container_id] == ("hello from the guest", "fu-00000001")
        assert lines[template_of(world).template_id] == ("hello from the template", "fu-00000001")


# The next agent


async def test_the_next_agent_adopts_templates_and_clones_and_makes_the_rest_anew(world: World) -> None:
    async with node(world):
        container_id, _ = await snapshot(world)
        await filled(world)
        made_ahead = set(world.machine.prepared)
        template_id = template_of(world).template_id

    async with node(world) as agent:
        assert [one.container_id for one in world.server.hellos[-1].containers] == [container_id]
        assert template_of(world).template_id == template_id
        assert template_of(world).is_ready
        assert template_of(world).clones == {agent.containers._known[container_id].runtime_id}
        await until(lambda: not made_ahead & set(world.machine.prepared))

        _, answer = await snapshot(world)

        assert answer.path == "fork"
        assert len(world.templates) == 1
        await filled(world)
        await agent.end_all(0.0)
        assert len(world.server.exits) == 2
    assert not world.left()


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

        async def never(container_id: str, env: object) -> Any:
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


async def _nothing(outfit: Outfit) -> None:
    pass


def _has_exits(world: World, count: int) -> bool:
    return len(world.server.exits) == count


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


async def test_a_template_without_a_record_is_removed(world: World) -> None:
    async with node(world):
        await snapshot(world)
        directory = template_of(world).outfit.directory
    (directory / "template.json").write_text("{")
    async with node(world) as agent:
        assert not specs(world, "tp-")
        assert not agent.templates._live
        await agent.end_all(0.0)
    assert not world.left()


async def test_a_hundred_templates_are_usable_200_ms_after_the_next_agent_looks(world: World) -> None:
    async with node(world, "fork", template_memory_mib=4_000):
        await asyncio.gather(*(started(world, function_id=f"fu-{number:08}") for number in range(100)))
        assert len(specs(world, "tp-")) == 100
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
    assert len([one for one in adopting._live.values() if one.is_ready]) == 100
    # A hundred answers one after the other would take 2 s.
    assert took_s < 0.6
    await adopting.close()
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
        await until(lambda: not agent.templates._there)
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

        assert sorted(agent.templates._key_of) == ["fu-00000001", "fu-00000002", "fu-00000003"]
        assert agent.templates.memory_bytes() <= 70 * 2**20
        await until(lambda: len(specs(world, "tp-")) == 3)


async def test_a_template_larger_than_all_may_be_is_not_made_again_and_again(world: World) -> None:
    async with node(world, template_memory_mib=10):
        answers = [(await snapshot(world))[1] for _ in range(3)]

        assert [answer.path for answer in answers] == ["plain"] * 3
        assert "20 MiB" in answers[0].cause
        assert len(world.templates) == 1


async def test_templates_make_room_for_what_a_container_reserves(world: World) -> None:
    async with node(world, memory_mib=1_000) as agent:
        await snapshot(world)
        await snapshot(world, function_id="fu-00000002", resources=Resources(memory_mib=500))
        assert len(agent.templates._live) == 2

        world.now += 1.0
        await snapshot(world, function_id="fu-00000003", resources=Resources(memory_mib=470))

        # Its own stays: it is what it starts from.
        assert sorted(agent.templates._key_of) == ["fu-00000003"]


async def test_memory_of_templates_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "UPKEEP_S", 0.02)
    async with node(world, report_period_s=0.02):
        await snapshot(world)
        await until(lambda: world.server.reports[-1].template_memory_mib >= 1)
        world.machine.memory_bytes[template_of(world).template_id] = 300 * 2**20
        await until(lambda: 300 <= world.server.reports[-1].template_memory_mib < 400)


async def test_a_template_that_nobody_uses_is_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "UPKEEP_S", 0.02)
    async with node(world, template_idle_s=100.0) as agent:
        container_id, _ = await snapshot(world)
        world.now += 99.0
        await asyncio.sleep(0.06)
        assert agent.templates._live
        world.now += 2.0
        await until(lambda: not agent.templates._live)
        await world.end(container_id)
        await until(lambda: not world.machine.containers and not world.machine.prepared)
    assert not world.left()


async def test_no_more_templates_than_a_bound_whatever_starts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TEMPLATES_MAX", 5)
    async with node(world, "fork", template_memory_mib=100_000) as agent:
        for number in range(12):
            world.now += 1.0
            container_id, _ = await started(world, function_id=f"fu-{number:08}")
            await world.end(container_id)
        assert len(agent.templates._live) == 5
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
        assert [again.state for again in await told(world)] == ["dropped"]
        assert agent.containers.is_running(container_id)
        await world.end(container_id)
        await until(lambda: not agent.templates._there)
        assert not await told(world)


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


async def test_a_template_keeps_no_image_that_nobody_needs(world: World) -> None:
    async with node(world) as agent:
        container_id, _ = await snapshot(world)
        await world.end(container_id)
        image_id = make_start().image_id
        await world.server.peer.request("NodeImageGc", NodeImageGc(0.0, needed={image_id: ("app",)}), NodeGc)
        assert agent.templates._live

        await world.server.peer.request("NodeImageGc", NodeImageGc(0.0), NodeGc)

        assert not agent.templates._there


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
        await asyncio.gather(*(world.end(container_id) for container_id, _ in answers))
        assert len(world.server.exits) == 200
        agent.templates.drop_ids([template_of(world).template_id])
        await until(lambda: not world.machine.prepared)
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 8)
        await agent.end_all(0.0)
    assert not world.left()
