"""Distributions of times as an SVG picture: one row for each, on one axis by powers of ten.

Written by hand: a library that draws would be the largest thing this command needs. Light and dark pages both show it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from squall.cli.start_report import percentile
from squall.cli.timeline import shown
from squall.protocol.records import record

WIDTH = 760
LEFT = 190
RIGHT = 150
ROW = 34
TOP = 58
FOOT = 34
BINS = 64
STYLE = """
text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:15px;font-weight:600}.soft{fill:#6e7781}
.grid{stroke:#d0d7de;stroke-width:1}.ours{fill:#2f6fde}.peer{fill:#9aa4af}.mid{stroke:#24292f;stroke-width:1.5}
.page{fill:#fff}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#8b949e}.grid{stroke:#30363d}.mid{stroke:#e6edf3}
.page{fill:#0d1117}.ours{fill:#5b96ff}.peer{fill:#6e7681}}
"""


@record
class Series:
    """Times of one kind."""

    name: str
    values_ms: tuple[float, ...]
    is_peer: bool = False
    """Of another program, to compare with."""


def svg(title: str, subtitle: str, series: Sequence[Series]) -> str:
    """The picture; of one series with one value at least."""
    least = max(min(min(one.values_ms) for one in series), 1e-3)
    most = max(least, *(max(one.values_ms) for one in series))
    low, high = math.floor(math.log10(least) * 3) / 3, math.ceil(math.log10(most) * 3) / 3
    axis = _Axis(low, max(high, low + 1 / 3))
    height = TOP + ROW * len(series) + FOOT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="16" y="24">{escape(title)}</text>',
        f'<text class="soft" x="16" y="42">{escape(subtitle)}</text>',
        *axis.lines(TOP, TOP + ROW * len(series)),
    ]
    for number, one in enumerate(series):
        lines += _row(one, axis, TOP + ROW * (number + 1))
    return "\n".join([*lines, "</svg>", ""])


class _Axis:
    """Where a time is, from left to right."""

    def __init__(self, low: float, high: float) -> None:
        """From and to, as powers of ten."""
        self.low = low
        self.high = high

    def at(self, ms: float) -> float:
        """Its x."""
        share = (math.log10(max(ms, 1e-3)) - self.low) / (self.high - self.low)
        return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, share))

    def bin_of(self, ms: float) -> int:
        """Which of `BINS` it falls in."""
        share = (math.log10(max(ms, 1e-3)) - self.low) / (self.high - self.low)
        return min(BINS - 1, max(0, int(share * BINS)))

    def edge(self, number: int) -> float:
        """The x where a bin begins."""
        return LEFT + (WIDTH - LEFT - RIGHT) * number / BINS

    def lines(self, top: float, bottom: float) -> Iterator[str]:
        """The grid: powers of ten, and within few of them also twice and five times each."""
        steps = (1, 2, 5) if self.high - self.low < 3 else (1,)
        for power in range(math.floor(self.low), math.ceil(self.high) + 1):
            for step in steps:
                ms = step * 10.0**power
                if self.low - 1e-9 <= math.log10(ms) <= self.high + 1e-9:
                    x = self.at(ms)
                    yield f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>'
                    yield f'<text class="soft" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{_round(ms)}</text>'


def _round(ms: float) -> str:
    if ms >= 1_000:
        return f"{ms / 1_000:g} s"
    return f"{ms:g} ms" if ms >= 1 else f"{ms * 1_000:g} µs"


def _row(one: Series, axis: _Axis, bottom: float) -> Iterator[str]:
    """The share of times in each bin as an area, the median as a line, and both marks in words."""
    kind = "peer" if one.is_peer else "ours"
    counts = [0] * BINS
    for value in one.values_ms:
        counts[axis.bin_of(value)] += 1
    tallest = max(counts)
    base = bottom - 6
    steps = []
    for number, count in enumerate(counts):
        if count:
            # However few: one that took long is what people look for.
            top = base - max(1.5, (ROW - 10) * count / tallest)
            left, right = axis.edge(number), axis.edge(number + 1)
            steps.append(f"M{left:.1f} {base}V{top:.1f}H{right:.1f}V{base}Z")
    p50, p99 = percentile(one.values_ms, 50), percentile(one.values_ms, 99)
    middle = axis.at(p50)
    yield f'<text x="{LEFT - 12}" y="{base - 4}" text-anchor="end">{escape(one.name)}</text>'
    yield f'<path class="{kind}" d="{"".join(steps)}"/>'
    yield f'<line class="mid" x1="{middle:.1f}" y1="{base + 2}" x2="{middle:.1f}" y2="{base - ROW + 10}"/>'
    late = f'<tspan class="soft" dx="6">· {shown(p99)}</tspan>'
    yield f'<text x="{WIDTH - RIGHT + 12}" y="{base - 4}">{shown(p50)}{late}</text>'
