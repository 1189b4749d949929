"""Which templates go when they are too many or too much."""

from __future__ import annotations

from pathlib import Path

from squall.agent.template.memory import TEMPLATES_MAX, budget_bytes, surplus, total_bytes
from squall.protocol.template import MAKING, UNFIT
from tests.agent.parts import make_config
from tests.agent.template.parts import MIB, make_cell, make_template, reserve_of


def test_the_budget_is_a_quarter_of_the_nodes_memory_or_what_is_configured() -> None:
    assert budget_bytes(make_config(Path("/d"))) == 1_024 * MIB
    assert budget_bytes(make_config(Path("/d"), template_memory_mib=7)) == 7 * MIB


def test_those_used_longest_ago_go_first_and_no_more_than_needed() -> None:
    templates = [make_template(number, used_at=-number) for number in range(5)]

    assert surplus(templates, 50 * MIB) == []
    assert surplus(templates, 30 * MIB) == [templates[4], templates[3]]
    assert surplus(templates, 29 * MIB, kept=templates[4]) == [templates[3], templates[2], templates[1]]


def test_what_is_made_ahead_counts_and_a_process_that_is_gone_does_not() -> None:
    template = make_template()
    reserve_of(template).cells.append(make_cell())
    reserve_of(template).parked.append(make_cell(2, is_parked=True))
    assert template.total_bytes == 12 * MIB

    template.state = UNFIT
    assert total_bytes([template]) == 2 * MIB


def test_one_that_somebody_waits_for_stays() -> None:
    making, ready = make_template(1), make_template(2, used_at=5.0)
    making.state = MAKING

    assert surplus([making, ready], 0) == [ready]


def test_ten_thousand_are_too_many_however_small() -> None:
    templates = [make_template(number, memory_mib=0, used_at=number) for number in range(10_000)]

    doomed = surplus(templates, MIB)

    assert len(doomed) == 10_000 - TEMPLATES_MAX
    assert templates[-1] not in doomed
