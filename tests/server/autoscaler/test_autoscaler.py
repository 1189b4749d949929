"""Loads and what follows from them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.protocol import limits
from squall.protocol.function import Scaling
from squall.server.autoscaler import (
    BACKOFF_MAX_S,
    LOOK_S,
    STEP_MIN,
    STEP_S,
    Decision,
    IdleContainer,
    Load,
    backoff_s,
    decide,
    desired,
    is_short,
    look_again_s,
)


def make_load(**fields: object) -> Load:
    """A load in which nothing happens, but for the fields given."""
    scaling = {key: fields.pop(key) for key in list(fields) if key in Scaling.__dataclass_fields__}
    values: dict[str, object] = {"queued": 0, "running": 0, "busy": 0, "pending": 0, "starting": 0, "now": 1_000.0}
    return Load(scaling=Scaling(**scaling), **(values | fields))  # type: ignore[arg-type]


def test_more_come_for_demand_that_lasts_and_the_first_and_those_that_are_kept_at_once() -> None:
    demand = {"queued": 9, "target_inputs": 1, "scaleup_window_s": 10.0, "min_containers": 3}
    new = make_load(**demand, running=3, busy=3, short_since=995.0)
    assert decide(new).start == 0
    assert not is_short(new, decide(new))
    assert look_again_s(new, decide(new)) is not None
    assert decide(make_load(**demand, running=3, busy=3, short_since=990.0)).start > 0
    assert decide(make_load(**demand, running=1, busy=1, short_since=1_000.0)).start == 2
    assert decide(make_load(queued=9, target_inputs=1, scaleup_window_s=10.0, short_since=1_000.0)).start == 1


def idle(*since: float) -> tuple[IdleContainer, ...]:
    return tuple(IdleContainer(f"ct-{number}", at) for number, at in enumerate(since))


@pytest.mark.parametrize(
    ("load", "wanted"),
    [
        (make_load(), 0),
        (make_load(queued=1_000_000, max_containers=limits.CONTAINERS_MAX), limits.CONTAINERS_MAX),
        (make_load(min_containers=2), 2),
        (make_load(min_containers=2, buffer_containers=3), 2),
        (make_load(queued=1), 1),
        (make_load(queued=1, buffer_containers=3), 4),
        (make_load(queued=10, service_s=5.0), 10),
        (make_load(queued=10, service_s=5.0, max_containers=4), 4),
        (make_load(queued=10, service_s=5.0, max_inputs=5), 2),
        (make_load(queued=10, service_s=5.0, max_inputs=10, target_inputs=5), 2),
        (make_load(queued=50_000, service_s=20e-6), 2),
        (make_load(queued=1_000, service_s=20e-6), 1),
        (make_load(queued=99, running=1, busy=1, service_s=20e-6, blocked=1), 2),
        (make_load(queued=90, running=10, busy=10, service_s=20e-6, blocked=8), 18),
        (make_load(queued=3, running=10, busy=10, service_s=20e-6, blocked=8), 13),
        (make_load(queued=990, running=1, busy=1, service_s=20e-6), 1),
        (make_load(queued=1_000_000, service_s=1.0), 1_000),
        (make_load(running=3, busy=3, service_s=0.001), 3),
        # Above the target: for as long as a burst lasts nothing is done, then there are more.
        (make_load(running=10, busy=1, service_s=0.1, max_inputs=10, target_inputs=4), 1),
        (make_load(running=10, busy=1, service_s=0.1, above_target_since=999.8, max_inputs=10, target_inputs=4), 1),
        (make_load(running=10, busy=1, service_s=0.1, above_target_since=999.7, max_inputs=10, target_inputs=4), 3),
        (make_load(running=10, busy=1, above_target_since=999.7, max_inputs=10, target_inputs=4), 3),
        (make_load(running=10, busy=1, service_s=0.001, above_target_since=999.7, max_inputs=10, target_inputs=4), 1),
        (make_load(running=4, busy=1, service_s=0.1, max_inputs=4), 1),
    ],
)
def test_as_many_containers_are_wanted_as_the_load_is_worth(load: Load, wanted: int) -> None:
    assert desired(load) == wanted


@pytest.mark.parametrize(
    ("load", "decision"),
    [
        (make_load(queued=1), Decision(start=1)),
        (make_load(queued=100), Decision(start=STEP_MIN)),
        (make_load(queued=100, starting=16), Decision(start=16)),
        (make_load(queued=990, starting=24), Decision(start=8)),
        (make_load(queued=990, starting=32), Decision()),
        (make_load(queued=990, starting=32, cores=2), Decision()),
        (make_load(queued=990, starting=32, cores=48), Decision(start=16)),
        (make_load(queued=990, starting=32, cores=480), Decision(start=32)),
        (make_load(queued=990, starting=32, running=1, busy=1), Decision()),
        (make_load(queued=990, starting=32, running=1, busy=1, blocked=1), Decision(start=33)),
        (make_load(queued=990, starting=32, running=40, busy=40), Decision(start=8)),
        (make_load(queued=990, starting=32, running=1, busy=1, service_s=0.4), Decision()),
        (make_load(queued=990, starting=32, running=1, busy=1, service_s=9.0), Decision(start=33)),
        (make_load(starting=64, min_containers=200), Decision(start=64)),
        (make_load(queued=100, starting=4, last_step_at=999.98), Decision()),
        (make_load(queued=100, starting=4, last_step_at=999.98, service_s=1.0), Decision()),
        (make_load(queued=100, starting=3, running=1, busy=1, last_step_at=999.98), Decision(start=1)),
        (make_load(queued=100, starting=4, running=12, busy=12, last_step_at=999.98), Decision(start=8)),
        (make_load(queued=100, starting=4, pending=8, running=12, busy=12, last_step_at=999.98), Decision()),
        (make_load(queued=100, min_containers=9, last_step_at=999.98), Decision(start=9)),
        (make_load(queued=2, starting=1, pending=1), Decision()),
        (make_load(pending=3, starting=1), Decision(cancel_pending=3)),
        (make_load(queued=1, failures_in_a_row=1, last_failure_at=999.9), Decision()),
        (make_load(queued=9, failures_in_a_row=1, last_failure_at=999.0), Decision(start=1)),
        (make_load(queued=9, failures_in_a_row=1, last_failure_at=999.0, starting=1), Decision()),
        (make_load(idle=idle(900.0, 930.0, 995.0)), Decision(stop=("ct-0", "ct-1"))),
        (make_load(idle=idle(930.0, 900.0, 995.0), min_containers=2), Decision(stop=("ct-1",))),
        (make_load(idle=idle(900.0), queued=0, running=1, busy=1, buffer_containers=1), Decision()),
        (make_load(idle=idle(900.0), scaledown_window_s=200.0), Decision()),
    ],
)
def test_load_decides_what_is_started_stopped_and_cancelled(load: Load, decision: Decision) -> None:
    assert decide(load) == decision


@pytest.mark.parametrize(
    ("load", "again_s"),
    [
        (make_load(), None),
        (make_load(running=1, busy=1), None),
        (make_load(queued=5, running=1, busy=1), LOOK_S),
        (make_load(queued=5, running=1, busy=1, service_s=0.01), LOOK_S),
        (make_load(queued=5, running=1, busy=1, service_s=0.01, blocked=1), STEP_S),
        (make_load(queued=5, pending=5, last_step_at=998.9), None),
        (make_load(queued=5, running=1, busy=1, pending=5, service_s=9.0, last_step_at=998.9), None),
        (make_load(queued=50, starting=4, last_step_at=999.75), STEP_S - 0.25),
        (make_load(queued=5), STEP_S),
        (make_load(idle=idle(990.0, 970.0)), 30.0),
        (make_load(idle=idle(900.0, 990.0), min_containers=1), 50.0),
        (make_load(min_containers=1, failures_in_a_row=3, last_failure_at=999.5), 1.5),
    ],
    ids=[
        "nothing",
        "busy",
        "queued",
        "short",
        "blocked",
        "placeless",
        "placeless-busy",
        "step",
        "first-step",
        "idle",
        "spare",
        "backoff",
    ],
)
def test_time_alone_is_waited_for_only_when_it_changes_something(load: Load, again_s: float | None) -> None:
    assert look_again_s(load, decide(load)) == again_s


@given(since=st.floats(0, 1e6), window_s=st.floats(2, 3_600), failed_at=st.floats(0, 1e6), failures=st.integers(1, 9))
def test_what_is_waited_for_is_over_then(since: float, window_s: float, failed_at: float, failures: int) -> None:
    idling = make_load(now=since, idle=idle(since), scaledown_window_s=window_s)
    failing = make_load(now=failed_at, queued=1, failures_in_a_row=failures, last_failure_at=failed_at)

    stepping = make_load(now=since, queued=9, starting=4, last_step_at=since)

    assert decide(replace(stepping, now=since + STEP_S)).start > 0
    later = replace(idling, now=since + window_s)
    assert decide(later).stop == ("ct-0",)
    assert look_again_s(later, decide(later)) is None
    assert decide(replace(failing, now=failed_at + backoff_s(failures))).start == 1


def test_backoff_grows_and_is_bounded() -> None:
    delays = [backoff_s(count) for count in range(12)]

    assert delays[:4] == [0.0, 0.5, 1.0, 2.0]
    assert delays == sorted(delays)
    assert delays[-1] == BACKOFF_MAX_S


@pytest.mark.long
@given(
    queued=st.integers(0, 10**6),
    busy=st.integers(0, 50),
    pending=st.integers(0, 50),
    starting=st.integers(0, 50),
    ages=st.lists(st.floats(0, 200), max_size=20),
    minimum=st.integers(0, 10),
    maximum=st.none() | st.integers(10, 60),
    buffer=st.integers(0, 5),
    service_s=st.none() | st.floats(1e-6, 100.0),
)
def test_no_load_leads_past_the_limits_or_starts_and_stops_at_once(
    queued: int,
    busy: int,
    pending: int,
    starting: int,
    ages: list[float],
    minimum: int,
    maximum: int | None,
    buffer: int,
    service_s: float | None,
) -> None:
    load = make_load(
        queued=queued, running=busy, busy=busy, pending=pending, starting=starting, service_s=service_s,
        idle=idle(*(1_000.0 - age for age in ages)),
        min_containers=minimum, max_containers=maximum, buffer_containers=buffer,
    )  # fmt: skip

    decision = decide(load)

    existing = busy + pending + starting + len(ages)
    after = existing + decision.start - len(decision.stop) - decision.cancel_pending
    assert after >= min(existing, minimum)
    if decision.start:
        assert not decision.stop
        assert maximum is None or after <= maximum
    assert len(set(decision.stop)) == len(decision.stop)
    assert decision.cancel_pending <= pending


def test_simulated_bursts_are_served_and_end_at_zero() -> None:
    """A small world with a seed: inputs of 0.2 s come in bursts; containers take 0.15 s to start."""
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    now, queued, arrived, served, most = 0.0, 0, 0, 0, 0
    starting: list[float] = []
    running: list[float] = []
    idle_since: dict[str, float] = {}
    names = iter(range(10**9))
    last_step_at, service_s = -1.0, None
    while now < 120.0:
        now += 0.05
        if now < 30.0 and rng.random() < 0.05:
            burst = rng.randrange(1, 80)
            queued, arrived = queued + burst, arrived + burst
        for _ in [at for at in starting if at <= now]:
            idle_since[f"ct-{next(names)}"] = now
        starting = [at for at in starting if at > now]
        for _ in [at for at in running if at <= now]:
            served, service_s = served + 1, 0.2
            idle_since[f"ct-{next(names)}"] = now
        running = [at for at in running if at > now]
        while queued and idle_since:
            idle_since.popitem()
            queued -= 1
            running.append(now + 0.2)
        load = make_load(
            now=now, queued=queued, running=len(running), busy=len(running), starting=len(starting),
            idle=tuple(IdleContainer(name, at) for name, at in idle_since.items()), service_s=service_s,
            last_step_at=last_step_at, scaledown_window_s=10.0,
        )  # fmt: skip
        decision = decide(load)
        if decision.start:
            last_step_at = now
        starting += [now + 0.15] * decision.start
        for name in decision.stop:
            del idle_since[name]
        most = max(most, len(starting) + len(running) + len(idle_since))

    assert served == arrived, f"seed {seed}"
    assert most <= 200, f"seed {seed}"
    assert not starting + running, f"seed {seed}"
    assert not idle_since, f"seed {seed}"
