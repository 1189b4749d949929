"""Cron expressions: what is wrong with one, and when it is due.

Five fields, read as Debian's cron reads them, also where clocks are set forward or back: what names an hour and a
minute is due once that day, at the first moment after a missing hour and in the first of two equal ones; what has a `*`
in either goes on by the time that passes. One zone of the database is set by half an hour, Australia/Lord_Howe: there,
a step of hours (`0 */2`) leaves out the hour after the change in autumn.
"""

from __future__ import annotations

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
