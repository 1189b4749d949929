"""Calendar periods: months as the calendar has them, the rest as seconds."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime

MONTH_S_MAX = 31 * 86_400.0


def longest_s(months: int, seconds: float) -> float:
    """No period of these is longer."""
    return months * MONTH_S_MAX + seconds


def first_after(months: int, seconds: float, began_at: float, after: float) -> float | None:
    """The first time after `after` that is a whole number of periods, one at least, after `began_at`; None beyond the
    calendar's end.

    Counted from the beginning, not from the last one: the last of January is followed by the last of February and the
    last of March, and fractions of a second do not add up.
    """
    # So many have certainly passed: months are not longer than this.
    count = max(0, int((after - began_at) / longest_s(months, seconds)))
    while True:
        count += 1
        try:
            at = _months_later(began_at, months * count) + seconds * count
        except (OverflowError, ValueError):
            return None
        if at > after:
            return at


def _months_later(at: float, months: int) -> float:
    if not months:
        return at
    begin = datetime.fromtimestamp(at, UTC)
    years, month = divmod(begin.month - 1 + months, 12)
    year, month = begin.year + years, month + 1
    day = min(begin.day, monthrange(year, month)[1])
    return begin.replace(year=year, month=month, day=day).timestamp()
