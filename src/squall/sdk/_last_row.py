"""The last row of a terminal: what is there until a line comes, such as text that goes on, or how far something is."""

from __future__ import annotations

from typing import IO

from squall.sdk._terminal_text import harmless


class LastRow:
    """One row, drawn over again and again. Whoever writes a line clears it before."""

    def __init__(self) -> None:
        self._stream: IO[str] | None = None

    def draw_end(self, stream: IO[str], text: str) -> None:
        """Text of a container, of which the end is shown where it is too long."""
        # A row only: what has wrapped cannot be taken back.
        shown, columns = harmless(text).replace("\t", " "), _columns() - 1
        self._draw(stream, shown, shown if len(shown) <= columns else "…" + shown[len(shown) - columns + 1 :])

    def draw_dim(self, stream: IO[str], text: str) -> None:
        """Text of our own, of which the beginning is shown."""
        self._draw(stream, text, f"\x1b[2m{text[: _columns() - 1]}\x1b[0m")

    def _draw(self, stream: IO[str], text: str, shown: str) -> None:
        self.clear()
        if text:
            self._stream = stream
            write(stream, f"{shown}\r")

    def clear(self) -> None:
        """Nothing is there any more."""
        stream, self._stream = self._stream, None
        if stream is not None:
            write(stream, "\x1b[2K\r")


def _columns() -> int:
    import shutil  # cold start: only for a terminal

    return shutil.get_terminal_size().columns


def write(stream: IO[str], text: str) -> None:
    """Write it at once, if anybody reads it still."""
    try:
        stream.write(text)
        stream.flush()
    except (AttributeError, OSError, ValueError):
        return  # nobody reads, or does any more; the run goes on
