"""The table of events: everything that can go wrong with an attempt or a start, and what may be answered."""

from __future__ import annotations

from dataclasses import dataclass

from squall.protocol.call import Failure
from squall.protocol.function import RetryPolicy


@dataclass(frozen=True, slots=True)
class Retry:
    """Queue the input again after a delay, as a new attempt. `is_counted`: against the user's retries."""

    delay_s: float
    is_counted: bool
    is_suspect: bool = False
    """It may have ended its container: let it run alone, so that the next crash names its input."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The input ends with this failure, or with the attempt's own output when None."""

    failure: Failure | None = None


Verdict = Retry | Fail


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The user's function raised, or its time was up."""

    retries: RetryPolicy
    retries_used: int
    kind: str
    """A `Failure.kind`; `user` and `timed_out` are the retryable ones."""


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """The container ended while it held the input."""

    retries: RetryPolicy
    retries_used: int
    losses: int
    """How often that happened to this input before."""
    has_crashed: bool
    """The process ended by itself; else a node was lost, or we ended it for another input's sake."""
    is_oom: bool
    is_only_input: bool
    """No other input was in the container, so it was this one."""
    is_repeatable: bool
    """Nobody has seen anything of it yet; a generator whose items were passed on cannot begin again."""
    ending: str
    """How the container ended, in words."""
    container_id: str
    crashes: int = 0
    """How many containers have ended by themselves under this input alone, before this one."""
    shared_crashes: int = 0
    """How many did that held other inputs, too."""
    index: int | None = None
    """Which input of its call it is; None where there is only one."""
    over_disk: str = ""
    """It was ended for what it wrote: why, and what to do, in words."""
    is_request: bool = False
    """It is not repeatable, as what it does is its client's to do again."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """A container ended, or could not be started, before its function was loaded."""

    failure: Failure
    is_final: bool
    """Doing it again would end the same way: an import error, a missing image."""
    failures_in_a_row: int
    """Starts of this function that failed since the last one that went well, this one included."""
    ready_containers: int
    """Other containers of the function that did start."""
    is_patient: bool = False
    """Its app goes on until somebody stops it, whether anybody looks or not, and nobody measures its starts."""


class Policy:
    """Something with an opinion on some events; None leaves the event to the next policy."""

    def attempt_failed(self, event: AttemptFailed) -> Verdict | None:
        """Retry or fail?"""
        return None

    def attempt_lost(self, event: AttemptLost) -> Verdict | None:
        """Retry or fail?"""
        return None

    def start_failed(self, event: StartFailed) -> Fail | None:
        """Fail all that waits for a container of the function, or keep trying (None)?"""
        return None
