"""By which paths containers come to be, and what happens when a path fails."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent import starts
from squall.agent.container import Container
from squall.agent.launch import THREAD_COUNTS
from squall.agent.template import faults, making, pools, templates
from squall.agent.template.verdicts import PAUSE_S
from squall.protocol.container import ContainerExec, TerminalOutput
from squall.protocol.function import GVISOR, NAMESPACES, Resources
from squall.protocol.guest import ENV_CONTAINER_ID, ENV_TEMPLATE, ENV_TOKEN
from squall.runtime.contract import Started, TemplateReport
from squall.runtime.errors import JoinFailure, RuntimeFailure, SlotUnfit, TemplateUnfit
from squall.runtime.fake import FakeProcess, FakeRuntime
from squall.runtime.spec import ContainerSpec
from tests.agent.nodes import filled, node, snapshot, specs, started, template_of, told
from tests.agent.parts import until
from tests.agent.template.parts import reserve_of
from tests.agent.world import World, make_start

pytestmark = [pytest.mark.long, pytest.mark.timeout(60), pytest.mark.usefixtures("impatient")]


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
        assert spec.id_range == template.id_range
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
        # It is for functions that ask for any number of processors.
        counts = {*THREAD_COUNTS} - {"OMP_NUM_THREADS"}
        assert differ == {ENV_CONTAINER_ID, ENV_TOKEN, ENV_TEMPLATE, "SQUALL_FUNCTION_ID", *counts}
        assert template.env[ENV_TEMPLATE] == "guest"
        assert template.is_template
        assert not plain.is_template
        for same in ("argv", "layers", "cwd", "user"):
            assert getattr(plain, same) == getattr(template, same), same


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
    monkeypatch.setattr(starts, "SHORT_S", 0.05)
    monkeypatch.setattr(templates, "SHORT_S", 0.05)
    world.may_report.clear()
    async with node(world):
        _, answer = await snapshot(world)
        assert answer.path == "plain"
        assert "not ready within 0.05 s" in answer.cause

        world.may_report.set()
        await until(lambda: template_of(world).is_ready)
        _, later = await snapshot(world)
        assert later.path in ("fork", "parked")


async def test_a_function_that_took_long_to_load_is_not_waited_for_the_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "SHORT_S", 1.0)
    monkeypatch.setattr(templates, "SHORT_S", 1.0)
    world.may_report.clear()
    async with node(world):
        _, first = await snapshot(world)
        began = time.monotonic()
        _, second = await snapshot(world)
        _, edited = await snapshot(world, version=2)
        took_s = time.monotonic() - began

        assert "not ready within 1 s" in first.cause
        for answer in (second, edited):
            assert answer.path == "plain"
            assert "is being made, and it took 1 s or more to load the last time" in answer.cause
        assert took_s < 1.0
        world.may_report.set()
        # Of the image, too: the function's containers are forked from that meanwhile.
        await until(lambda: all(one.is_ready for one in world.agent.templates._roster.live.values()))
        assert (await snapshot(world, version=2))[1].cause == ""


async def test_a_template_that_fails_at_once_says_nothing_of_how_long_its_function_loads(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "SHORT_S", 1.0)
    async with node(world) as agent:
        agent.templates._loads.note("fu-00000001", 300.0)
        world.report = None
        starting = asyncio.ensure_future(snapshot(world))
        await until(lambda: [one for one in agent.templates._verdicts if one.kind == "function"])
        assert (await starting)[1].path == "plain"

        world.may_report.clear()
        _, edited = await snapshot(world, version=2)
        assert "it took 300 s or more to load the last time" in edited.cause


async def test_all_short_paths_together_have_one_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(FakeRuntime):
        async def prepare(self, spec: ContainerSpec, *, is_parked: bool) -> None:
            await asyncio.sleep(5.0)

    async with node(world) as agent:
        await snapshot(world)
        await filled(world)
        with agent.templates._pools.starting():
            monkeypatch.setattr(starts, "SHORT_S", 0.5)
            monkeypatch.setattr(FakeRuntime, "prepare", Slow.prepare)
            reserve_of(template_of(world)).empty()
            began = time.monotonic()
            _, answer = await snapshot(world)

        assert answer.path == "plain"
        assert "could not be forked: it was not done in time" in answer.cause
        assert time.monotonic() - began < 3.0


async def test_a_start_that_is_too_late_leaves_what_is_ready_to_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(world) as agent:
        await snapshot(world)
        await filled(world)
        with agent.templates._pools.starting():
            reserve = reserve_of(template_of(world))
            ready = [*reserve.parked, *reserve.cells]
            monkeypatch.setattr(starts, "SHORT_S", 0.0)
            _, answer = await snapshot(world)

            assert answer.path == "plain"
            assert answer.cause == "it could not be forked: it was not done in time"
            assert not [name for name in answer.phase_ms if name.startswith("failed_")]
            assert [*reserve.parked, *reserve.cells] == ready


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
            (found,) = await asyncio.gather(snapshot(world), return_exceptions=True)
            assert isinstance(found, tuple), found
            _, second = found
            world.machine.begin_failures += [failure, failure, failure]
            world.machine.prepare_failures += [failure]
            template_of(world).unfit_fork_count = -10
            container_id, third = await snapshot(world)

        assert second.path == "fork"
        assert "failed_parked" in second.phase_ms
        assert (second.cause, second.has_snapshot) == (f"the path 'parked' was attempted before: {failure}", True)
        # Whatever else is wrong, the plain path is there.
        assert third.path == "plain"
        assert str(failure) in third.cause
        assert agent.containers.is_running(container_id)
        await agent.end_all(0.0)
    assert not world.left()
    assert not world.machine.prepared


@pytest.mark.parametrize(("failure", "is_spoiled", "are_all"), [
    (JoinFailure("its child did not join"), True, False), (SlotUnfit("it is another one's"), True, True),
    (TemplateUnfit("it has ended"), False, False), (RuntimeFailure("no room for a cgroup"), False, False),
    (TimeoutError("it says nothing"), True, False),
])  # fmt: skip
async def test_a_network_that_a_fork_cannot_enter_is_given_to_nobody(
    world: World, failure: Exception, is_spoiled: bool, are_all: bool
) -> None:
    async with node(world) as agent:
        await snapshot(world)
        await filled(world)
        template, slots = template_of(world), world.slots
        with agent.templates._pools.starting():
            (cell, *_) = template.parked
            world.machine.begin_failures += [failure]
            assert (await snapshot(world))[1].path == "fork"
            await until(lambda: slots.slot_of(cell.cell_id) is None)

        assert slots.spoiled == [cell.cell_id] * is_spoiled
        assert slots.retired == [cell.provision.id_range] * are_all
        # Nor is it held against the template.
        assert template.unfit_fork_count == isinstance(failure, TemplateUnfit)


async def test_a_template_that_has_ended_is_noticed_when_it_is_to_be_forked(world: World) -> None:
    async with node(world) as agent:
        first, _ = await snapshot(world)
        await filled(world)
        with agent.templates._pools.starting():  # so that nothing is made meanwhile
            for template_id in [name for name in world.machine.containers if name.startswith("tp-")]:
                # Its end is told after that of its last clone, which goes on.
                await FakeRuntime(world.machine).kill(template_id, signal.SIGTERM)
            for cell in list(template_of(world).parked):
                reserve_of(template_of(world)).remove(cell.cell_id)
            _, answer = await snapshot(world)

        assert answer.path == "plain"
        await until(lambda: not world.agent.templates._roster.live)
        assert world.agent.containers.is_running(first)
        (unfit,) = [one for one in await told(world) if one.state == "unfit"]
        assert "ended" in unfit.cause


@pytest.mark.parametrize(
    ("memory_mib", "said"), [(0, "SQUALL_TEMPLATE_MEMORY_MIB=0"), (None, "SQUALL_START_PATH=plain")]
)
async def test_where_no_templates_are_made_who_wants_one_is_told(
    world: World, memory_mib: int | None, said: str
) -> None:
    async with node(world, "plain", template_memory_mib=memory_mib):
        _, wanted = await snapshot(world)
        _, other = await started(world)

        assert (wanted.path, wanted.cause) == ("plain", f"its node makes no templates ({said})")
        assert (other.path, other.cause) == ("plain", "")


async def test_what_cannot_be_forked_is_started_plainly(world: World) -> None:
    async with node(world):
        _, other_kernel = await started(world, isolation=GVISOR)
        world.images._config = replace(world.images._config, entrypoint=("python3",))
        world.agent.containers._services.images._built.clear()
        _, entrypoint = await snapshot(world)

        assert [one.path for one in (other_kernel, entrypoint)] == ["plain"] * 2
        assert "its function has none" in other_kernel.cause
        assert "entrypoint" in entrypoint.cause
        assert not world.templates


async def test_what_has_secrets_is_forked_and_under_gvisor_started_plainly_with_the_cause(world: World) -> None:
    given = {"secrets": {"TOKEN": "planted"}, "secrets_mark": "st-1:1"}
    async with node(world):
        _, other_kernel = await snapshot(world, isolation=GVISOR, **given)
        assert not world.templates
        _, forked = await snapshot(world, function_id="fu-00000002", **given)

    assert (other_kernel.path, "it has secrets" in other_kernel.cause) == ("plain", True)
    assert forked.path in ("fork", "parked")
    assert "planted" not in other_kernel.cause + forked.cause


async def test_under_gvisor_containers_are_restored_and_nothing_is_made_ahead(world: World) -> None:
    async with node(world):
        answers = [await snapshot(world, isolation=GVISOR) for _ in range(3)]
        await asyncio.sleep(0.05)

        assert [answer.path for _, answer in answers] == ["restore"] * 3
        assert len(world.templates) == 1
        assert not template_of(world).cells
        assert not template_of(world).parked
        # No slot that something else can enter: the sandbox takes its address over.
        assert set(world.slots.owners.values()) == {None}
        assert {spec.isolation for spec in (*specs(world, "tp-"), *specs(world, "ce-"))} == {GVISOR}


async def test_what_cannot_be_restored_is_started_plainly_and_says_why(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = FakeRuntime.start

    async def refuse(runtime: FakeRuntime, spec: ContainerSpec) -> Started:
        if spec.template_id:
            raise TemplateUnfit("the file is damaged")
        return await start(runtime, spec)

    async with node(world):
        await snapshot(world, isolation=GVISOR)
        monkeypatch.setattr(FakeRuntime, "start", refuse)

        answers = [(await snapshot(world, isolation=GVISOR))[1] for _ in range(4)]

        assert [answer.path for answer in answers] == ["plain"] * 4
        assert answers[0].cause == "it could not be restored: the file is damaged"
        assert "one after the other" in answers[3].cause, "after three it is not tried any more"


@pytest.mark.parametrize("path", ["plain", "fork", "parked", "restore"])
async def test_a_path_can_be_forced(world: World, path: str) -> None:
    async with node(world, path) as agent:
        answers = [(await started(world))[1] for _ in range(3)] + [(await snapshot(world, function_id="fu-2"))[1]]

        assert [answer.path for answer in answers] == [path] * 4
        # Where there are none, whoever wants a snapshot is told.
        assert [bool(answer.cause) for answer in answers] == [False, False, False, path == "plain"]
        assert bool(world.templates) == (path != "plain")
        made = specs(world, "ct-") + specs(world, "ce-") + specs(world, "tp-")
        assert {one.isolation for one in made} == {GVISOR if path == "restore" else NAMESPACES}
        await agent.end_all(0.0)
    assert not world.left()


# Unfit


def of_functions(world: World) -> list[FakeProcess]:
    """Templates of functions that were made."""
    return [process for process in world.templates if process.env[ENV_TEMPLATE] == "function"]


async def test_no_clone_is_parked_where_none_would_be_taken(world: World) -> None:
    async with node(world, "fork") as agent:
        await snapshot(world)
        await until(lambda: template_of(world).cells)
        await until(lambda: not agent.templates._pools.wanted([template_of(world)]))

        assert not template_of(world).parked


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
        assert len(of_functions(world)) == 1
        await until(lambda: not specs(world, "tp-"))
        (unfit,) = [one for one in await told(world) if one.kind == "function"]
        assert (unfit.state, unfit.cause, unfit.kind) == ("unfit", first.cause, "function")

        # Other code is another matter.
        world.report = TemplateReport(is_ready=True)
        _, third = await snapshot(world, version=2)
        assert third.path in ("fork", "parked")


@pytest.mark.usefixtures("no_pools")
async def test_an_unfit_function_is_forked_from_its_image(world: World) -> None:
    world.report = TemplateReport(is_ready=False, cause="a thread runs")
    async with node(world):
        _, first = await snapshot(world)
        world.report = TemplateReport(is_ready=True)
        await until(lambda: any(one.is_ready for one in world.agent.templates._roster.live.values()))
        _, second = await snapshot(world)

        assert (first.path, first.cause) == ("plain", "a thread runs")
        assert (second.path, second.cause, second.has_snapshot) == ("fork", "a thread runs", False)

        # Code that can be forked is from then on, and the image's template has no function to be for.
        _, third = await snapshot(world, version=2)
        assert (third.path, third.cause, third.has_snapshot) == ("fork", "", True)
        assert specs(world, "tp-")[-1].env[ENV_TEMPLATE] == "function"


async def test_what_is_the_machines_fault_is_tried_again_after_pauses_that_grow(world: World) -> None:
    world.report = None
    async with node(world) as agent:
        now = 1_000.0
        agent.templates._monotonic = agent.templates._roster._monotonic = lambda: now
        _, first = await snapshot(world)
        assert (first.path, first.cause) == ("plain", "it ended before it was ready (exit code 1)")
        tried = []
        for _ in range(60):
            now += 1.0
            await snapshot(world)
            tried.append(len(of_functions(world)))

        # At 0, then after 5, 10, 20 s, and not yet after 40 more.
        assert [tried.count(count) for count in (1, 2, 3, 4)] == [4, 10, 20, 26]
        world.report = TemplateReport(is_ready=True)
        now += 60.0
        assert (await snapshot(world))[1].path in ("fork", "parked")


async def test_a_function_that_failed_to_load_once_is_forked_later(world: World) -> None:
    world.report = TemplateReport(is_ready=False, cause="its hook raised TimeoutError", has_failed=True)
    async with node(world) as agent:
        now = 1_000.0
        agent.templates._monotonic = agent.templates._roster._monotonic = lambda: now
        _, first = await snapshot(world)
        world.report = TemplateReport(is_ready=True)
        _, soon = await snapshot(world)
        now += PAUSE_S
        _, later = await snapshot(world)

        assert (first.path, first.cause) == ("plain", "its hook raised TimeoutError")
        assert (soon.cause, soon.has_snapshot) == (first.cause, False)
        assert (later.cause, later.has_snapshot) == ("", True)


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

        assert [path == "plain" for path in paths] == [False, False, True, True, True]
        assert [exited.exit_code for exited in world.server.exits] == [9] * 5
        (unfit,) = [one for one in await told(world) if one.state == "unfit"]
        assert "ended before they had served" in unfit.cause


async def test_clones_that_are_ended_or_have_got_going_do_not(world: World) -> None:
    async with node(world):
        for _ in range(4):
            container_id, answer = await snapshot(world)
            assert answer.path != "plain"
            await world.end(container_id)


async def test_a_crash_soon_after_its_guest_has_spoken_counts_too(world: World) -> None:
    async with node(world) as agent:
        for _ in range(faults.EARLY_ENDS_MAX):
            container_id, answer = await snapshot(world)
            assert answer.path != "plain"
            known = agent.containers._known[container_id]
            await until(functools.partial(getattr, known.outfit, "has_guest"))
            await FakeRuntime(world.machine).kill(known.runtime_id, signal.SIGSEGV)
            await known.removed.wait()

        assert (await snapshot(world))[1].path == "plain"


async def test_what_ends_while_it_waits_is_replaced_and_no_fault_of_its_template(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "REST_S", 0.0)
    async with node(world):
        await snapshot(world)
        await filled(world)
        template = template_of(world)
        ended = [cell.cell_id for cell in (*template.parked, *template.cells)]
        assert len(ended) >= faults.EARLY_ENDS_MAX

        for cell_id in ended:
            world.machine.kill_prepared(cell_id)
        await until(lambda: not set(ended) & world.machine.prepared.keys())
        await filled(world)

        assert (await snapshot(world))[1].path == "parked"
        assert template_of(world) is template


async def test_what_does_not_stay_while_it_waits_is_made_ever_more_seldom(world: World) -> None:
    async with node(world) as agent:
        await snapshot(world)
        await filled(world)
        template = template_of(world)
        assert template.pools_rest_until == 0.0
        for count in range(3):
            before = time.monotonic()
            cell = template.parked[0]
            world.machine.kill_prepared(cell.cell_id)
            await until(lambda: template.pools_rest_until > 0.0)

            # It has had no more than its share, though it is the one used last.
            assert cell not in template.parked
            assert not agent.templates._pools.wanted([template])
            assert template.pools_rest_until - before >= pools.REST_S * 2**count
            template.pools_rest_until = 0.0
            agent.templates._pools.wake()
            await filled(world)

        container_id, _ = await snapshot(world)
        await until(lambda: agent.containers._known[container_id].outfit.has_guest)
        assert template.rest_count == 0


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


async def test_who_is_being_ended_for_its_disk_is_not_ended_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(world) as agent:
        container_id, _ = await snapshot(world)
        ended: list[str] = []

        async def kill(container: Container) -> None:
            ended.append(container.container_id)

        with monkeypatch.context() as patched:
            patched.setattr(agent.containers, "_kill", kill)
            # As at each look at a template that was ended, while its clone has not gone yet.
            for _ in range(3):
                agent.containers.over_disk(container_id, "it goes on writing")
            await asyncio.sleep(0)
        assert ended == [container_id]


@pytest.mark.usefixtures("no_pools")
async def test_a_template_over_its_functions_disk_limit_is_unfit_and_the_function_is_not(world: World) -> None:
    async with node(world):
        container_id, _ = await snapshot(world, resources=Resources(disk_mib=1))
        (spec,) = specs(world, "tp-")
        folder = Path(spec.state_dir) / "rw"
        folder.mkdir(exist_ok=True)

        (folder / "file").write_bytes(bytes(2 * 2**20))
        with contextlib.suppress(TimeoutError):
            await until(lambda: not world.agent.templates._roster.live)
        assert not world.agent.templates._roster.live
        (unfit,) = [one for one in await told(world) if one.state == "unfit"]
        assert "its limit is 1 MiB" in unfit.cause
        await asyncio.sleep(1.0)  # what it has written stays there for as long as its clone lives
        assert world.agent.containers.is_running(container_id)
        assert not world.server.exits


@pytest.mark.usefixtures("no_pools")
async def test_a_template_that_goes_on_writing_though_it_was_ended_is_ended_with_its_clones(world: World) -> None:
    async with node(world) as agent:
        container_id, _ = await snapshot(world, resources=Resources(disk_mib=1))
        (spec,) = specs(world, "tp-")
        agent.templates.drop_of("ap-00000001")
        (writer,) = [one for one in agent.templates.writers() if one.container_id == spec.container_id]
        assert writer.is_ended
        folder = Path(spec.state_dir) / "rw"
        folder.mkdir(exist_ok=True)
        await until(lambda: [one for one in agent._disk._watched.values() if one.left is not None])
        assert agent.containers.is_running(container_id)

        (folder / "file").write_bytes(bytes(2 * 2**20))
        with contextlib.suppress(TimeoutError):
            await until(lambda: world.server.exits)

        assert [one.container_id for one in world.server.exits] == [container_id]
        assert "the template that it is a fork of: it had " in world.server.exits[0].over_disk
        await until(lambda: not agent.templates._roster.there)
        await agent.end_all(0.0)
    assert not world.left()


async def test_a_clone_that_waits_and_is_over_its_disk_limit_goes(world: World) -> None:
    async with node(world):
        await snapshot(world, resources=Resources(disk_mib=1))
        await filled(world)
        cell = template_of(world).parked[0]
        folder = cell.outfit.directory / "rw"
        folder.mkdir(exist_ok=True)

        (folder / "file").write_bytes(bytes(2 * 2**20))
        await until(lambda: cell.cell_id not in world.machine.prepared)

        assert cell not in template_of(world).parked
        assert template_of(world).is_ready


async def test_lines_of_a_template_are_its_functions_under_its_own_id(world: World) -> None:
    async with node(world):
        container_id, _ = await snapshot(world)
        await until(lambda: len(world.server.lines) >= 2)

        lines = {entry.container_id: (entry.text, entry.function_id) for entry in world.server.lines}
        assert lines[container_id] == ("hello from the guest", "fu-00000001")
        assert lines[template_of(world).template_id] == ("hello from the template", "fu-00000001")


def _has_exits(world: World, count: int) -> bool:
    return len(world.server.exits) == count
