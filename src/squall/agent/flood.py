"""What comes of an output faster than may be kept: it is counted, and its end is kept.

The end of a flood is what its reader wants: the result, or what went wrong.
"""

from __future__ import annotations

END_BYTES_MAX = 64 * 1024
END_LINES_MAX = 1_000


class Flood:
    """Bytes of one output, from the first that may not be kept on."""

    def __init__(self, beginning: bytes) -> None:
        """`beginning`: of a line, that has been read and not been kept."""
        self._end = beginning
        self._line_count = 0
        self._is_cut = False
        self._has_grown = True

    @property
    def is_whole(self) -> bool:
        """Whether nothing has been left out until now."""
        return not self._is_cut and self._line_count <= END_LINES_MAX

    def add(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._line_count += chunk.count(b"\n")
        self._is_cut = self._is_cut or len(self._end) + len(chunk) > END_BYTES_MAX
        self._end = (self._end + chunk if len(chunk) < END_BYTES_MAX else chunk)[-END_BYTES_MAX:]
        self._has_grown = True

    def is_quiet(self) -> bool:
        """Whether nothing came since this was last asked."""
        has_grown, self._has_grown = self._has_grown, False
        return not has_grown

    def end(self) -> tuple[int, bytes]:
        """How many lines are left out, and what comes after them: the beginning of a line, if any are."""
        lines = self._end.split(b"\n")
        # The first of them began before what was kept; one that is all there is is shown as far as it is there.
        first = 1 if self._is_cut and len(lines) > 1 else 0
        first = max(first, len(lines) - 1 - END_LINES_MAX)
        kept = lines[first:]
        left_out = self._line_count - (len(kept) - 1)
        return left_out + (self._is_cut and first == 0), b"\n".join(kept)
