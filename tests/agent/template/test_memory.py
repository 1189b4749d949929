"""Which templates go when they are too many or too much."""

from __future__ import annotations

from pathlib import Path

from squall.agent.template.memory import TEMPLATES_MAX, budget_bytes, freeing, surplus, total_bytes, unshared_bytes
from squall.protocol.function import GVISOR
from squall.protocol.records import replace
from squall.protocol.template import DROPPED, MAKING, UNFIT
from tests.agent.parts import make_config
from tests.agent.template.parts import MIB, make_cell, make_template, reserve_of


def test_the_budget_is_a_quarter_of_the_nodes_memory_or_what_is_configured() -> None:
    assert budget_bytes(make_config(Path("/d"))) == 1_024 * MIB
    assert budget_bytes(make_config(Path("/d"), template_memory_mib=7)) == 7 * MIB


def test_those_used_longest_ago_go_first_and_no_more_than_needed() -> None:
    templates = [make_template(number, used_at=-number) for number in range(5)]

    assert surplus(templates, 50 * MIB) == []
    assert surplus(templates, 30 * MIB) == [templates[4], templates[3]]
    assert surplus(templates, 29 * MIB) == [templates[4], templates[3], templates[2]]


def test_for_others_so_many_go_as_free_what_they_need() -> None:
    templates = [make_template(number, used_at=-number) for number in range(5)]

    assert freeing(templates, 0) == []
    assert freeing(templates, 1) == [templates[4]]
    assert freeing(templates, 20 * MIB, kept=templates[4]) == [templates[3], templates[2]]
    assert len(freeing(templates, 60 * MIB)) == 5


def test_whose_clones_run_is_counted_and_stays_for_it_would_free_nothing() -> None:
    held, other, saved = (make_template(number, used_at=number) for number in range(3))
    held.clones, saved.clones = {"ru-1"}, {"ru-2"}
    saved.request = replace(saved.request, isolation=GVISOR)  # those restored from it have all of it to themselves

    assert surplus([held, other, saved], 15 * MIB) == [other]
    assert unshared_bytes([held, other, saved]) == 20 * MIB
    assert freeing([held, other, saved], 30 * MIB) == [other, saved]

    held.state = saved.state = DROPPED
    assert total_bytes([held, saved]) == 10 * MIB
    assert (held.told().memory_mib, held.told().shared_mib) == (10, 10)
    held.clones.clear()
    assert total_bytes([held]) == held.told().memory_mib == held.told().shared_mib == 0


def test_what_is_made_ahead_counts_and_a_process_that_is_gone_does_not() -> None:
    template = make_template()
    reserve_of(template).put(make_cell())
    reserve_of(template).put(make_cell(2, is_parked=True))
    assert template.total_bytes == 12 * MIB

    template.state = UNFIT
    assert total_bytes([template]) == 2 * MIB


def test_what_is_ready_is_counted_from_when_it_comes_to_when_it_goes() -> None:
    template = make_template(memory_mib=0)
    reserve = reserve_of(template)
    parked = [make_cell(number, is_parked=True) for number in range(4)]
    for number in range(3):
        reserve.put(make_cell(10 + number))
    for cell in parked:
        reserve.put(cell)

    reserve.measured(parked[1], 20 * MIB)
    assert reserve.take_parked() is parked[0]
    reserve.measured(parked[0], 100 * MIB)  # its time is over
    assert reserve.remove(parked[2].cell_id) is parked[2]
    assert reserve.remove(parked[2].cell_id) is None
    assert reserve.take_cell() is not None

    ahead = [*template.cells, *template.parked]
    assert (template.cell_count, template.parked_count) == (2, 2)
    assert template.total_bytes == sum(cell.memory_bytes for cell in ahead) == 23 * MIB
    assert set(template.ahead) == {cell.cell_id for cell in ahead}

    assert sorted(cell.cell_id for cell in template.empty()) == sorted(cell.cell_id for cell in ahead)
    assert template.total_bytes == 0
    assert not template.ahead
    assert reserve.take_cell() is None
    assert reserve.take_parked() is None


def test_one_that_somebody_waits_for_stays() -> None:
    making, ready = make_template(1), make_template(2, used_at=5.0)
    making.state = MAKING

    assert surplus([making, ready], 0) == [ready]


def test_ten_thousand_are_too_many_however_small() -> None:
    templates = [make_template(number, memory_mib=0, used_at=number) for number in range(10_000)]

    doomed = surplus(templates, MIB)

    assert len(doomed) == 10_000 - TEMPLATES_MAX
    assert templates[-1] not in doomed
