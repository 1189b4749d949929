"""What is kept of calls that ran, for whoever asks later what became of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredFlight:
    """What the outputs of a call do not tell: attempts that failed, and all of a call that was not durable and failed.

    Not kept with a durable call's row: a call that only succeeds has none.
    """

    call_id: str
    function_id: str
    app_id: str
    created_at: float
    """Seconds since 1970."""
    finished_at: float
    is_failed: bool
    summary: str
    """The call's `CallSummary` as JSON."""
    detail: str
    """Its `CallFlight`, likewise; empty in a list."""


@dataclass(frozen=True, slots=True)
class FlightLimits:
    """How much is kept: what is older than `before` goes, then the oldest beyond each number."""

    before: float
    flights_max: int
    detail_bytes_max: int
    inputs_max: int
    input_bytes_max: int


@dataclass(frozen=True, slots=True)
class StoredMinute:
    """A `FunctionMinute` as it is kept."""

    function_id: str
    began_at: float
    detail: str
    base_id: str = ""
    """Of a variant, the function that it is of."""
