"""Lines out of what a program prints, cut to a length and without the values of secrets."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from squall.agent.image.hidden import Hidden


class Lines:
    """Lines out of chunks of bytes; long ones are cut, a carriage return starts one over as on a terminal.

    Args:
        chars_max: of a line, not counting what stands for a value that is hidden.
    """

    def __init__(self, on_line: Callable[[str], None], chars_max: int, hidden: Hidden) -> None:
        self._on_line = on_line
        self._chars_max = chars_max
        self._hidden = hidden
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, chunk: bytes) -> None:
        """Take a chunk."""
        self._add(self._decoder.decode(chunk))

    def end(self) -> None:
        """No more comes: what is left is a line, too."""
        self._add(self._decoder.decode(b"", final=True))
        if self._rest:
            self._pass_on(self._rest)
            self._rest = ""

    def _add(self, text: str) -> None:
        *whole, rest = (self._rest + text).split("\n")
        for line in whole:
            self._pass_on(line)
        # A carriage return at the end may be the first half of the end of a line.
        begun = rest.rstrip("\r")
        # So much more that a value that begins in what is shown is there to its end.
        kept = begun.rpartition("\r")[2][: self._chars_max + self._hidden.chars_max]
        self._rest = kept if begun == rest else kept + "\r"

    def _pass_on(self, line: str) -> None:
        self._on_line(self._hidden.hide(line.rstrip("\r").rpartition("\r")[2], self._chars_max))
