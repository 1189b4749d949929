"""Reads what a build step prints, by line, within bounds of memory and of log."""

from __future__ import annotations

import codecs
import collections
from collections.abc import Callable

from squall.agent.pipes import read_pipe

LINES_MAX = 20_000
"""Lines of one step that are passed on; the last ones are kept for the error in any case."""
LINE_CHARS_MAX = 4_000
_TAIL_LINES = 30


class StepOutput:
    """Splits the output pipes of a step into lines and keeps the last ones."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._passed = 0
        self._dropped = 0
        self._tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)

    async def read(self, descriptor: int) -> None:
        """Read a non-blocking pipe to its end; the caller closes it."""
        lines = _Lines(self._add)
        await read_pipe(descriptor, lines.feed)
        lines.end()

    def finish(self) -> None:
        """Say how many lines were not passed on, if any."""
        if self._dropped:
            self._on_line(f"... dropped {self._dropped} lines")

    @property
    def tail(self) -> str:
        """The last lines."""
        return "\n".join(self._tail)

    def _add(self, line: str) -> None:
        self._tail.append(line)
        if self._passed < LINES_MAX:
            self._passed += 1
            self._on_line(line)
        else:
            self._dropped += 1


class _Lines:
    """Lines out of chunks of bytes; long ones are cut, a carriage return starts one over as on a terminal."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, chunk: bytes) -> None:
        """Take a chunk."""
        self._add(self._decoder.decode(chunk))

    def end(self) -> None:
        """No more comes: what is left is a line, too."""
        self._add(self._decoder.decode(b"", final=True))
        if self._rest:
            self._on_line(self._rest)
            self._rest = ""

    def _add(self, text: str) -> None:
        *whole, rest = (self._rest + text).split("\n")
        self._rest = rest[:LINE_CHARS_MAX]
        for line in whole:
            self._on_line(line.rstrip("\r").rpartition("\r")[2][:LINE_CHARS_MAX])
