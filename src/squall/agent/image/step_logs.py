"""What build steps printed, for whoever asks later.

    <data>/image-logs/<build key>.log    the output of the step with this key, when it ran last: an entry a line
    <data>/image-logs/<image id>.steps   the keys of an image's steps, also of one that could not be built

A log stays for as long as a layer of its key is here. Those of failed steps, which have none, stay `LAYERLESS_S`, the
newest `LAYERLESS_MAX` of them. Of much output the first and the last part is kept, and of no line the value of a secret
of the build, also where a step prints what an earlier one was given.
"""

from __future__ import annotations

import collections
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from squall.agent.image.hidden import Hidden
from squall.agent.image.making import LOOK, OnEvent, Secrets, hidden_values
from squall.protocol.errors import PlatformError
from squall.protocol.ids import is_id
from squall.protocol.image import BuildEvent
from squall.protocol.log import STDOUT, SYSTEM, LogEntry

FIRST_BYTES_MAX, LAST_BYTES_MAX = 256 * 2**10, 768 * 2**10
"""Kept of one step's output."""
LAYERLESS_S = 7 * 24 * 3600.0
LAYERLESS_MAX = 200
_KEY = re.compile(r"^[0-9a-f]{64}\Z")


class StepLog:
    """The output of one step, while it runs."""

    def __init__(self, now: Callable[[], float], hidden: Hidden | None = None) -> None:
        self._now = now
        self._hidden = hidden or Hidden()
        self._first: list[LogEntry] = []
        self._first_bytes = 0
        self._last: collections.deque[LogEntry] = collections.deque()
        self._last_bytes = 0
        self._dropped = 0

    def add(self, text: str, source: str = STDOUT) -> None:
        """One more line."""
        text = self._hidden.hide(text)
        entry, size_bytes = LogEntry(self._now(), source, text), len(text.encode("utf-8", "replace"))
        if not self._last and self._first_bytes + size_bytes <= FIRST_BYTES_MAX:
            self._first.append(entry)
            self._first_bytes += size_bytes
            return
        self._last.append(entry)
        self._last_bytes += size_bytes
        while self._last_bytes > LAST_BYTES_MAX:
            self._last_bytes -= len(self._last.popleft().text.encode("utf-8", "replace"))
            self._dropped += 1

    @property
    def entries(self) -> list[LogEntry]:
        """What is kept, in order."""
        gap = [LogEntry(self._first[-1].at, SYSTEM, f"... {self._dropped} lines are not kept")] if self._dropped else []
        return [*self._first, *gap, *self._last]


class StepLogs:
    """The logs of a node's steps."""

    def __init__(self, data_dir: Path, now: Callable[[], float]) -> None:
        self._top = data_dir / "image-logs"
        self._now = now

    def begin(self, image_id: str, keys: Sequence[str]) -> None:
        """A build of this image begins."""
        self._top.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The same for the same image; most builds find it built.
        if not (self._top / f"{image_id}.steps").exists():
            self._write(f"{image_id}.steps", "\n".join(keys))

    @contextmanager
    def keeping(self, key: str, event: BuildEvent, tell: OnEvent, secrets: Secrets) -> Iterator[OnEvent]:
        """While a step runs: gives what to tell instead, and keeps what is told."""
        log = StepLog(self._now, hidden_values(secrets))
        log.add(f"step {event.step} of {event.steps}: {event.text}", SYSTEM)
        began_at = self._now()

        def keep(told: BuildEvent) -> None:
            if told.kind == "line":
                log.add(told.text)
            tell(told)

        try:
            yield keep
        except PlatformError as error:
            # Without the last lines, which come before it, and what to do now.
            log.add(error.message.partition(LOOK)[0].partition("; its last lines:\n")[0], SYSTEM)
            raise
        except BaseException as error:
            log.add(f"ended: {error or type(error).__name__}", SYSTEM)
            raise
        else:
            log.add(f"done in {self._now() - began_at:.1f} s", SYSTEM)
        finally:
            lines = (json.dumps([entry.at, entry.source, entry.text]) for entry in log.entries)
            self._write(f"{key}.log", "\n".join(lines))

    def read(self, image_id: str, layers: int = 0, tail: int = -1) -> list[LogEntry] | None:
        """What the steps of an image printed; None when nothing is known of it.

        Args:
            layers: of the last so many steps that ran; 0 for all.
            tail: the last so many entries; -1 for all.
        """
        if not is_id(image_id, "im"):
            return None
        try:
            keys = (self._top / f"{image_id}.steps").read_text().split()
        except FileNotFoundError:
            return None
        logs = [log for key in keys if _KEY.match(key) and (log := self._read(key))]
        entries = [entry for log in (logs[-layers:] if layers > 0 else logs) for entry in log]
        return entries if tail < 0 else entries[max(0, len(entries) - tail) :]

    def _read(self, key: str) -> list[LogEntry]:
        try:
            lines = (self._top / f"{key}.log").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [LogEntry(*json.loads(line)) for line in lines]

    def tidy(self, has_layer: Callable[[str], bool]) -> None:
        """Remove what is not worth its place any more. Blocks."""
        if not self._top.is_dir():
            return
        layerless = [path for path in self._top.glob("*.log") if not has_layer(path.stem)]
        self._remove_old(layerless)
        kept = {path.stem for path in self._top.glob("*.log")}
        self._remove_old(
            [path for path in self._top.glob("im-*.steps") if not kept.intersection(path.read_text().split())]
        )

    def _remove_old(self, paths: Sequence[Path]) -> None:
        newest_first = sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)
        for number, path in enumerate(newest_first):
            if number >= LAYERLESS_MAX or self._now() - path.stat().st_mtime > LAYERLESS_S:
                path.unlink(missing_ok=True)

    def _write(self, name: str, text: str) -> None:
        new = self._top / f".{name}.{token_hex(4)}"
        new.write_text(text)
        os.rename(new, self._top / name)
