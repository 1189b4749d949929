"""What waits to be begun: cells and parked clones, what they use, how they end, and what is left of them."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from pathlib import Path

import pytest

from squall.agent.template.cells import Cells
from squall.agent.template.pools import Pools
from squall.agent.template.reserve import PARKED_BYTES
from squall.runtime import syscalls as sc
from squall.runtime.cgroup import detect_cgroups
from squall.runtime.client import SpawnerRuntime
from squall.runtime.errors import ContainerMissing, SlotUnfit
from squall.runtime.spec import ContainerStatus, IdRange, NetworkSlot
from tests.agent.template.parts import make_cell, make_template, reserve_of
from tests.kernel.containers import ENV, FIRST_ID, until
from tests.kernel.forge import Forge

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]


async def status_of(forge: Forge, container_id: str) -> ContainerStatus | None:
    found = [status for status in await forge.runtime.list() if status.container_id == container_id]
    return found[0] if found else None


def pids_of(data_dir: Path, container_id: str) -> list[int]:
    group = detect_cgroups().open(f"squall/{data_dir.name}/{container_id}")
    return sorted(group.pids()) if group else []


async def test_memory_of_a_parked_clone_is_measured_and_counts(forge: Forge) -> None:
    takes = "os.register_at_fork(after_in_child=lambda: setattr(os, 'taken', b'x' * 2**26))"
    known, cell = make_template(), make_cell(is_parked=True)
    template = await forge.ready("--before", takes, container_id=known.template_id)
    await forge.runtime.prepare(forge.spec(template, container_id=cell.cell_id), is_parked=True)
    cell.memory_bytes = PARKED_BYTES
    reserve_of(known).put(cell)
    reserve_of(known).demand.add(0.0)
    pools = Pools(Cells.__new__(Cells), forge.runtime, lambda: 0.0, lambda template, error, began_at: None)

    await pools.upkeep([known])

    assert cell.memory_bytes > 2**26
    assert known.total_bytes > known.memory_bytes + 2**26
    assert (await forge.runtime.usage(cell.cell_id)).pids == 2


@pytest.mark.parametrize("is_parked", [False, True])
async def test_end_of_one_that_waits_is_told_and_it_is_there_until_it_is_removed(
    forge: Forge, data_dir: Path, is_parked: bool
) -> None:
    template = await forge.ready()
    spec = forge.spec(template)
    await forge.runtime.prepare(spec, is_parked=is_parked)

    os.kill(pids_of(data_dir, spec.container_id)[-1], signal.SIGKILL)
    await until(lambda: spec.container_id in forge.containers.exit_of)

    # An agent that was not there hears of it as well.
    async with await SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name, idle_s=5) as successor:
        assert [await anext(successor.exits())] == [(spec.container_id, forge.containers.exit_of[spec.container_id])]
    status = await status_of(forge, spec.container_id)
    assert status is not None
    assert status.is_prepared
    assert status.exit_status is not None
    with pytest.raises(ContainerMissing):
        await forge.runtime.begin(spec.container_id, ENV)
    with pytest.raises(ContainerMissing):
        await forge.runtime.usage(spec.container_id)
    if not is_parked:
        with pytest.raises(ContainerMissing):
            await forge.runtime.prepare(spec, is_parked=True)
    await forge.runtime.remove(spec.container_id)
    assert await status_of(forge, spec.container_id) is None
    assert (await forge.run(template, "print(1)")).stdout == "1\n"


async def test_one_that_was_killed_while_it_waited_is_missing_to_whoever_begins(forge: Forge, data_dir: Path) -> None:
    """Also where its end is not known yet: it says nothing of its template."""
    template, runtime = await forge.ready(), forge.runtime
    assert isinstance(runtime, SpawnerRuntime)
    for _ in range(5):
        spec = forge.spec(template)
        await forge.runtime.prepare(spec, is_parked=True)
        clone = pids_of(data_dir, spec.container_id)[-1]
        os.kill(runtime.spawner_pid, signal.SIGSTOP)
        try:
            with os.fdopen(os.pidfd_open(clone)) as pidfd:
                os.kill(clone, signal.SIGKILL)
                select.select([pidfd], [], [])
            beginning = asyncio.ensure_future(runtime.begin(spec.container_id, ENV))
            await asyncio.sleep(0.05)
        finally:
            os.kill(runtime.spawner_pid, signal.SIGCONT)

        (found,) = await asyncio.gather(beginning, return_exceptions=True)
        assert isinstance(found, ContainerMissing), found
        await forge.runtime.remove(spec.container_id)


@pytest.mark.parametrize("behaviour", ["chatter", "deaf"])
async def test_one_that_waits_and_does_anything_else_is_ended(forge: Forge, behaviour: str) -> None:
    template = await forge.ready("--add", behaviour)
    spec = forge.spec(template)

    await forge.runtime.prepare(spec, is_parked=True)

    await until(lambda: spec.container_id in forge.containers.exit_of)
    with pytest.raises(ContainerMissing):
        await forge.runtime.begin(spec.container_id, ENV)
    await forge.runtime.remove(spec.container_id)


async def test_slot_that_is_another_ranges_is_named_as_what_is_wrong(forge: Forge, data_dir: Path) -> None:
    template = await forge.ready()
    pin = data_dir / "pin"
    pin.touch()
    (descriptor,) = await forge.runtime.make_network_namespaces(IdRange(FIRST_ID + 65_536 * 40), 0, 1)
    sc.mount(f"/proc/self/fd/{descriptor}", str(pin), None, sc.MS_BIND)
    try:
        slot = NetworkSlot("1", str(pin), "10.1.2.3/32", "10.1.2.1", "nameserver 10.1.2.1\n")
        with pytest.raises(SlotUnfit):
            await forge.runtime.prepare(forge.spec(template, network=slot), is_parked=True)
    finally:
        os.close(descriptor)
        sc.unmount(str(pin))

    assert [status.container_id for status in await forge.runtime.list()] == [template.container_id]
