"""Lines of one output that have no end yet: their pieces as they come, and what has been told of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from squall.protocol.log import LINE_BYTES_MAX, visible

LINES_MAX = 64
"""More begin only where others are given an end: by as many inputs or threads at once."""
STANDING_S = 10.0
"""How often what is there is told to those who see whole lines only."""


@dataclass(slots=True)
class Line:
    """One that goes on."""

    text: bytes
    said_at: float
    is_shown: bool = False
    """Told to terminals."""
    is_said: bool = False
    """Told to all."""


class Unfinished:
    """By label; at most `LINES_MAX`, each at most a line long."""

    def __init__(self) -> None:
        self._lines: dict[bytes, Line] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._lines)

    def __iter__(self) -> Iterator[tuple[bytes, Line]]:
        """In the order in which they began."""
        return iter(list(self._lines.items()))

    def add(self, label: bytes, piece: bytes, now: float) -> list[tuple[bytes, bytes]]:
        """A piece came; returns lines that end now because there are too many, or because they are too long."""
        line = self._lines.pop(label, None) or Line(b"", now)
        text = visible(line.text + piece, has_more=True)
        ended = []
        if len(text) > LINE_BYTES_MAX:
            ended.append((label, line.text))
            line, text = Line(b"", now), piece
        self._lines[label] = Line(text, line.said_at)
        while len(self._lines) > LINES_MAX:
            oldest = next(iter(self._lines))
            ended.append((oldest, self._lines.pop(oldest).text))
        return ended

    def end(self, label: bytes) -> bytes:
        """What there is of a line whose last piece came; empty if nothing is."""
        line = self._lines.pop(label, None)
        return line.text if line is not None else b""
