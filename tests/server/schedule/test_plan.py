"""What becomes of a schedule's row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from squall.protocol.function import CRON, PERIOD, Schedule
from squall.protocol.ids import born_at, is_id
from squall.server.model.schedule import StoredSchedule
from squall.server.schedule import plan
from tests.server.doubles import make_spec

DAY = 86_400.0
NOON = 20_000 * DAY + 43_200.0
DAILY_AT_9 = Schedule(CRON, cron="0 9 * * *")
DAILY = Schedule(PERIOD, seconds=DAY)
SPEC = make_spec("ap-1", schedule=DAILY_AT_9)


def row(schedule: Schedule, **fields: float) -> StoredSchedule:
    spec = replace(SPEC, schedule=schedule)
    return replace(plan.settled(None, spec, 1, NOON), **fields)  # type: ignore[arg-type]


def test_new_cron_is_due_at_its_next_time() -> None:
    assert row(DAILY_AT_9).next_at == NOON + 21 * 3_600.0


def test_new_period_is_due_when_it_is_over() -> None:
    assert row(DAILY).next_at == NOON + DAY


def test_deploy_moves_a_period_and_no_cron() -> None:
    later = NOON + 3_600.0
    cron, period = row(DAILY_AT_9), row(DAILY)

    assert plan.settled(cron, SPEC, 2, later) == replace(cron, version=2)
    assert plan.settled(period, replace(SPEC, schedule=DAILY), 2, later).next_at == later + DAY


def test_deploy_does_not_take_away_what_a_cron_has_missed() -> None:
    later = NOON + 3 * DAY

    assert plan.settled(row(DAILY_AT_9), SPEC, 2, later).next_at == NOON + 21 * 3_600.0


@pytest.mark.parametrize("schedule", [DAILY_AT_9, DAILY])
def test_the_same_version_again_changes_nothing(schedule: Schedule) -> None:
    known = row(schedule)

    assert plan.settled(known, replace(SPEC, schedule=schedule), 1, NOON + 3_600.0) == known


def test_another_schedule_is_counted_from_now_and_keeps_the_last_run() -> None:
    known = replace(row(DAILY), last_at=NOON - DAY, last_call_id="fc-1", last_outcome="failed")

    settled = plan.settled(known, SPEC, 1, NOON)

    assert settled == replace(row(DAILY_AT_9), last_at=NOON - DAY, last_call_id="fc-1", last_outcome="failed")


@pytest.mark.parametrize("schedule", [DAILY_AT_9, DAILY])
def test_firing_on_time_is_followed_by_the_next(schedule: Schedule) -> None:
    before = row(schedule, skipped_count=3)
    assert before.next_at is not None

    after = plan.fired(before, before.next_at, "fc-1", before.next_at + 0.01)

    assert after == replace(
        before, next_at=before.next_at + DAY, last_at=before.next_at, last_call_id="fc-1", skipped_count=0
    )


@pytest.mark.parametrize("schedule", [DAILY_AT_9, DAILY])
def test_what_was_missed_is_caught_up_with_once(schedule: Schedule) -> None:
    before = row(schedule)
    assert before.next_at is not None

    after = plan.fired(before, before.next_at, "fc-1", before.next_at + 10 * DAY + 5.0)

    assert after.last_at == before.next_at
    assert after.next_at == before.next_at + 11 * DAY


@pytest.mark.parametrize("schedule", [DAILY_AT_9, DAILY])
def test_clock_that_went_back_makes_nothing_due_twice(schedule: Schedule) -> None:
    before = row(schedule)
    assert before.next_at is not None

    after = plan.fired(before, before.next_at, "fc-1", before.next_at - 5 * DAY)

    assert after.next_at == before.next_at + DAY


def test_one_that_is_passed_over_is_counted() -> None:
    before = row(DAILY)
    assert before.next_at is not None

    assert plan.skipped(before, before.next_at) == replace(before, next_at=before.next_at + DAY, skipped_count=1)


def test_period_is_counted_anew_when_the_clock_was_set_back_by_more() -> None:
    known = row(DAILY)

    assert plan.corrected(known, NOON - 3_600.0).next_at == NOON - 3_600.0 + DAY
    assert plan.corrected(known, NOON + 3_600.0) == known
    assert plan.corrected(row(DAILY_AT_9), NOON - 30 * DAY) == row(DAILY_AT_9)


def test_long_month_is_no_clock_that_was_set_back() -> None:
    # Began on the last of January: from the end of February it is 31 days to the next.
    began = plan.settled(None, replace(SPEC, schedule=Schedule(PERIOD, months=1)), 1, 1_769_860_800.0)
    assert began.next_at is not None
    february = plan.fired(began, began.next_at, "fc-1", began.next_at)

    assert plan.corrected(february, began.next_at + 1.0) == february


def test_id_of_a_call_follows_from_function_and_time() -> None:
    first = row(DAILY)
    call_id = plan.call_id_of(first)

    assert is_id(call_id, "fc")
    assert call_id == plan.call_id_of(replace(first, version=7, last_call_id="fc-9"))
    assert first.next_at is not None
    assert born_at(call_id) == pytest.approx(first.next_at, abs=0.001)
    others = {plan.call_id_of(replace(first, function_id="fu-other")), plan.call_id_of(replace(first, next_at=NOON))}
    assert len({call_id, *others}) == 3
    assert len(call_id) == 25  # as that of any durable call: no client's mark
