"""What a schedule may be, and which functions may have one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol import cron, schedule
from squall.protocol.function import CRON, PERIOD, Schedule
from squall.sdk._serialization import deserialize
from tests.sdk.double import ServerDouble


def nothing() -> None:
    """Can be called by itself."""


def wants(name: str, *, size: int, colour: str = "red") -> None:
    """Cannot."""


def numbers() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("0 9 * *",), "takes 5 fields"),
        (("99 9 * * *",), "minute '99' must be 0-59"),
        (("0 0 30 2 *",), "never due"),
        (("0 0 */20 * 1L",), "never due"),
        (("0 9 * * *", "Mars/Olympus"), "no time zone 'Mars/Olympus'"),
        ((5,), "cron_string=5"),
        (("0 9 * * *", None), "timezone=None"),
    ],
)
def test_impossible_crons_are_refused(given: tuple[Any, ...], text: str) -> None:
    with pytest.raises(InvalidError, match="Cron") as refused:
        squall.Cron(*given)

    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "at least one of years, months"),
        ({"seconds": 0.5}, "at least 1 second"),
        ({"days": -1}, r"Period\(days=-1\): must be an integer of at least 0"),
        ({"hours": 1.5}, "hours=1.5"),
        ({"minutes": True}, "minutes=True"),
        ({"weeks": "1"}, "weeks='1'"),
        ({"seconds": float("inf")}, "seconds=inf"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"seconds": "1"}, "seconds='1'"),
        ({"years": 101}, "at most 100 years"),
        ({"days": 10**12}, "at most 100 years"),
    ],
)
def test_impossible_periods_are_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidError, match=text):
        squall.Period(**given)


@pytest.mark.parametrize(
    ("made", "record", "text"),
    [
        (
            squall.Cron(" 0  9 * * MON", timezone="Europe/Berlin"),
            Schedule(CRON, cron="0 9 * * MON", timezone="Europe/Berlin"),
            "0 9 * * MON Europe/Berlin",
        ),
        (squall.Cron("*/5 * * * *"), Schedule(CRON, cron="*/5 * * * *"), "*/5 * * * * UTC"),
        (squall.Period(seconds=1.5), Schedule(PERIOD, seconds=1.5), "every 1.5 seconds"),
        (squall.Period(weeks=1, hours=2), Schedule(PERIOD, seconds=7 * 86_400 + 7_200), "every 7 days 2 hours"),
        (
            squall.Period(years=1, months=2, minutes=1, seconds=1),
            Schedule(PERIOD, months=14, seconds=61.0),
            "every 1 year 2 months 1 minute 1 second",
        ),
    ],
)
def test_what_a_server_is_told(made: squall.Cron | squall.Period, record: Schedule, text: str) -> None:
    assert made.record() == record
    assert schedule.problem(record) == ""
    assert schedule.describe(record) == text


def test_they_show_what_they_were_given() -> None:
    assert repr(squall.Cron("0 9 * * *")) == "Cron('0 9 * * *', timezone='UTC')"
    assert repr(squall.Period(days=1, seconds=0.5)) == "Period(days=1, seconds=0.5)"


@pytest.mark.parametrize(
    ("raw_f", "given", "text"),
    [
        (nothing, "daily", r"schedule='daily' must be squall.Cron\(…\) or squall.Period\(…\)"),
        (nothing, 5, "schedule=5"),
        (wants, squall.Period(days=1), "without arguments: give name, size a default value"),
        (numbers, squall.Period(days=1), "cannot be used on a generator"),
    ],
)
def test_functions_that_cannot_be_called_by_themselves_are_refused(
    raw_f: Callable[..., Any], given: Any, text: str
) -> None:
    with pytest.raises(InvalidError, match=text):
        squall.App("x").function(schedule=given)(raw_f)


def test_what_has_defaults_and_stars_can_be_called_by_itself() -> None:
    def takes(*args: object, size: int = 3, **kwargs: object) -> None: ...

    squall.App("x").function(schedule=squall.Period(days=1), serialized=True)(takes)


def test_machine_without_time_zones_leaves_them_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cron, "find_zone", lambda name: None if name != cron.UTC else __import__("datetime").UTC)

    assert squall.Cron("0 9 * * *", timezone="Europe/Berlin").timezone == "Europe/Berlin"
    with pytest.raises(InvalidError, match="minute"):
        squall.Cron("99 9 * * *", timezone="Europe/Berlin")


def test_container_makes_schedules_without_what_reads_them() -> None:
    program = """
import sys
sys.modules["cronsim"] = None
from squall.sdk import _container
_container.enter(None, "", "")
import squall
app = squall.App("x")

@app.function(schedule=squall.Cron("0 9 * * *", timezone="Europe/Berlin"))
def nightly() -> None: ...

@app.function(schedule=squall.Period(days=1))
def daily() -> None: ...

assert "zoneinfo" not in sys.modules and "inspect" not in sys.modules, sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_run_of_an_app_says_once_that_its_schedules_rest(
    server: ServerDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    app = squall.App("x")
    app.function(schedule=squall.Period(days=1))(nothing)

    with squall.enable_output(), app.run():
        pass

    (spec,) = server.functions.values()
    assert spec.schedule == Schedule(PERIOD, seconds=86_400.0)
    assert capsys.readouterr().err.count("The schedule of nothing rests") == 1


def test_input_without_arguments_is_read_as_one() -> None:
    from squall.protocol.call import NO_ARGUMENTS

    assert deserialize(NO_ARGUMENTS) == ((), {})
