"""How far a transfer is: a line that is drawn again on a terminal, and nothing elsewhere."""

from __future__ import annotations

import shutil
import sys
import time

import click

from squall.sdk._terminal_text import is_terminal, size_text

EVERY_S = 0.1
BAR_COLUMNS = 24


class Progress:
    """Use it as a context manager; what it drew is gone when it ends."""

    def __init__(self, what: str, total_bytes: int) -> None:
        """`total_bytes` is 0 where nobody knows."""
        self._what = what
        self.total_bytes = total_bytes
        self.done_bytes = 0
        self._is_shown = is_terminal(sys.stderr)
        self._began_at = self._drawn_at = time.monotonic()
        self._skipped_bytes = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._is_shown:
            click.echo("\r\x1b[K", nl=False, err=True)

    def add(self, count_bytes: int) -> None:
        """So many more are there."""
        self.done_bytes += count_bytes
        now = time.monotonic()
        if self._is_shown and now - self._drawn_at >= EVERY_S:
            self._drawn_at = now
            click.echo("\r" + self.line(now)[: shutil.get_terminal_size().columns - 1] + "\x1b[K", nl=False, err=True)

    def skip(self, count_bytes: int) -> None:
        """So many were there before: they say nothing of the speed."""
        self._skipped_bytes += count_bytes
        self.add(count_bytes)

    def line(self, now: float) -> str:
        """What is drawn at that time."""
        rate = (self.done_bytes - self._skipped_bytes) / max(0.001, now - self._began_at)
        speed = f"{size_text(int(rate))}/s"
        if not self.total_bytes:
            return f"{self._what}  {size_text(self.done_bytes)}  {speed}"
        part = min(1.0, self.done_bytes / self.total_bytes)
        bar = "█" * int(part * BAR_COLUMNS)
        of = f"{size_text(self.done_bytes)} of {size_text(self.total_bytes)}"
        return f"{self._what}  {bar:░<{BAR_COLUMNS}} {part:4.0%}  {of}  {speed}"
