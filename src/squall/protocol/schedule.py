"""Schedules: which functions are called by themselves, when they were last, and when they will be."""

from __future__ import annotations

import math

from squall.protocol import cron
from squall.protocol.function import CRON, PERIOD, Schedule
from squall.protocol.records import record, replace

PERIOD_S_MIN = 1.0
MONTHS_MAX = 100 * 12
PERIOD_S_MAX = 100 * 366 * 24 * 3600.0
RUNNING = "running"
UNKNOWN = "unknown"
"""The outcome of a call whose output was not kept long enough."""


@record
class ScheduleList:
    """Ask for the schedules of deployed apps."""

    app: str = ""
    """Only those of this app, by id or name."""
    limit: int = 10_000
    environment: str = ""
    """Of the apps; empty for the caller's."""
    after: tuple[str, ...] = ()
    """App name, app id and function name of the last one of the page before."""

    def following(self, listing: ScheduleListing) -> ScheduleList | None:
        """The question for the next page."""
        if not listing.is_cut or not listing.schedules:
            return None
        last = listing.schedules[-1]
        after = (last.app_name, last.app_id, last.function_name)
        if after <= self.after:
            return None
        return replace(self, limit=max(0, self.limit - len(listing.schedules)), after=after)


@record
class ScheduleInfo:
    """One function's schedule. Times are seconds since 1970."""

    app_id: str
    app_name: str
    function_id: str
    function_name: str
    schedule: Schedule
    next_at: float | None = None
    """None when it is never due again."""
    last_at: float | None = None
    """When the last run was due; None before the first."""
    last_call_id: str = ""
    last_outcome: str = ""
    """`running`, or how it ended as in `STATUS_NAMES`; empty before the first run."""
    skipped_count: int = 0
    """How many times it was due since then and passed over, because that run went on."""
    environment: str = ""
    """Of the app."""


@record
class ScheduleListing:
    """By app and function; a page of it."""

    schedules: tuple[ScheduleInfo, ...]
    is_cut: bool = False
    """There are more."""


@record
class ScheduleRun:
    """Run a scheduled function now, beside its schedule."""

    app: str
    """Id or name."""
    function: str
    """Name."""
    environment: str = ""
    """That a name of an app is looked up in."""


@record
class ScheduleStarted:
    """The durable call."""

    call_id: str


def problem(schedule: Schedule) -> str:
    """Why it cannot be followed, with what is allowed; empty if it can."""
    if schedule.kind == CRON:
        return cron.problem(schedule.cron, schedule.timezone)
    if schedule.kind != PERIOD:
        return f"its kind {schedule.kind!r} must be {CRON!r} or {PERIOD!r}"
    seconds, months = schedule.seconds, schedule.months
    if not math.isfinite(seconds) or seconds < 0 or months < 0:
        return "a period cannot be negative"
    if months > MONTHS_MAX or seconds > PERIOD_S_MAX:
        return "a period must be at most 100 years"
    if not months and seconds < PERIOD_S_MIN:
        return f"a period must be at least {PERIOD_S_MIN:g} second"
    return ""


_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


def describe(schedule: Schedule) -> str:
    """In one line, for people: `0 9 * * MON Europe/Berlin`, `every 1 month 12 hours`."""
    if schedule.kind == CRON:
        return f"{schedule.cron} {schedule.timezone}"
    years, months = divmod(schedule.months, 12)
    parts = [_counted(years, "year"), _counted(months, "month")]
    left = schedule.seconds
    for unit, length in _UNITS:
        count, left = divmod(left, length)
        parts.append(_counted(count, unit))
    parts.append(_counted(left, "second"))
    return " ".join(["every", *filter(None, parts)])


def _counted(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if number == 1 else 's'}" if number else ""
