"""Reads what a build step prints, by line, within bounds of memory and of log."""

from __future__ import annotations

import collections
from collections.abc import Callable

from squall.agent.image.hidden import Hidden
from squall.agent.image.lines import Lines
from squall.agent.pipes import read_pipe

LINES_MAX = 20_000
"""Lines of one step that are passed on; the last ones are kept for the error in any case."""
LINE_CHARS_MAX = 4_000
_TAIL_LINES = 30


class StepOutput:
    """Splits the output pipes of a step into lines and keeps the last ones.

    Args:
        hidden: left out of every line, also of one that is cut.
    """

    def __init__(self, on_line: Callable[[str], None], hidden: Hidden) -> None:
        self._on_line = on_line
        self._hidden = hidden
        self._passed = 0
        self._dropped = 0
        self._tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)

    async def read(self, descriptor: int) -> None:
        """Read a non-blocking pipe to its end; the caller closes it."""
        lines = Lines(self._add, LINE_CHARS_MAX, self._hidden)
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
