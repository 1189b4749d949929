"""What a function did in about a minute: counts, and how long things took as bounded histograms.

A histogram has eight steps to each doubling, so a percentile is right to about 5 %; it has at most some 400 counts,
whatever is put into it. Of many values only some are put, each counting for several (`add_all`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SAMPLES_MAX = 1_000
"""Values of one `add_all` that are looked at."""
_STEP_BITS = 3
VALUE_MAX = 2**53

Histogram = dict[int, int]
"""Step to count."""


def step_of(value: int) -> int:
    """The step of a histogram that a value, in microseconds, belongs to."""
    value = min(max(0, value), VALUE_MAX)
    shift = value.bit_length() - _STEP_BITS - 1
    return value if shift <= 0 else (shift << _STEP_BITS) + (value >> shift)


def middle_of(step: int) -> float:
    """The value in the middle of a step."""
    shift = (step >> _STEP_BITS) - 1
    if shift <= 0:
        return float(step)
    return ((step - (shift << _STEP_BITS)) + 0.5) * 2.0**shift


def add_all(histogram: Histogram, values: Sequence[int], weight: int = 1) -> None:
    """Put values in; of more than `SAMPLES_MAX` every second, third, ... stands for those it was taken from."""
    stride = -(-len(values) // SAMPLES_MAX)
    for value in values[::stride] if stride > 1 else values:
        step = step_of(value)
        histogram[step] = histogram.get(step, 0) + stride * weight


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """All of them as one."""
    merged: Histogram = {}
    for histogram in histograms:
        for step, count in histogram.items():
            merged[step] = merged.get(step, 0) + count
    return merged


def percentiles(histogram: Histogram, wanted: Sequence[float]) -> tuple[float, ...]:
    """The values at these percentiles, in microseconds; none of an empty histogram."""
    total = sum(histogram.values())
    if not total:
        return ()
    found: list[float] = []
    steps = sorted(histogram)
    for percentile in wanted:
        left = max(1.0, total * percentile / 100)
        value = 0.0
        for step in steps:
            value = middle_of(step)
            left -= histogram[step]
            if left <= 0:
                break
        found.append(value)
    return tuple(found)


@dataclass(slots=True)
class FunctionMinute:
    """Counted up while it lasts; then it is kept."""

    function_id: str
    began_at: float
    """Seconds since 1970; no two of a function begin at one time."""
    base_id: str = ""
    """Of a variant, the function that it is of."""
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    started: int = 0
    container_errors: int = 0
    containers: int = 0
    """When it began."""
    running: int = 0
    """Inputs, when it was looked at last; likewise the containers that start."""
    starting: int = 0
    queue_us: Histogram = field(default_factory=dict)
    run_us: Histogram = field(default_factory=dict)
    start_us: Histogram = field(default_factory=dict)
    paths: dict[str, int] = field(default_factory=dict)
    """Of the containers that started, how many took which path; what is not known is left out."""
    statuses: dict[int, int] = field(default_factory=dict)
    """Of a server: how many of its clients were answered with which status of HTTP."""

    def encoded(self) -> str:
        """As compact JSON; `decoded` reads it."""
        values = {name: getattr(self, name) for name in _COUNTS if getattr(self, name)}
        for name in _HISTOGRAMS:
            if histogram := getattr(self, name):
                values[name] = [number for pair in sorted(histogram.items()) for number in pair]
        if self.paths:
            values["paths"] = self.paths
        if self.statuses:
            values["statuses"] = {str(status): count for status, count in sorted(self.statuses.items())}
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def decoded(cls, function_id: str, began_at: float, text: str, base_id: str = "") -> FunctionMinute:
        """The minute that `encoded` wrote."""
        values = json.loads(text)
        minute = cls(function_id, began_at, base_id)
        for name in _COUNTS:
            setattr(minute, name, int(values.get(name, 0)))
        for name in _HISTOGRAMS:
            numbers = values.get(name, ())
            setattr(minute, name, dict(zip(numbers[::2], numbers[1::2], strict=True)))
        minute.paths = {str(path): int(count) for path, count in values.get("paths", {}).items()}
        minute.statuses = {int(status): int(count) for status, count in values.get("statuses", {}).items()}
        return minute


_COUNTS = (
    "succeeded", "failed", "timed_out", "cancelled", "started", "container_errors", "containers", "running", "starting",
)  # fmt: skip
_HISTOGRAMS = ("queue_us", "run_us", "start_us")
