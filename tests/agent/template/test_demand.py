"""How much is kept ready."""

from __future__ import annotations

from squall.agent.template.demand import (
    AT_ONCE_S,
    CELLS_IDLE_S,
    CELLS_MAX,
    PARKED_IDLE_S,
    PARKED_MAX,
    WINDOW_S,
    Demand,
    Targets,
)
from squall.protocol.template import FUNCTION, IMAGE


def after(starts: int, idle_s: float = 0.0, kind: str = FUNCTION, every_s: float = 0.0) -> Targets:
    demand, now = Demand(0.0), 0.0
    for _ in range(starts):
        demand.add(now)
        now += every_s
    return demand.targets(kind, demand.last_at + idle_s)


def test_nothing_is_kept_for_a_template_that_nobody_has_started() -> None:
    assert after(0) == Targets(0, 0)


def test_one_start_keeps_one_clone_of_a_function_and_none_of_an_image() -> None:
    assert after(1).parked_count == 1
    assert after(1, kind=IMAGE).parked_count == 0
    assert after(2, kind=IMAGE).parked_count == 1


def test_a_burst_keeps_many_for_a_while_and_fewer_and_fewer() -> None:
    assert after(200) == Targets(CELLS_MAX, PARKED_MAX)
    falling = [after(200, idle_s) for idle_s in (0.0, WINDOW_S, 2 * WINDOW_S, 4 * WINDOW_S)]
    assert falling == sorted(falling, key=lambda one: (-one.cell_count, -one.parked_count))
    assert falling[-1].cell_count < 5
    assert after(200, CELLS_IDLE_S + 1).cell_count == 0
    assert after(200, PARKED_IDLE_S + 1) == Targets(0, 0)


def test_cells_are_for_as_many_as_come_at_once_and_not_for_as_many_as_come() -> None:
    assert after(12).cell_count == 12
    assert after(12, every_s=AT_ONCE_S + 0.1).cell_count == 1


def test_a_function_started_now_and_then_has_one_ready_each_time() -> None:
    assert after(10, idle_s=PARKED_IDLE_S - 1, every_s=PARKED_IDLE_S).parked_count == 1


def test_there_is_a_bound_whatever_comes_and_whatever_the_clock_does() -> None:
    assert after(100_000) == Targets(CELLS_MAX, PARKED_MAX)
    demand = Demand(1_000.0)
    demand.add(1_000.0)
    demand.add(0.0)
    assert demand.level(-1e9) == demand.level(1_000.0) == 2.0
    assert demand.level(1e18) == 0.0
