"""Bars on a terminal: where the time of inputs and of container starts went."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from squall.protocol.records import record

BAR_COLUMNS = 40


@record
class Span:
    """One stretch of time, in milliseconds, drawn with one of `MARKS`."""

    kind: str
    begin_ms: float
    end_ms: float


_MARKS = {"queue": "·", "start": "▒", "run": "█", "delay": " ", "failed": "▓"}
_PLAIN_MARKS = {"queue": ".", "start": "-", "run": "#", "delay": " ", "failed": "x"}


def marks() -> dict[str, str]:
    """What each kind is drawn with, on this output."""
    try:
        "".join(_MARKS.values()).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _PLAIN_MARKS
    return _MARKS


def bar(spans: Sequence[Span], whole_ms: float, columns: int = BAR_COLUMNS) -> str:
    """The spans on a line that stands for `whole_ms`; a span that is not nothing is at least one column."""
    drawn, mark = [" "] * columns, marks()
    scale = columns / whole_ms if whole_ms > 0 else 0.0
    for span in spans:
        if span.end_ms <= span.begin_ms:
            continue
        begin = min(columns - 1, max(0, int(span.begin_ms * scale)))
        end = min(columns, max(begin + 1, round(span.end_ms * scale)))
        drawn[begin:end] = [mark[span.kind]] * (end - begin)
    return "".join(drawn)


def shown(ms: float | None) -> str:
    """A duration for people."""
    if ms is None:
        return "-"
    if ms >= 120_000:
        return f"{ms / 60_000:.1f} min"
    if ms >= 1_000:
        return f"{ms / 1000:.2f} s"
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"
