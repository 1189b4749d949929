"""When a calendar period is over."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.server.schedule import period


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("months", "seconds", "began", "after", "expected"),
    [
        (0, 2.0, "2026-01-01 00:00", "2026-01-01 00:00", "2026-01-01 00:00:02"),
        (0, 2.0, "2026-01-01 00:00", "2026-01-01 00:00:02", "2026-01-01 00:00:04"),
        (0, 86_400.0, "2026-01-01 06:00", "2026-03-01 05:00", "2026-03-01 06:00"),
        (1, 0.0, "2026-01-31 12:00", "2026-01-31 12:00", "2026-02-28 12:00"),
        (1, 0.0, "2026-01-31 12:00", "2026-02-28 12:00", "2026-03-31 12:00"),
        (1, 0.0, "2026-01-31 12:00", "2026-03-31 12:00", "2026-04-30 12:00"),
        (1, 0.0, "2024-01-31 12:00", "2024-01-31 12:00", "2024-02-29 12:00"),
        (12, 0.0, "2024-02-29 12:00", "2024-03-01 00:00", "2025-02-28 12:00"),
        (12, 0.0, "2024-02-29 12:00", "2027-03-01 00:00", "2028-02-29 12:00"),
        (1, 3_600.0, "2026-11-30 23:30", "2026-11-30 23:30", "2026-12-31 00:30"),
        (1, 0.0, "1996-01-31 12:00", "2026-11-30 23:30", "2026-12-31 12:00"),
    ],
)
def test_first_time_after(months: int, seconds: float, began: str, after: str, expected: str) -> None:
    assert period.first_after(months, seconds, at(began), at(after)) == at(expected)


def test_fractions_of_a_second_do_not_add_up() -> None:
    now = began = at("2026-01-01 00:00")
    for _ in range(10_000):
        due = period.first_after(0, 1.1, began, now)
        assert due is not None
        now = due

    assert now == pytest.approx(began + 11_000.0, abs=1e-5)


def test_period_beyond_the_calendar_is_never_over() -> None:
    assert period.first_after(1_200, 0.0, at("2026-01-01 00:00"), at("9990-01-01 00:00")) is None


@given(
    st.integers(0, 30),
    st.floats(1.0, 1e7),
    st.floats(0.0, 4e9),
    st.floats(0.0, 1e9),
)
def test_what_follows_is_later_and_no_more_than_a_period_away(
    months: int, seconds: float, began: float, passed: float
) -> None:
    due = period.first_after(months, seconds, began, began + passed)

    assert due is not None
    assert 0 < due - (began + passed) <= period.longest_s(months, seconds) + 1e-3
