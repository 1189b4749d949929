"""When a cron expression is due, where clocks are set forward and back as well, and what is wrong with one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.protocol import cron

BERLIN, CAIRO, CHATHAM, LORD_HOWE = "Europe/Berlin", "Africa/Cairo", "Pacific/Chatham", "Australia/Lord_Howe"


def at(text: str) -> float:
    """`2026-03-29 01:00+01:00` in seconds since 1970; without an offset, UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def following(expression: str, zone: str, after: str, count: int) -> list[str]:
    """The next times it is due, by the zone's clock."""
    found, now = [], at(after)
    for _ in range(count):
        due = cron.first_after(expression, zone, now)
        assert due is not None
        assert due > now
        found.append(datetime.fromtimestamp(due, ZoneInfo(zone)).isoformat(" ", "minutes"))
        now = due
    return found


@pytest.mark.parametrize(
    ("expression", "after", "due"),
    [
        ("0 9 * * *", "2026-11-30 08:59:59", "2026-11-30 09:00"),
        ("0 9 * * *", "2026-11-30 09:00:00", "2026-12-01 09:00"),
        ("0 9 * * *", "2026-11-30 08:59:59.999", "2026-11-30 09:00"),
        ("*/15 * * * *", "2026-11-30 09:00", "2026-11-30 09:15"),
        ("0 9 * * MON-FRI", "2026-11-27 12:00", "2026-11-30 09:00"),
        ("30 4 1,15 * 5", "2026-11-30 00:00", "2026-12-01 04:30"),
        ("0 0 31 * *", "2026-04-01 00:00", "2026-05-31 00:00"),
        ("0 0 L * *", "2026-02-01 00:00", "2026-02-28 00:00"),
        ("0 0 29 2 *", "2026-11-30 00:00", "2028-02-29 00:00"),
        ("0 0 * * 7", "2026-11-30 00:00", "2026-12-06 00:00"),
    ],
)
def test_first_time_after(expression: str, after: str, due: str) -> None:
    assert cron.first_after(expression, "UTC", at(after)) == at(due)


# Each row: where a clock is set forward or back, from when on, and what follows.
CHANGES = [
    # 02:00 to 03:00 does not exist: at its end instead, once.
    ("30 2 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"]),
    ("15,45 2 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-30 02:15+02:00"]),
    ("0 3 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-30 03:00+02:00"]),
    ("*/30 * * * *", BERLIN, "2026-03-29 00:15", ["2026-03-29 01:30+01:00", "2026-03-29 03:00+02:00"]),
    ("0 * * * *", BERLIN, "2026-03-29 00:15", ["2026-03-29 03:00+02:00", "2026-03-29 04:00+02:00"]),
    # 02:00 to 03:00 comes twice: in the first only, unless it is as often as the clock goes round.
    ("30 2 * * *", BERLIN, "2026-10-24 12:00", ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]),
    ("30 2 * * *", BERLIN, "2026-10-25 01:10", ["2026-10-26 02:30+01:00"]),
    ("30 2,3 * * *", BERLIN, "2026-10-25 01:10", ["2026-10-25 03:30+01:00", "2026-10-26 02:30+01:00"]),
    ("0 * * * *", BERLIN, "2026-10-24 23:30", ["2026-10-25 02:00+02:00", "2026-10-25 02:00+01:00"]),
    ("*/30 2 * * *", BERLIN, "2026-10-25 00:10", ["2026-10-25 02:30+02:00", "2026-10-25 02:00+01:00"]),
    # Midnight itself is missing.
    ("0 0 * * *", CAIRO, "2026-04-23 12:00", ["2026-04-24 01:00+03:00", "2026-04-25 00:00+03:00"]),
    ("* * * * *", CAIRO, "2026-04-23 21:59", ["2026-04-24 01:00+03:00", "2026-04-24 01:01+03:00"]),
    # By half an hour.
    ("15 2 * * *", LORD_HOWE, "2026-10-03 00:00", ["2026-10-04 02:30+11:00", "2026-10-05 02:15+11:00"]),
    ("0 */2 * * *", LORD_HOWE, "2026-04-04 14:00", ["2026-04-05 02:00+10:30", "2026-04-05 04:00+10:30"]),
    # In the middle of an hour: 02:45 to 03:45 comes twice.
    ("50 */2 * * *", CHATHAM, "2026-04-04 13:20", ["2026-04-05 02:50+12:45", "2026-04-05 04:50+12:45"]),
    ("*/5 2 5 4 *", CHATHAM, "2026-04-04 13:14", ["2026-04-05 02:45+12:45", "2026-04-05 02:50+12:45"]),
    ("*/30 2 5 4 *", CHATHAM, "2026-04-04 13:14", ["2027-04-05 02:00+12:45", "2027-04-05 02:30+12:45"]),
]


@pytest.mark.parametrize(("expression", "zone", "after", "expected"), CHANGES)
def test_clocks_that_are_set_forward_and_back(expression: str, zone: str, after: str, expected: list[str]) -> None:
    assert following(expression, zone, after, len(expected)) == expected


def test_second_of_two_equal_hours_is_not_the_first_again() -> None:
    due = cron.first_after("30 2 * * *", BERLIN, at("2026-10-25 01:10"))

    assert due == at("2026-10-26 01:30")


ZONES = [BERLIN, CAIRO, "America/New_York", CHATHAM, LORD_HOWE, "UTC"]
MINUTES, HOURS = ["*", "*/7", "0", "30", "0,15", "5-10"], ["*", "*/2", "0", "1", "2", "2,3", "23"]
SEEN = timedelta(days=3)


