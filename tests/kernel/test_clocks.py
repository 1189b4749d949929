"""What time it is in a container that begins where a template has stopped: not what it was then."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from squall.runtime.criu.checksums import checksums
from squall.runtime.criu.launch import SAVED
from squall.runtime.criu.tool import find_tool
from squall.runtime.spec import GVISOR
from tests.kernel.containers import ENV, Containers, Running
from tests.kernel.executors import NEEDS_RUNSC
from tests.kernel.forge import Forge
from tests.kernel.test_gvisor_snapshots import ready_template, restored

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]

NEEDS_CRIU = pytest.mark.skipif(find_tool() is None, reason="missing: CRIU (make criu)")
TELL = """
import json, time
clocks = [time.time(), time.mktime(time.localtime()), time.monotonic(), time.perf_counter()]
print(json.dumps([*clocks, time.clock_gettime(time.CLOCK_BOOTTIME)]), flush=True)
"""
WALL, LOCAL, MONOTONIC, COUNTER, BOOT = range(5)
CLOCKS = "wall", "local", "monotonic", "performance counter", "boot"
SAVED_AT_S = 2**20
SLACK_S = 0.1
"""gVisor reckons the time from the processor's counter, and asks the machine once a second."""


def of_the_machine() -> list[float]:
    """As the program tells them."""
    wall = time.time()
    return [wall, float(int(wall)), time.monotonic(), time.perf_counter(), time.clock_gettime(time.CLOCK_BOOTTIME)]


async def told(running: Running) -> list[float]:
    """What a container's clocks say."""
    clocks: list[float] = json.loads((await running.stdout.read_until("\n")).splitlines()[0])
    return clocks


@asynccontextmanager
async def between() -> AsyncIterator[list[float]]:
    """What the block adds are clocks of a container that began in it; checks that they are the machine's of then."""
    before = of_the_machine()
    clocks: list[float] = []
    yield clocks
    after = of_the_machine()
    assert len(clocks) == len(CLOCKS)
    for name, first, said, last in zip(CLOCKS, before, clocks, after, strict=True):
        assert first <= said <= last, f"{name}: not {first} <= {said} <= {last}"


async def test_fork_has_the_clocks_of_the_machine(forge: Forge) -> None:
    template = await forge.ready("--before", TELL)

    for _ in range(2):
        async with between() as clocks:
            clocks += await told(await forge.clone(template, TELL))


async def test_parked_fork_has_the_clocks_of_when_it_is_begun(forge: Forge) -> None:
    template = await forge.ready("--before", TELL)
    spec = forge.spec(template)
    await forge.runtime.prepare(spec, is_parked=True)

    async with between() as clocks:
        started = await forge.runtime.begin(spec.container_id, {**ENV, "ACTION": TELL})
        running = Running(spec.container_id, started)
        clocks += await told(running)
    running.close()


@NEEDS_CRIU
async def test_fork_of_a_template_that_was_brought_back_has_the_time_of_the_machine_and_its_templates_other_clocks(
    forge: Forge, tmp_path: Path
) -> None:
    first = await forge.ready("--before", TELL)
    at_first = await told(first)
    await forge.runtime.save(first.container_id, str(tmp_path))
    await forge.runtime.remove(first.container_id)

    before = of_the_machine()
    template = await forge.ready(restore_from=str(tmp_path))
    clocks = await told(await forge.clone(template, TELL))
    after = of_the_machine()

    for number in (WALL, LOCAL):
        assert before[number] <= clocks[number] <= after[number]
    for number in (MONOTONIC, COUNTER, BOOT):
        assert at_first[number] <= clocks[number] < after[number], CLOCKS[number]


@NEEDS_CRIU
async def test_no_clock_goes_back_with_a_reboot(forge: Forge, tmp_path: Path) -> None:
    first = await forge.ready("--before", TELL)
    await forge.runtime.save(first.container_id, str(tmp_path))
    await forge.runtime.remove(first.container_id)
    # As if the machine had run for longer then than it has now.
    put_clocks(tmp_path)

    before = of_the_machine()
    template = await forge.ready(restore_from=str(tmp_path))
    clocks = await told(await forge.clone(template, TELL))
    after = of_the_machine()

    for number in (MONOTONIC, COUNTER, BOOT):
        assert SAVED_AT_S <= clocks[number] <= SAVED_AT_S + after[number] - before[number], CLOCKS[number]


def put_clocks(directory: Path) -> None:
    """Let a saved template say that the clocks that count from a machine's start were there when it was saved."""
    # In CRIU's image, by Protocol Buffers: 1: {1: 2**20 seconds, 2: 0 nanoseconds}, 2: the same.
    timespec = bytes([0x08, 0x80, 0x80, 0x40, 0x10, 0x00])
    said = bytes([0x0A, len(timespec), *timespec, 0x12, len(timespec), *timespec])
    image, whole = directory / "timens-0.img", directory / SAVED
    image.write_bytes(image.read_bytes()[:8] + len(said).to_bytes(4, "little") + said)
    saved = json.loads(whole.read_text())
    whole.write_text(json.dumps({**saved, "checksums": checksums(str(directory), "files")}))


@NEEDS_RUNSC
@pytest.mark.parametrize("isolation", [GVISOR])
async def test_container_restored_under_gvisor_has_the_time_of_the_machine_and_its_templates_other_clocks(
    containers: Containers,
) -> None:
    template = await ready_template(containers, BEFORE=TELL)
    at_first = await told(template)

    for name in ("one", "two"):
        spec = restored(containers, template, name)
        before = time.time()
        running = await containers.start_spec(replace(spec, env={**spec.env, "THEN": TELL}))
        lines = (await containers.finish(running)).stdout.splitlines()
        after = time.time()
        clocks = json.loads(lines[1])

        assert before - SLACK_S <= clocks[WALL] <= after + SLACK_S
        assert int(before - SLACK_S) <= clocks[LOCAL] <= after + SLACK_S
        # As if the template had gone on meanwhile, instead of lying in memory.
        passed_s = clocks[WALL] - at_first[WALL]
        for number in (MONOTONIC, COUNTER, BOOT):
            assert clocks[number] - at_first[number] == pytest.approx(passed_s, abs=SLACK_S), CLOCKS[number]
