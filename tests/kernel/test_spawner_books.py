"""Nothing is left in a spawner of what it has made: whatever failed on the way, and whoever was killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from squall.runtime.cgroup import detect_cgroups
from squall.runtime.client import SpawnerRuntime
from squall.runtime.errors import RuntimeFailure, TemplateUnfit
from squall.runtime.network.owner import SlotOwner
from squall.runtime.spec import GVISOR, Bind
from tests.kernel.containers import ENV, FIRST_ID, TIMEOUT_S, Running, until
from tests.kernel.executors import NEEDS_RUNSC
from tests.kernel.forge import RANGE, Forge
from tests.kernel.machine import MakePool, nft, run, settle
from tests.kernel.spawner_books import SpawnerBooks
from tests.kernel.test_gvisor_snapshots import ready_template as ready_template_of_sandboxes
from tests.kernel.test_gvisor_snapshots import restored
from tests.kernel.test_gvisor_snapshots import start_template as start_template_of_sandboxes

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]

DESCRIPTORS_MAX = 60
"""More than anything that is done here takes."""


@pytest.fixture
async def books(forge: Forge, data_dir: Path) -> SpawnerBooks:
    runtime = forge.runtime
    assert isinstance(runtime, SpawnerRuntime)
    return SpawnerBooks(runtime.spawner_pid, data_dir)


async def made_and_gone(forge: Forge, make: Callable[[], Awaitable[str]]) -> None:
    """Make something, and remove it."""
    async with asyncio.timeout(TIMEOUT_S):
        await forge.runtime.remove(await make())


async def remove_prepared(forge: Forge) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        for status in await forge.runtime.list():
            if status.is_prepared:
                await forge.runtime.remove(status.container_id)


async def start_plainly(forge: Forge) -> str:
    spec = forge.containers.spec("true", id_range=RANGE)
    started = await forge.runtime.start(spec)
    Running(spec.container_id, started).close()
    return spec.container_id


async def start_template(forge: Forge) -> str:
    spec = forge.containers.spec("true", id_range=RANGE, is_template=True)
    started = await forge.runtime.start(spec)
    Running(spec.container_id, started).close()
    return spec.container_id


async def start_clone(forge: Forge, template: Running) -> str:
    spec = forge.spec(template, "import time; time.sleep(60)")
    started = await forge.runtime.start(spec)
    Running(spec.container_id, started).close()
    return spec.container_id


async def start_in_cell(forge: Forge, template: Running) -> str:
    spec = forge.spec(template)
    await forge.runtime.prepare(spec, is_parked=False)
    started = await forge.runtime.begin(spec.container_id, ENV)
    Running(spec.container_id, started).close()
    return spec.container_id


async def start_sandbox(forge: Forge) -> str:
    spec = forge.containers.spec("true", id_range=RANGE, isolation=GVISOR)
    started = await forge.runtime.start(spec)
    Running(spec.container_id, started).close()
    return spec.container_id


async def start_saved(forge: Forge) -> str:
    template = await start_template_of_sandboxes(forge.containers)
    try:
        report = await forge.runtime.template_report(template.container_id)
    except RuntimeFailure:
        await forge.runtime.remove(template.container_id)
        raise
    if not report.is_ready:
        await forge.runtime.remove(template.container_id)
        raise RuntimeFailure(report.cause)
    return template.container_id


async def start_restored(forge: Forge, template: Running) -> str:
    spec = restored(forge.containers, template, "one", isolation=GVISOR)
    started = await forge.runtime.start(spec)
    Running(spec.container_id, started).close()
    return spec.container_id


async def keeps_nothing(forge: Forge, books: SpawnerBooks, make: Callable[[], Awaitable[str]]) -> None:
    """With each number of descriptors that is too few something fails, and nothing is left of it."""
    await made_and_gone(forge, make)
    before = books.read()

    failures: list[str] = []
    for count in range(DESCRIPTORS_MAX):
        with books.descriptors_left(count):
            try:
                await made_and_gone(forge, make)
            except RuntimeFailure as failure:
                failures.append(failure.message)
                await remove_prepared(forge)
        await books.are(before)
        if len(failures) <= count:
            break

    assert 5 < len(failures) < DESCRIPTORS_MAX, failures[-1]
    await made_and_gone(forge, make)


@pytest.mark.parametrize("how", ["plain", "template", "clone", "cell"])
async def test_spawner_without_descriptors_answers_and_keeps_nothing(
    forge: Forge, books: SpawnerBooks, how: str
) -> None:
    template = await forge.ready()
    ways: dict[str, Callable[[], Awaitable[str]]] = {
        "plain": lambda: start_plainly(forge),
        "template": lambda: start_template(forge),
        "clone": lambda: start_clone(forge, template),
        "cell": lambda: start_in_cell(forge, template),
    }
    await keeps_nothing(forge, books, ways[how])


@NEEDS_RUNSC
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["sandbox", "saved", "restored"])
async def test_spawner_without_descriptors_keeps_nothing_of_sandboxes(
    forge: Forge, books: SpawnerBooks, how: str
) -> None:
    template = await ready_template_of_sandboxes(forge.containers) if how == "restored" else None
    ways: dict[str, Callable[[], Awaitable[str]]] = {
        "sandbox": lambda: start_sandbox(forge),
        "saved": lambda: start_saved(forge),
        "restored": lambda: start_restored(forge, template),  # type: ignore[arg-type]
    }
    await keeps_nothing(forge, books, ways[how])


async def test_spawner_without_descriptors_runs_no_commands_and_keeps_nothing(
    forge: Forge, books: SpawnerBooks
) -> None:
    running = await forge.containers.start("sleep", "60")
    assert (await forge.containers.exec(running, "true")).status.code == 0
    before = books.read()

    failed = 0
    for count in range(DESCRIPTORS_MAX):
        with books.descriptors_left(count):
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    assert (await forge.containers.exec(running, "true")).status.code == 0
            except RuntimeFailure:
                failed += 1
            else:
                break
        await books.are(before)

    assert 5 < failed < DESCRIPTORS_MAX - 1
    await books.are(before)


async def test_spawner_that_cannot_take_a_connection_takes_it_later(books: SpawnerBooks, data_dir: Path) -> None:
    log = data_dir / "spawner/spawner.log"
    before = books.read()

    with books.descriptors_left(0):
        opening = asyncio.ensure_future(SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name))
        await until(lambda: "cannot take a connection" in log.read_text())
    (agent,) = await asyncio.gather(opening, return_exceptions=True)

    assert isinstance(agent, SpawnerRuntime), agent
    assert agent.spawner_pid == books.pid
    await agent.close()
    await books.are(before)


async def test_spawner_keeps_nothing_in_memory_of_starts_that_fail(forge: Forge, books: SpawnerBooks) -> None:
    template = await forge.ready("--skip", "begin")

    async def fail(count: int) -> int:
        for _ in range(count):
            with pytest.raises(TemplateUnfit):
                await forge.runtime.start(forge.spec(template, env={"LARGE": "x" * 900_000}))
        return books.rss_bytes()

    before = await fail(5)

    assert await fail(30) - before < 15 * 900_000


@pytest.mark.parametrize("is_clone", [False, True])
async def test_end_is_told_by_a_spawner_without_descriptors(forge: Forge, books: SpawnerBooks, is_clone: bool) -> None:
    template = await forge.ready()
    await made_and_gone(forge, lambda: start_clone(forge, template))
    before = books.read()
    if is_clone:
        running = await forge.clone(template, "import time; time.sleep(60)")
    else:
        running = await forge.containers.start("sleep", "60", id_range=RANGE)

    with books.descriptors_left(0):
        os.kill(running.pid, signal.SIGKILL)
        assert (await forge.containers.exit(running)).signal == signal.SIGKILL

    await forge.runtime.remove(running.container_id)
    await books.are(before)


async def test_template_whose_first_process_fails_keeps_no_descriptor(forge: Forge, books: SpawnerBooks) -> None:
    await made_and_gone(forge, lambda: start_plainly(forge))
    before = books.read()

    for _ in range(3):
        with pytest.raises(RuntimeFailure):
            await forge.template(binds=[Bind("/no/such/place", "/mnt")])

    await books.are(before)


async def test_cell_whose_maker_is_killed_before_its_last_word_is_gone(
    forge: Forge, books: SpawnerBooks, data_dir: Path
) -> None:
    template = await forge.ready()
    await made_and_gone(forge, lambda: start_clone(forge, template))
    before, spec = books.read(), forge.spec(template)
    name = f"squall/{data_dir.name}/{spec.container_id}"
    tree = detect_cgroups()
    group = tree.open(f"squall/{data_dir.name}")
    assert group is not None
    # With all that is below it, and what is made there: the first process of a cell stops when it enters.
    group.freeze()
    making = asyncio.ensure_future(forge.runtime.prepare(spec, is_parked=True))

    # Its first process is in, and may go on; what makes the cell waits for it.
    await until(lambda: (cell := tree.open(name)) is not None and len(cell.pids()) == 1)
    (maker,) = set(books.read()["children"]) - set(before["children"])
    os.kill(int(maker), signal.SIGKILL)
    await asyncio.sleep(0.1)
    group.thaw()

    with pytest.raises(RuntimeFailure, match="killed while it was set up") as failed:
        async with asyncio.timeout(TIMEOUT_S):
            await making
    assert not isinstance(failed.value, TemplateUnfit), "the machine has killed it, and no fault of the template's"
    await books.are(before)
    assert (await forge.run(template, "print(1)")).stdout == "1\n"


async def test_frozen_clone_and_template_can_be_removed(forge: Forge, books: SpawnerBooks) -> None:
    before = books.read()
    template = await forge.ready()
    clone = await forge.clone(template, "import time; time.sleep(60)")
    for frozen in (clone, template):
        await forge.runtime.freeze(frozen.container_id)

        async with asyncio.timeout(TIMEOUT_S):
            await forge.runtime.remove(frozen.container_id)

    await books.are(before | {"descriptors": books.descriptors()})


async def test_network_namespaces_are_made_of_any_range(forge: Forge) -> None:
    for number in range(3):
        made = await forge.runtime.make_network_namespaces(RANGE.__class__(FIRST_ID + 65_536 * (50 + number)), 7, 2)
        assert len(made) == 2
        for descriptor in made:
            os.close(descriptor)


def interfaces() -> list[str]:
    return [line.split()[0] for line in run("ip", "-br", "link").splitlines()]


@pytest.mark.timeout(300)
async def test_hundred_that_are_prepared_and_ended_leave_nothing(
    forge: Forge, books: SpawnerBooks, make_pool: MakePool, data_dir: Path
) -> None:
    template = await forge.ready()
    await made_and_gone(forge, lambda: start_clone(forge, template))
    owner = SlotOwner(RANGE, 0)
    async with make_pool(make_namespaces=forge.runtime.make_network_namespaces) as pool:
        await pool.release(await pool.acquire("ce-0", owner=owner))
        await settle(lambda: pool.free_count == 1)
        before, links, rules = books.read(), interfaces(), nft("list", "ruleset")
        ours = len(os.listdir("/proc/self/fd"))

        for number in range(100):
            slot = await pool.acquire(f"ce-{number}", owner=owner)
            spec = forge.spec(template, container_id=f"ce-{number}", network=slot)
            await forge.runtime.prepare(spec, is_parked=number % 3 > 0)
            if number % 3 == 2:
                Running(spec.container_id, await forge.runtime.begin(spec.container_id, ENV)).close()
            else:
                for pid in detect_cgroups().open(f"squall/{data_dir.name}/{spec.container_id}").pids():  # type: ignore[union-attr]
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(TIMEOUT_S):
                await forge.runtime.remove(spec.container_id)
            await pool.release(slot)

        await books.are(before)
        await settle(lambda: interfaces() == links)
        assert nft("list", "ruleset") == rules
        assert pool.free_of(owner) == 1
        assert len(os.listdir("/proc/self/fd")) == ours
        await pool.sweep([])


async def test_what_agents_prepare_that_are_killed_meanwhile_is_found_and_goes(
    forge: Forge, books: SpawnerBooks, data_dir: Path
) -> None:
    template = await forge.ready()
    await made_and_gone(forge, lambda: start_clone(forge, template))
    before = books.read()

    for number in range(20):
        agent = await SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name, idle_s=5)
        spec = forge.spec(template)
        asked = asyncio.ensure_future(agent.prepare(spec, is_parked=number % 2 > 0))
        await asyncio.sleep(number / 1_000)
        await agent.close()
        await asyncio.wait([asked])
        asked.cancelled() or asked.exception()
        async with asyncio.timeout(TIMEOUT_S):
            await forge.runtime.remove(spec.container_id)

    await books.are(before)
    assert (await forge.run(template, "print(1)")).stdout == "1\n"
