"""When a deployed function is called by itself: `squall.Cron(…)`, `squall.Period(…)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from squall.exception import InvalidError
from squall.sdk import _container
from squall.sdk._parameters import checked
from squall.sdk._value_text import value_text

if TYPE_CHECKING:
    from squall.protocol.function import Schedule

YEARS_MAX = 100
DAY_S = 86_400
SECONDS_MAX = YEARS_MAX * 366 * DAY_S
NUMBER_MAX = YEARS_MAX * 366 * 24 * 60
"""Minutes, the smallest that are whole."""
_SECONDS_OF = {"weeks": 7 * DAY_S, "days": DAY_S, "hours": 3_600, "minutes": 60}


class Cron:
    """At the times that a cron expression says, in a time zone. A new deploy does not move them.

    Where clocks are set forward or back, what names an hour and a minute is due once that day, at the first moment
    after a missing hour and in the first of two equal ones; what has a `*` in either goes on by the time that passes.
    """

    @checked("squall.Cron")
    def __init__(self, cron_string: str, timezone: str = "UTC") -> None:
        """`Cron("0 9 * * MON-FRI", timezone="Europe/Berlin")`: minute, hour, day of month, month, day of week.

        Raises:
            InvalidError: it is no cron expression, or never due, or there is no such time zone.
        """
        for name, value in (("cron_string", cron_string), ("timezone", timezone)):
            if not isinstance(value, str):
                raise InvalidError(f"Cron({name}={value_text(value)}): must be a string")
        # In a container the module is imported again, and what reads expressions is not there.
        if _container.current() is None:
            _check_cron(cron_string, timezone)
        self.cron_string = cron_string
        self.timezone = timezone

    def record(self) -> Schedule:
        """As a server understands it."""
        from squall.protocol.function import CRON, Schedule  # cold start: only where an app is deployed

        return Schedule(CRON, cron=" ".join(self.cron_string.split()), timezone=self.timezone)

    def __repr__(self) -> str:
        return f"Cron({self.cron_string!r}, timezone={self.timezone!r})"


class Period:
    """Again and again after some time, counted from the deploy: each new deploy begins anew.

    Months and years are those of the calendar: a month after the last of January is the last of February, and after
    that the last of March. Everything else has a fixed length.
    """

    @checked("squall.Period")
    def __init__(
        self,
        *,
        years: int = 0,
        months: int = 0,
        weeks: int = 0,
        days: int = 0,
        hours: int = 0,
        minutes: int = 0,
        seconds: float = 0,
    ) -> None:
        """Raises:
        InvalidError: a value is no integer (`seconds`: no number), or negative; or all of them together are less than a
            second or more than 100 years.
        """
        given = {"years": years, "months": months, "weeks": weeks, "days": days, "hours": hours, "minutes": minutes}
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidError(f"Period({name}={value_text(value)}): must be an integer of at least 0")
            if value > NUMBER_MAX:
                raise InvalidError(f"Period({name}={value_text(value)}): must be at most {YEARS_MAX} years")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= SECONDS_MAX:
            raise InvalidError(f"Period(seconds={value_text(seconds)}): must be a number from 0 to {SECONDS_MAX:,}")
        self._given: dict[str, float] = {**given, "seconds": seconds}
        self._months = 12 * years + months
        self._seconds = sum(given[name] * length for name, length in _SECONDS_OF.items()) + float(seconds)
        if not self._months and self._seconds < 1:
            raise InvalidError(f"{self!r}: must be at least 1 second; give at least one of {', '.join(self._given)}")
        if self._months > 12 * YEARS_MAX or self._seconds > YEARS_MAX * 365 * DAY_S:
            raise InvalidError(f"{self!r}: must be at most {YEARS_MAX} years")

    def record(self) -> Schedule:
        """As a server understands it."""
        from squall.protocol.function import PERIOD, Schedule  # cold start: only where an app is deployed

        return Schedule(PERIOD, months=self._months, seconds=self._seconds)

    def __repr__(self) -> str:
        return f"Period({', '.join(f'{name}={value!r}' for name, value in self._given.items() if value)})"


def _check_cron(cron_string: str, timezone: str) -> None:
    from squall.protocol import cron  # cold start: outside of containers only

    # A machine without a database of time zones knows none: the server looks at them when the app is deployed.
    zone = timezone if cron.has_zones() else cron.UTC
    what = f"Cron(cron_string={value_text(cron_string)}, timezone={value_text(timezone)})"
    if problem := cron.problem(cron_string, zone):
        raise InvalidError(f"{what}: {problem}")
    # Looked for from 1970 on: the calendar has come round to everything since, but for what it never does.
    if cron.first_after(cron_string, cron.UTC, 0.0) is None:
        raise InvalidError(f"{what}: it is never due: there is no such day")


def check_schedulable(name: str, raw_f: Callable[..., Any], *, is_generator: bool) -> None:
    """Raises:
    InvalidError: the function cannot be called by itself.
    """
    if is_generator:
        raise InvalidError(
            f"function {name}: schedule= cannot be used on a generator: nobody takes what it yields; use a function"
            " that calls it"
        )
    if _container.current() is not None:
        return
    import inspect  # cold start: outside of containers only

    parameters = inspect.signature(raw_f).parameters.values()
    wanted = [
        one.name
        for one in parameters
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if wanted:
        raise InvalidError(
            f"function {name}: schedule= needs a function that can be called without arguments: give"
            f" {', '.join(wanted)} a default value, or take {'it' if len(wanted) == 1 else 'them'} away"
        )
