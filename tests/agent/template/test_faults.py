"""What speaks against a template, and what does not: of clones that end, and forks that fail."""

from __future__ import annotations

import asyncio
import functools
import signal
from typing import Any

import pytest

from squall.agent.template import faults
from squall.agent.template.faults import EARLY_ENDS_MAX, EARLY_S, SILENT_S, Ending
from squall.runtime.errors import RuntimeFailure, TemplateUnfit
from squall.runtime.fake import FakeRuntime
from tests.agent.nodes import node, snapshot, template_of
from tests.agent.parts import until
from tests.agent.world import World

pytestmark = [pytest.mark.long, pytest.mark.timeout(60), pytest.mark.usefixtures("impatient", "no_pools")]

FULL = RuntimeFailure("No space left on device")
SLOW = RuntimeFailure("not done after 10 s")
UNFIT = TemplateUnfit("its child did not join")


async def crash(world: World) -> None:
    container_id, answer = await snapshot(world)
    assert answer.path != "plain"
    known = world.agent.containers._known[container_id]
    await until(functools.partial(getattr, known.outfit, "has_guest"))
    await FakeRuntime(world.machine).kill(known.runtime_id, signal.SIGSEGV)
    await known.removed.wait()


async def spoken(world: World) -> str:
    container_id, answer = await snapshot(world)
    assert answer.path != "plain"
    known: Any = world.agent.containers._known[container_id]
    await until(functools.partial(getattr, known.outfit, "has_guest"))
    return container_id


async def test_failures_that_are_the_machines_do_not_speak_against_a_template(world: World) -> None:
    async with node(world):
        await spoken(world)
        for failure in (FULL, SLOW) * EARLY_ENDS_MAX:
            world.machine.begin_failures += [failure]
            assert (await snapshot(world))[1].path == "plain"

        await spoken(world)


async def test_forks_that_fail_between_others_that_succeed_are_not_counted_together(world: World) -> None:
    async with node(world):
        for _ in range(2 * EARLY_ENDS_MAX):
            await spoken(world)
            world.machine.begin_failures += [UNFIT]
            assert (await snapshot(world))[1].path == "plain"

        await spoken(world)


async def test_forks_that_fail_one_after_the_other_are(world: World) -> None:
    async with node(world):
        await spoken(world)
        for _ in range(EARLY_ENDS_MAX):
            world.machine.begin_failures += [UNFIT]
            assert (await snapshot(world))[1].path == "plain"

        assert not world.agent.templates._roster.live


async def test_a_clone_that_lives_on_speaks_for_its_template(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "EARLY_S", 0.2)
    async with node(world):
        for _ in range(2 * EARLY_ENDS_MAX):
            await crash(world)
            await spoken(world)
            assert template_of(world).crash_counts == {"fu-00000001": 1}
            await asyncio.sleep(0.3)
            assert not template_of(world).crash_counts


async def test_a_clone_that_is_ended_before_it_has_spoken_says_nothing_of_its_template(world: World) -> None:
    async with node(world) as agent:
        await crash(world)
        template = template_of(world)
        for has_guest, count in ((False, 1), (True, 0)):
            agent.templates.clone_ended(
                template.template_id, Ending("fu-00000001", has_guest, was_asked_for=True, lived_s=3.0, signal=9)
            )
            assert template.crash_counts.get("fu-00000001", 0) == count


@pytest.mark.parametrize(
    ("ending", "is_silent", "is_crash"),
    [
        (Ending("fu-1", False, False, 0.1, None), True, False),
        (Ending("fu-1", False, True, 0.1, 9), False, False),  # nobody waited for its first word
        (Ending("fu-1", False, True, SILENT_S, 9), True, False),  # which would not have come: it hangs
        (Ending("fu-1", True, False, 0.1, None), False, False),
        (Ending("fu-1", True, False, 0.1, signal.SIGSEGV), False, True),
        (Ending("fu-1", True, False, EARLY_S, signal.SIGSEGV), False, False),
        (Ending("fu-1", True, True, 0.1, signal.SIGABRT), False, False),
        (Ending("fu-1", True, False, 0.1, signal.SIGKILL), False, False),
    ],
)
def test_which_ends_speak_against_a_template(ending: Ending, is_silent: bool, is_crash: bool) -> None:
    assert (ending.is_silent, ending.is_crash) == (is_silent, is_crash)
