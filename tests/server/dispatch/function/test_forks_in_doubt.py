"""An input under which a fork has ended goes on where no fork is to blame, and forks that would end too are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from squall.protocol import call as wire
from squall.protocol.function import FunctionSpec
from squall.protocol.node import PATH_FORK, PATH_PARKED, PATH_PLAIN, PATH_RESTORE
from squall.server.dispatch.fleet.container import Container
from squall.server.policy.crash import CRASHES_MAX
from tests.server.doubles import FakeGuest, Stage, double, staged

FORK = (PATH_FORK, "")


class Crashes:
    """What ends the containers that it is to end, under the input that they run."""

    def __init__(self, is_doomed: Callable[[FakeGuest, bytes], bool], signal: int = 11) -> None:
        self.is_doomed = is_doomed
        self.signal = signal
        self.under: list[bytes] = []

    async def run(self, guest: FakeGuest, value: bytes) -> bytes:
        await asyncio.sleep(0)
        if self.is_doomed(guest, value):
            self.under.append(value)
            guest.exit(None, self.signal)
        return await double(guest, value)


def is_fork(guest: FakeGuest, value: bytes) -> bool:
    return guest.path[0] != PATH_PLAIN


def containers(stage: Stage, spec: FunctionSpec) -> list[Container]:
    return list(stage.plane.apps.dispatchers[spec.function_id].containers.values())


async def are_idle(stage: Stage, spec: FunctionSpec, count: int) -> None:
    await stage.until(lambda: [one.state for one in containers(stage, spec)] == ["idle"] * count)
    await stage.pass_time(0.1)


@pytest.mark.parametrize("path", [PATH_FORK, PATH_PARKED, PATH_RESTORE])
@pytest.mark.parametrize("most", [4, None])
async def test_forks_that_wait_use_up_one_attempt_of_an_input(path: str, most: int | None) -> None:
    async with staged() as stage:
        stage.node.start_path = (path, "")
        crashes = Crashes(is_fork)
        stage.node.run = crashes.run
        spec = await stage.client.function(min_containers=4, max_containers=most)
        await are_idle(stage, spec, 4)
        forks = set(stage.node.guests)

        got = await stage.done(stage.client.call(spec.function_id, 3), 1)

        assert (got[0].status, crashes.under) == (wire.SUCCEEDED, [b"3"])
        assert [one.is_plain for one in stage.node.starts].count(True) == 1
        # Those that are there from before would end under the next inputs.
        await stage.pass_time(0.5)
        assert not forks & set(stage.node.guests)
        assert len(stage.node.guests) == 4


async def test_from_zero_the_second_container_is_no_fork() -> None:
    async with staged() as stage:
        stage.node.start_path = FORK
        crashes = Crashes(is_fork)
        stage.node.run = crashes.run
        spec = await stage.client.function()

        got = await stage.done(stage.client.call(spec.function_id, 3), 1)

        assert (got[0].status, crashes.under) == (wire.SUCCEEDED, [b"3"])
        assert [one.is_plain for one in stage.node.starts] == [False, True]


@pytest.mark.parametrize("count", [1, 7])
async def test_inputs_that_share_a_fork_lose_it_once(count: int) -> None:
    async with staged() as stage:
        stage.node.start_path = FORK
        crashes = Crashes(lambda guest, value: is_fork(guest, value) and len(guest.running) == count)
        stage.node.run = crashes.run
        spec = await stage.client.function(max_inputs=10, max_containers=1)

        got = await stage.done(stage.client.call(spec.function_id, *range(count)), count)

        assert {one.status for one in got.values()} == {wire.SUCCEEDED}
        assert len(crashes.under) == 1


async def test_a_fork_that_has_served_is_good_enough() -> None:
    async with staged() as stage:
        stage.node.start_path = FORK
        spec = await stage.client.function(min_containers=2)
        await are_idle(stage, spec, 2)
        await stage.done(stage.client.call(spec.function_id, 1), 1)
        (served,) = [one.container_id for one in containers(stage, spec) if one.succeeded_inputs]
        crashes = Crashes(lambda guest, value: guest.container_id != served)
        stage.node.run = crashes.run

        got = await stage.done(stage.client.call(spec.function_id, 2, 3), 2)

        assert {one.status for one in got.values()} == {wire.SUCCEEDED}
        assert len(crashes.under) <= 1
        assert not any(one.is_plain for one in stage.node.starts)


@pytest.mark.parametrize("path", [PATH_FORK, PATH_PLAIN])
async def test_an_input_that_ends_every_container_ends_as_many_as_ever(path: str) -> None:
    async with staged() as stage:
        stage.node.start_path = (path, "")
        crashes = Crashes(lambda guest, value: True)
        stage.node.run = crashes.run
        spec = await stage.client.function(min_containers=4)
        await are_idle(stage, spec, 4)

        call = stage.client.call(spec.function_id, 3)
        await stage.pass_time(5.0)

        assert (call.outputs[0].failure.kind, len(crashes.under)) == ("crashed", CRASHES_MAX)
        assert [one.is_plain for one in stage.node.starts].count(True) == (path == PATH_FORK)


async def test_a_plain_start_that_fails_is_tried_again_and_does_not_leave_the_input_waiting() -> None:
    async with staged() as stage:
        stage.node.start_path = FORK
        crashes = Crashes(is_fork)
        stage.node.run = crashes.run
        spec = await stage.client.function(min_containers=4)
        await are_idle(stage, spec, 4)
        stage.node.crash_at_start = 1
        call = stage.client.call(spec.function_id, 3)
        await stage.until(lambda: any(one.is_plain for one in stage.node.starts))
        await stage.pass_time(0.1)
        tried = [one.is_plain for one in stage.node.starts].count(True)
        assert (tried, dict(call.outputs)) == (1, {})

        stage.node.crash_at_start = None
        got = await stage.done(call, 1)

        assert (got[0].status, len(crashes.under)) == (wire.SUCCEEDED, 1)


async def test_what_was_asked_for_as_plain_goes_with_the_input_that_needed_it() -> None:
    async with staged(cpu_milli=2_000) as stage:
        stage.node.start_path = FORK
        gate = asyncio.Event()

        async def run(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return await double(guest, value)

        stage.node.run = run
        spec = await stage.client.function(cpu_milli=1_000)
        doomed = stage.client.call(spec.function_id, 3)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        others = await stage.client.function(cpu_milli=1_000)
        held = stage.client.call(others.function_id, 1, 2)
        await stage.until(lambda: len(containers(stage, others)) == 2)

        stage.node.started[0].exit(None, 11)
        await stage.until(lambda: [(one.state, one.is_plain) for one in containers(stage, spec)] == [("pending", True)])
        await stage.pass_time(1.0)
        assert containers(stage, spec), "somebody needs it"
        stage.client.close_call(doomed)
        await stage.until(lambda: not containers(stage, spec))

        gate.set()
        await stage.done(held, 2)


async def test_no_fork_goes_for_one_that_may_not_be_asked_for_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        stage.node.start_path = FORK
        crashes = Crashes(is_fork)
        stage.node.run = crashes.run
        spec = await stage.client.function(min_containers=4)
        await are_idle(stage, spec, 4)
        monkeypatch.setattr(stage.plane.fleet, "room", lambda dispatcher: 0)

        call = stage.client.call(spec.function_id, 3)
        await stage.until(lambda: crashes.under)
        await stage.pass_time(2.0)
        assert len(containers(stage, spec)) == 3
        monkeypatch.undo()

        assert (await stage.done(call, 1))[0].value == b"6"
