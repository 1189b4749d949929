"""Time limits of an attempt and of a start.

First the guest is asked to stop the input, which lets user code clean up. Code that swallows that, or hangs where
nothing can interrupt it, has the grace time and is then ended with its container.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Overdue:
    """What to do with an input that has run since `began_at`."""

    is_cancelled: bool
    """Ask the guest to stop it."""
    is_killed: bool
    """It was asked and did not: end the container."""


def check(now: float, began_at: float, timeout_s: float, asked_at: float | None, grace_s: float) -> Overdue:
    """Whether an attempt is over its time; `asked_at` is when the guest was asked to stop it."""
    if asked_at is not None:
        return Overdue(False, now - asked_at >= grace_s)
    return Overdue(timeout_s > 0 and now - began_at >= timeout_s, False)


def timeout_message(timeout_s: float) -> str:
    """What the caller is told."""
    return f"the input ran longer than its timeout of {timeout_s:g} s; raise timeout=, or do less in one input"


def startup_message(startup_timeout_s: float) -> str:
    """What those who wait for the container are told."""
    return (
        f"the container was not ready within its startup timeout of {startup_timeout_s:g} s; "
        "raise startup_timeout=, or do less when the module is imported"
    )
