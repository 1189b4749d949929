"""Somebody sets the clock while things run: what is kept by age is kept as long as was said, and no more is waited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from squall.protocol import call as wire
from squall.protocol.call import CallGet, CallOpen, CallSpawn, CallSpawned, InputBatch, OutputBatch
from squall.protocol.errors import PlatformError
from squall.protocol.flight import CallFlight, CallShow, ContainerFlight, ContainerShow
from squall.protocol.ids import new_id
from squall.server.dispatch import clock as clock_module
from squall.server.dispatch.app import variants
from squall.server.dispatch.clock import HELD_S, AgeClock, ManualClock
from squall.server.dispatch.durable.durable import EXPIRE_EVERY_S
from squall.server.dispatch.flight.keeper import MINUTES_EVERY_S, PRUNE_EVERY_S
from squall.server.model.config import ServerConfig
from tests.server.dispatch.app.test_variants import bind, make_model
from tests.server.doubles import Failed, FakeGuest, Stage, settle, staged

DAY_S = 86_400.0
JUMPS = pytest.mark.parametrize("jump_s", [-30 * DAY_S, -3_600.0, 3_600.0, 30 * DAY_S])


async def spawn(stage: Stage, function_id: str) -> str:
    call_id = new_id("fc")
    opened = CallOpen(call_id, function_id, wire.SPAWN)
    await stage.client.ask("CallSpawn", CallSpawn(opened, InputBatch(call_id, (0,), (1,))), CallSpawned, b"7")
    return call_id


async def is_kept(stage: Stage, call_id: str) -> bool:
    try:
        found = await stage.client.ask("CallGet", CallGet(call_id, 0, 0.0), OutputBatch)
    except PlatformError:
        return False
    return bool(found.statuses)


def passing(stage: Stage, seconds: float) -> Iterator[None]:
    """Time in large steps, with what is looked at now and then looked at."""
    while seconds > 0:
        stage.clock.advance(min(seconds, EXPIRE_EVERY_S))
        seconds -= EXPIRE_EVERY_S
        yield


@pytest.mark.parametrize("jump_s", [-7_200.0, 7_200.0])
async def test_results_are_kept_their_time_whatever_the_clock_says(jump_s: float) -> None:
    async with staged(ServerConfig(results_kept_s=1_800.0)) as stage:
        spec = await stage.client.function(scaledown_window_s=1e9)
        before = await spawn(stage, spec.function_id)
        await stage.pass_time(2.0)

        stage.clock.set_wall(jump_s)
        after = await spawn(stage, spec.function_id)
        for _ in passing(stage, 1_600.0):
            await settle()
        are_kept = [await is_kept(stage, before), await is_kept(stage, after)]
        # What was written by a clock that ran ahead is kept for as much longer.
        for _ in passing(stage, 1_200.0 + abs(jump_s)):
            await settle()

        assert are_kept == [True, True]
        assert [await is_kept(stage, before), await is_kept(stage, after)] == [False, False]


@JUMPS
async def test_what_became_of_calls_is_told_and_kept_over_a_jump(jump_s: float) -> None:
    async def fail_once(guest: FakeGuest, value: bytes) -> bytes:
        if value == b"1":
            raise Failed("user", "no")
        stage.clock.set_wall(jump_s)
        return value

    async with staged() as stage:
        spec = await stage.client.function(scaledown_window_s=1e9)
        stage.node.run = fail_once
        call = stage.client.call(spec.function_id, 1)
        await stage.done(call, 1)
        across = stage.client.call(spec.function_id, 2)
        await stage.done(across, 1)
        await stage.pass_time(2.0)
        stage.clock.advance(max(MINUTES_EVERY_S, PRUNE_EVERY_S) + 1)
        await settle()

        shown: CallFlight = await stage.client.ask("CallShow", CallShow(across.call_id), CallFlight)
        (attempt,) = shown.inputs[0].attempts
        assert 0 <= attempt.queued_ms <= (attempt.began_ms or 0) <= (attempt.finished_ms or 0) < 60_000
        assert 0 <= (shown.summary.duration_ms or 0) < 60_000
        record = ContainerShow(attempt.container_id)
        container: ContainerFlight = await stage.client.ask("ContainerShow", record, ContainerFlight)
        assert all(0 <= ms < 60_000 for ms in container.container.phase_ms.values()), container.container.phase_ms
        assert await stage.store.get_flight(call.call_id) is not None
        assert stage.store._minutes


async def test_variants_are_not_forgotten_because_the_clock_was_set() -> None:
    async with staged() as stage:
        spec = await make_model(stage)
        variant_id = await bind(stage.client, spec, 1)
        for _ in passing(stage, 1.5 * variants.NOTE_EVERY_S):
            await settle()

        stage.clock.set_wall(30 * DAY_S)
        for _ in passing(stage, 1.5 * variants.NOTE_EVERY_S):
            await settle()

        assert variant_id in stage.store._variants


def test_age_runs_with_time_and_never_ahead_of_it() -> None:
    clock = ManualClock(1_000.0)
    age = AgeClock(clock)
    read: list[Any] = [age.now()]

    for jump_s, passed_s in ((500.0, 0.0), (0.0, 10.0), (-500.0, 0.0), (-100.0, 0.0), (0.0, 10.0), (100.0, 0.0)):
        clock.set_wall(jump_s)
        clock.advance(passed_s)
        read.append(age.now())

    assert read == [1_000.0, 1_000.0, 1_010.0, 1_010.0, 910.0, 920.0, 1_020.0]


def lived(clock: ManualClock, age: AgeClock, seconds: float, every_s: float = 3_600.0) -> float:
    """So much time passes while the age is asked for now and then; how far it lags behind the clock in the end."""
    while seconds > 0:
        clock.advance(min(seconds, every_s))
        seconds -= every_s
        age.now()
    return clock.now() - age.now()


@pytest.mark.parametrize("jump_s", [3_600.0, 30 * DAY_S, 20_000 * DAY_S])
def test_a_clock_that_stays_set_forward_is_believed_in_the_end(jump_s: float) -> None:
    clock = ManualClock(0.0)
    age = AgeClock(clock)
    lived(clock, age, 60.0)

    clock.set_wall(jump_s)

    assert lived(clock, age, HELD_S - 3_600.0) == pytest.approx(jump_s)
    assert lived(clock, age, HELD_S + 3_600.0 + 60.0) == pytest.approx(0.0)


@pytest.mark.parametrize("after_h", range(0, 48, 7))
def test_a_clock_that_is_set_forward_and_back_within_a_day_makes_nothing_older(after_h: int) -> None:
    clock = ManualClock()
    age = AgeClock(clock)
    began = clock.now()
    lived(clock, age, after_h * 3_600.0)

    clock.set_wall(30 * DAY_S)
    lag_s = lived(clock, age, HELD_S - 2 * 3_600.0)
    clock.set_wall(-30 * DAY_S)
    lived(clock, age, 10 * DAY_S)

    assert lag_s == pytest.approx(30 * DAY_S)
    assert age.now() == pytest.approx(began + clock.monotonic())


def test_a_jump_that_nobody_saw_begin_is_not_believed_at_once() -> None:
    clock = ManualClock()
    age = AgeClock(clock)

    clock.advance(10 * DAY_S)
    clock.set_wall(30 * DAY_S)

    assert clock.now() - age.now() == pytest.approx(30 * DAY_S)
    assert lived(clock, age, HELD_S, every_s=HELD_S) == pytest.approx(0.0)


def test_a_machine_that_sleeps_each_night_lags_by_some_nights_only() -> None:
    clock = ManualClock()
    age = AgeClock(clock)

    for _ in range(30):
        lag_s = lived(clock, age, DAY_S / 3)
        clock.set_wall(DAY_S * 2 / 3)

    assert lag_s <= 7 * DAY_S * 2 / 3


async def test_results_expire_although_the_clock_was_set_right_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "HELD_S", 7_200.0)
    async with staged(ServerConfig(results_kept_s=1_800.0)) as stage:
        spec = await stage.client.function(scaledown_window_s=1e9)
        stage.clock.set_wall(20_000 * DAY_S)
        call_id = await spawn(stage, spec.function_id)
        await stage.pass_time(2.0)
        assert await is_kept(stage, call_id)

        for _ in passing(stage, 2 * 7_200.0 + 2 * EXPIRE_EVERY_S):
            await settle()

        assert not await is_kept(stage, call_id)
