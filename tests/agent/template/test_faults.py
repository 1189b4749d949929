"""What speaks against a template, and what does not: of clones that end, and forks that fail."""

from __future__ import annotations

import asyncio
import functools
import signal
import time
from typing import Any

import pytest

from squall.agent.template.faults import EARLY_ENDS_MAX, SILENT_S, Ending
from squall.protocol import codec as wire
from squall.protocol.frames import Frame
from squall.runtime.errors import RuntimeFailure, TemplateUnfit
from squall.runtime.fake import FakeRuntime
from tests.agent.nodes import node, snapshot, template_of, told
from tests.agent.parts import CODEC, Inbox, until
from tests.agent.world import World

pytestmark = [pytest.mark.long, pytest.mark.timeout(60), pytest.mark.usefixtures("impatient", "no_pools")]

FULL = RuntimeFailure("No space left on device")
SLOW = RuntimeFailure("not done after 10 s")
UNFIT = TemplateUnfit("its child did not join")


async def crash(world: World) -> None:
    await end_by(world, await spoken(world), signal.SIGSEGV)


async def end_by(world: World, container_id: str, number: int) -> None:
    known = world.agent.containers._known[container_id]
    await FakeRuntime(world.machine).kill(known.runtime_id, number)
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
        (unfit,) = [one for one in await told(world) if one.state == "unfit"]
        assert unfit.cause.endswith("ended before they had served a call; the last: its child did not join")


async def test_forks_that_fail_beside_each_other_count_as_one(world: World) -> None:
    async with node(world) as agent:
        await spoken(world)
        template, began_at = template_of(world), time.monotonic()

        for _ in range(2 * EARLY_ENDS_MAX):
            agent.templates.failed(template, UNFIT, began_at)
        assert template.is_ready, "whoever frees memory kills them all"

        for _ in range(EARLY_ENDS_MAX - 1):
            agent.templates.failed(template, UNFIT, time.monotonic())
        assert template.state == "unfit"


async def test_a_clone_that_has_served_speaks_for_its_template_and_may_crash(world: World) -> None:
    async with node(world):
        for _ in range(2 * EARLY_ENDS_MAX):
            await crash(world)
            assert template_of(world).crash_counts == {"fu-00000001": 1}
            container_id = await spoken(world)
            await serve(world)
            await until(lambda: not template_of(world).crash_counts)
            await end_by(world, container_id, signal.SIGSEGV)


async def test_clones_that_nobody_calls_say_nothing_and_crash_at_their_first_call_as_late_as_it_comes(
    world: World,
) -> None:
    async with node(world):
        waiting = [await spoken(world) for _ in range(EARLY_ENDS_MAX)]
        template = template_of(world)
        for one in waiting:
            world.agent.containers._known[one].started_at -= 3_600.0
            await end_by(world, await spoken(world), signal.SIGTERM)
            assert template.is_ready
            await end_by(world, one, signal.SIGSEGV)

        assert template.state == "unfit"
        assert template.cause.endswith("the last: signal 11")
        assert (await snapshot(world))[1].path == "plain"


async def test_a_plain_start_that_serves_where_a_fork_has_crashed_is_the_verdict(world: World) -> None:
    async with node(world):
        await spoken(world)
        await plainly(world)
        await serve(world)
        await asyncio.sleep(0.05)
        assert template_of(world).is_ready, "no fork has crashed"

        await crash(world)
        await plainly(world)
        await asyncio.sleep(0.05)
        assert template_of(world).is_ready, "that may be its input"
        await serve(world)
        assert not world.agent.templates._roster.live

        (unfit,) = [one for one in await told(world) if one.state == "unfit"]
        assert "crashed before it had served a call" in unfit.cause
        assert unfit.cause in (await snapshot(world))[1].cause


async def plainly(world: World) -> None:
    """A container that was asked for because a fork had ended."""
    before = len(world.server.container_channels)
    _, answer = await snapshot(world, is_plain=True)
    assert (answer.path, "ended while it ran its first call" in answer.cause) == ("plain", True)
    await until(lambda: len(world.server.container_channels) > before)


async def serve(world: World) -> None:
    """Have the container that came last answer an input."""
    channel, inbox = world.server.container_channels[-1], Inbox()
    channel.start(inbox)
    channel.send(Frame(CODEC.encode(wire.EVENT, 0, "Inputs", None), b""))
    await until(lambda: any(b"Outputs" in frame.header for frame in inbox.frames))


async def test_a_clone_that_is_ended_before_it_has_served_says_nothing_of_its_template(world: World) -> None:
    async with node(world) as agent:
        await crash(world)
        template = template_of(world)
        for has_guest in (False, True):
            agent.templates.clone_ended(
                template.template_id, Ending("fu-00000001", has_guest, was_asked_for=True, lived_s=3.0, signal=9)
            )
            assert template.crash_counts == {"fu-00000001": 1}


@pytest.mark.parametrize(
    ("ending", "is_silent", "is_crash"),
    [
        (Ending("fu-1", False, False, 0.1, None), True, False),
        (Ending("fu-1", False, True, 0.1, 9), False, False),  # nobody waited for its first word
        (Ending("fu-1", False, True, SILENT_S, 9), True, False),  # which would not have come: it hangs
        (Ending("fu-1", True, False, 0.1, None), False, False),
        (Ending("fu-1", True, False, 0.1, signal.SIGSEGV), False, True),
        (Ending("fu-1", True, False, 3_600.0, signal.SIGSEGV), False, True),  # it has waited for its first call
        (Ending("fu-1", True, False, 0.1, signal.SIGSEGV, has_served=True), False, False),
        (Ending("fu-1", True, True, 0.1, signal.SIGABRT), False, False),
        (Ending("fu-1", True, False, 0.1, signal.SIGKILL), False, False),
    ],
)
def test_which_ends_speak_against_a_template(ending: Ending, is_silent: bool, is_crash: bool) -> None:
    assert (ending.is_silent, ending.is_crash) == (is_silent, is_crash)
