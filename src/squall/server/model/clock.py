"""Time, as it is passed in: to wait for it, to measure with it, to write it down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """It will not; harmless when it has."""


class Clock(Protocol):
    """Two readings and one alarm. The server looks at no other."""

    def now(self) -> float:
        """Seconds since 1970: for people and for what is kept; may jump."""

    def monotonic(self) -> float:
        """Seconds since some moment: for durations; never goes back."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back on the event loop, once, after so many seconds."""
