"""How often, and how soon, a failed input is tried again."""

from __future__ import annotations

from squall.exception import InvalidError
from squall.protocol.limits import RETRIES_MAX
from squall.sdk._parameters import checked
from squall.sdk._value_text import value_text


class Retries:
    """Extra attempts of an input that failed by the user's exception, a timeout or a crash.

    The k-th retry waits `initial_delay * backoff_coefficient ** (k - 1)` seconds, at most `max_delay`.
    """

    @checked("squall.Retries")
    def __init__(
        self,
        *,
        max_retries: int,
        backoff_coefficient: float = 2.0,
        initial_delay: float = 1.0,
        max_delay: float = 60.0,
    ) -> None:
        """Raises:
        InvalidError: a value is out of its range; the message names both.
        """
        if not isinstance(max_retries, int) or isinstance(max_retries, bool) or not 0 <= max_retries <= RETRIES_MAX:
            raise InvalidError(
                f"Retries(max_retries={value_text(max_retries)}): must be an integer from 0 to {RETRIES_MAX}"
            )
        _check("backoff_coefficient", backoff_coefficient, 1.0, 10.0)
        _check("initial_delay", initial_delay, 0.0, 60.0)
        _check("max_delay", max_delay, 1.0, 60.0)
        self.max_retries = max_retries
        self.backoff_coefficient = float(backoff_coefficient)
        self.initial_delay = float(initial_delay)
        self.max_delay = float(max_delay)

    def __repr__(self) -> str:
        return (
            f"Retries(max_retries={self.max_retries}, backoff_coefficient={self.backoff_coefficient}, "
            f"initial_delay={self.initial_delay}, max_delay={self.max_delay})"
        )


def _check(name: str, value: float, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise InvalidError(f"Retries({name}={value_text(value)}): must be from {least:g} to {most:g}")
