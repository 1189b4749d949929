"""Cron expressions: what is wrong with one, and when it is due.

Five fields, read as Debian's cron reads them, also where clocks are set forward or back: what names an hour and a
minute is due once that day, at the first moment after a missing hour and in the first of two equal ones; what has a `*`
in either is due whenever the clock on the wall says so.
"""

from __future__ import annotations

import math
from datetime import datetime, timezone, tzinfo

FIELDS = {
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, or L for the last one",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT, 0 and 7 for Sunday",
}
"""Name and allowed values, in order."""
CHARS_MAX = 200
NEAR_S = 2 * 86_400
"""More than any clock was ever set by, and less than there is between two times that one is."""
UTC = "UTC"


def find_zone(name: str) -> tzinfo | None:
    """A time zone of the database, or None if there is none of that name."""
    if name == UTC:
        return timezone.utc
    import zoneinfo  # cold start: where a schedule is made outside a container, and in the server

    try:
        return zoneinfo.ZoneInfo(name)
    # A name may be that of a folder of the database, or lead out of it, or be no name of a file at all.
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def has_zones() -> bool:
    """Whether this machine has a database of time zones."""
    return find_zone("Etc/UTC") is not None


def problem(expression: str, zone_name: str = UTC) -> str:
    """What is wrong with an expression or its time zone, with what is allowed; empty if nothing is."""
    fields = expression.split()
    if len(fields) != len(FIELDS) or len(expression) > CHARS_MAX:
        return f"it takes {len(FIELDS)} fields ({' '.join(FIELDS)}), as in '0 9 * * MON-FRI'"
    for (name, allowed), text in zip(FIELDS.items(), fields, strict=True):
        alone = ["*"] * len(FIELDS)
        alone[list(FIELDS).index(name)] = text
        if not _is_readable(" ".join(alone)):
            return f"{name} {text!r} must be {allowed}; also *, lists (1,2), ranges (1-5) and steps (*/5)"
    if not _is_readable(expression):
        return "it is never due: no month it names has that day"
    if find_zone(zone_name) is None:
        return f"there is no time zone {zone_name[:CHARS_MAX]!r}; use one of the database, such as 'Europe/Berlin'"
    return ""


def _is_readable(expression: str) -> bool:
    from cronsim import CronSim, CronSimError  # cold start: as above

    try:
        CronSim(expression, datetime(2000, 1, 1))
    except CronSimError:
        return False
    return True


def first_after(expression: str, zone_name: str, after: float) -> float | None:
    """When the expression is due first after that time, in seconds since 1970; None if not within 50 years.

    Raises:
        ValueError: there is something wrong with it, see `problem`.
    """
    from cronsim import CronSim, CronSimError  # cold start: as above

    zone = find_zone(zone_name)
    if zone is None:
        raise ValueError(f"no time zone {zone_name!r}")
    try:
        if any(field.startswith("*") for field in expression.split()[:2]):
            return _first_on_the_wall(expression, zone, math.floor(after))
        for moment in CronSim(expression, datetime.fromtimestamp(after, zone)):
            at = moment.timestamp()
            # In the second of two equal hours the library says times of the first, too.
            if at > after:
                return at
    except CronSimError as error:
        raise ValueError(f"{expression!r} is no cron expression: {error}") from error
    except OverflowError:
        return None  # beyond the calendar's end
    return None


def _first_on_the_wall(expression: str, zone: tzinfo, begin: int) -> float | None:
    """When the clock on the wall says first what is asked for.

    The library goes from hour to hour: where a clock is set back by a part of one, or to a part of one, it steps over
    what that brings. So it is asked about a clock that is never set, and that one is changed where the real one is.
    """
    from cronsim import CronSim  # cold start: as above

    offset_s = _offset_s(zone, begin)
    while True:
        moment = next(CronSim(expression, datetime.fromtimestamp(begin + offset_s, timezone.utc)), None)
        if moment is None:
            return None
        due = round(moment.timestamp()) - offset_s
        change = _first_change(zone, offset_s, begin + 1, min(due, begin + NEAR_S))
        if change is not None:
            begin, offset_s = change - 1, _offset_s(zone, change)
        elif due - begin > NEAR_S:
            begin = due - NEAR_S
            offset_s = _offset_s(zone, begin)
        else:
            return float(due)


def _first_change(zone: tzinfo, offset_s: int, begin: int, end: int) -> int | None:
    """When a clock is not as far from UTC any more, from `begin` to `end`; None if it is at the end."""
    if _offset_s(zone, end) == offset_s:
        return None
    while begin < end:
        middle = (begin + end) // 2
        if _offset_s(zone, middle) == offset_s:
            begin = middle + 1
        else:
            end = middle
    return end


def _offset_s(zone: tzinfo, at: int) -> int:
    offset = datetime.fromtimestamp(at, zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds())