def due_by_looking(minute: str, hour: str, zone: ZoneInfo, begin: datetime) -> set[datetime]:
    """When it is due within three days: by looking at every minute of the clock on the wall."""
    minutes, hours = _named(minute, 60), _named(hour, 24)
    found = set()
    if minute.startswith("*") or hour.startswith("*"):
        for number in range(1, int(SEEN.total_seconds()) // 60 + 1):
            moment = begin + timedelta(minutes=number)
            wall = moment.astimezone(zone)
            if wall.minute in minutes and wall.hour in hours:
                found.add(moment)
        return found
    first = begin.astimezone(zone).replace(tzinfo=None, hour=0, minute=0)
    for number in range(24 * 60 * (SEEN.days + 2)):
        wall = first + timedelta(minutes=number)
        if wall.minute in minutes and wall.hour in hours:
            moment = wall.replace(tzinfo=zone).astimezone(UTC)
            while moment.astimezone(zone).replace(tzinfo=None) != wall:
                wall += timedelta(minutes=1)
                moment = wall.replace(tzinfo=zone).astimezone(UTC)
            found.add(moment)
    return {moment for moment in found if begin < moment <= begin + SEEN}


def _named(field: str, count: int) -> set[int]:
    if field.startswith("*"):
        return set(range(0, count, int(field.partition("/")[2] or 1)))
    if "-" in field:
        low, high = map(int, field.split("-"))
        return set(range(low, high + 1))
    return set(map(int, field.split(",")))


@given(
    st.sampled_from(MINUTES),
    st.sampled_from(HOURS),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),
)
def test_what_is_due_is_what_the_clock_on_the_wall_says(minute: str, hour: str, zone: str, begin: datetime) -> None:
    begin = begin.replace(second=0, microsecond=0, tzinfo=UTC)
    expected = sorted(due_by_looking(minute, hour, ZoneInfo(zone), begin))[:50]
    found: list[datetime] = []
    now: float | None = begin.timestamp()
    while len(found) < len(expected):
        assert now is not None
        now = cron.first_after(f"{minute} {hour} * * *", zone, now)
        assert now is not None
        found.append(datetime.fromtimestamp(now, UTC))

    assert found == expected


# Every change of these clocks in two years.
TURNS = [at(text) for text in ("2026-03-29", "2026-10-25", "2026-04-23 22:00", "2026-10-29 21:00", "2026-04-04 15:00")]
TURNS += [at(text) for text in ("2026-10-03 15:30", "2026-03-08 07:00", "2026-11-01 06:00", "2026-09-26 14:00")]


@given(
    st.sampled_from(MINUTES),
    st.sampled_from(HOURS),
    st.sampled_from(ZONES),
    st.sampled_from(TURNS),
    st.integers(-300, 300),
)
def test_that_holds_around_every_change(minute: str, hour: str, zone: str, turn: float, minutes: int) -> None:
    begin = datetime.fromtimestamp(turn + 60 * minutes, UTC)
    expected = min(due_by_looking(minute, hour, ZoneInfo(zone), begin))

    assert cron.first_after(f"{minute} {hour} * * *", zone, begin.timestamp()) == expected.timestamp()


@pytest.mark.parametrize(
    ("expression", "zone", "text"),
    [
        ("", "UTC", "takes 5 fields"),
        ("* * * *", "UTC", "takes 5 fields"),
        ("0 * * * * *", "UTC", "takes 5 fields"),
        ("@daily", "UTC", "takes 5 fields"),
        ("60 * * * *", "UTC", "minute '60' must be 0-59"),
        ("* 24 * * *", "UTC", "hour '24' must be 0-23"),
        ("* * 0 * *", "UTC", "day-of-month '0' must be 1-31"),
        ("* * * 13 *", "UTC", "month '13' must be 1-12"),
        ("* * * * 8", "UTC", "day-of-week '8' must be 0-7"),
        ("*/0 * * * *", "UTC", "minute '*/0'"),
        ("5-1 * * * *", "UTC", "minute '5-1'"),
        ("x * * * *", "UTC", "minute 'x'"),
        ("0 0 30 2 *", "UTC", "never due"),
        ("0 9 * * *", "Mars/Olympus", "no time zone 'Mars/Olympus'"),
        ("0 9 * * *", "Europe", "no time zone"),
        ("0 9 * * *", "", "no time zone"),
        ("0 9 * * *", "../../etc/passwd", "no time zone"),
        ("0 9 * * *", "a\0b", "no time zone"),
        ("0," * 200 + "0 * * * *", "UTC", "takes 5 fields"),
    ],
)
def test_what_is_wrong_is_said(expression: str, zone: str, text: str) -> None:
    assert text in cron.problem(expression, zone)


def test_nothing_is_wrong_with_what_cron_takes() -> None:
    for expression in ("0 9 * * MON-FRI", "*/5 0-6,20 1,L * sun", "0 0 1 jan *", "0 0 * * 1#2", "  0   9 * * * "):
        assert cron.problem(expression, BERLIN) == ""


@given(st.text(alphabet="0123456789*/-,#LWMONJAN ²\0é", max_size=40))
def test_no_text_is_read_in_another_way_than_told(text: str) -> None:
    if not cron.problem(text):
        due = cron.first_after(text, "UTC", at("2026-01-01"))
        assert due is None or due > at("2026-01-01")


def test_what_is_never_due_is_told() -> None:
    # The last Monday of a month is never the first of one.
    assert cron.problem("0 0 */20 * 1L") == ""
    assert cron.first_after("0 0 */20 * 1L", "UTC", at("2026-01-01")) is None
    assert cron.first_after("0 9 * * *", "UTC", 253_402_300_799.0) is None


def test_there_is_a_database_of_time_zones() -> None:
    assert cron.has_zones()
