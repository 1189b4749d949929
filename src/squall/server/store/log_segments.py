"""The files of the log store: per app a folder of segments, numbered over all apps by age.

    <folder>/<app_id>/<number>.log      one JSON object a line

Written by one thread. Read by others at the same time: a file only grows, and one that vanishes under a reader has been
evicted, which reads as if it had been before.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import msgspec

from squall.protocol.log import LogEntry, LogRead
from squall.protocol.log_batches import batches
from squall.protocol.records import replace

SEGMENT_BYTES_MAX = 8 * 2**20
SEGMENTS_OF_BUDGET = 16
BLOCK_BYTES = 256 * 1024

Marks = dict[str, tuple[int, int]]
"""App to the number of its last segment and the bytes of that, at one moment."""

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}\Z")


class NotWritten(Exception):
    """The disk takes no more; caused by what it says."""

    def __init__(self, entries: list[LogEntry]) -> None:
        super().__init__(f"{len(entries)} lines could not be written")
        self.entries = entries
        """Those of which nothing is in the files."""


class Segments:
    """Appends to, reads and evicts segments."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._segment_bytes_max = max(1, min(SEGMENT_BYTES_MAX, bytes_max // SEGMENTS_OF_BUDGET))
        self._sizes: dict[int, tuple[str, int]] = {}
        """Number to app and bytes; in order of age."""
        self._current: dict[str, int] = {}
        self._next_number = 1
        self._total_bytes = 0
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(LogEntry)

    # On the writing thread

    def open(self) -> None:
        """Find what earlier processes left. Each process begins segments of its own: a crash may have cut a line."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = sorted((int(path.stem), path) for path in self._folder.glob("*/*.log") if path.stem.isdigit())
        for number, path in found:
            size = path.stat().st_size
            self._sizes[number] = (path.parent.name, size)
            self._total_bytes += size
        self._next_number = found[-1][0] + 1 if found else 1
        self._evict()

    def write(self, entries: list[LogEntry]) -> None:
        """Append lines to their apps' segments, then evict.

        Raises:
            NotWritten: of some apps; the lines of each are written all or not at all.
        """
        by_app: dict[str, list[LogEntry]] = {}
        for entry in entries:
            by_app.setdefault(folder_name(entry.app_id), []).append(entry)
        left: list[LogEntry] = []
        cause: OSError | None = None
        for app, lines in by_app.items():
            try:
                self._append(app, self._encode(lines))
            except OSError as error:
                left += lines
                cause = error
        try:
            self._evict()
        except OSError as error:
            cause = error
        if cause is not None:
            raise NotWritten(left) from cause

    def marks(self) -> Marks:
        """Where every app's lines end now."""
        ends: Marks = {}
        for number, (app, size) in self._sizes.items():
            ends[app] = (number, size)
        return ends

    def delete(self, app_id: str) -> None:
        """Delete an app's segments."""
        app = folder_name(app_id)
        for number in [number for number, (owner, _) in self._sizes.items() if owner == app]:
            self._remove(number)

    def _encode(self, entries: list[LogEntry]) -> bytes:
        try:
            return self._encoder.encode_lines(entries)
        except UnicodeEncodeError:
            # Half a surrogate pair in one of them: what cannot be written as UTF-8 is written as a question mark.
            return b"".join(self._encoder.encode(_printable(entry)) + b"\n" for entry in entries)

    def _append(self, app: str, data: bytes) -> None:
        number = self._current.get(app)
        if number is None or number not in self._sizes or self._sizes[number][1] >= self._segment_bytes_max:
            # First, for it may fail: a segment that is known has a folder.
            (self._folder / app).mkdir(exist_ok=True)
            number = self._next_number
            self._next_number += 1
            self._current[app] = number
            self._sizes[number] = (app, 0)
        size = self._sizes[number][1]
        # No buffer: what it could not write it would try to write again before the file is cut.
        with self._path(app, number).open("ab", buffering=0) as file:
            try:
                _write_all(file, data)
            except OSError:
                # Whole lines only: readers would take half a line for a broken one. Where even that is refused, nothing
                # is written behind it.
                del self._current[app]
                file.truncate(size)
                self._current[app] = number
                raise
        self._sizes[number] = (app, size + len(data))
        self._total_bytes += len(data)

    def _evict(self) -> None:
        while self._total_bytes > self._bytes_max and len(self._sizes) > 1:
            self._remove(next(iter(self._sizes)))

    def _remove(self, number: int) -> None:
        app, size = self._sizes.pop(number)
        self._total_bytes -= size
        self._path(app, number).unlink(missing_ok=True)
        if not any(owner == app for owner, _ in self._sizes.values()):
            self._current.pop(app, None)
            self._remove_folder(app)

    def _remove_folder(self, app: str) -> None:
        try:
            (self._folder / app).rmdir()
        except OSError:
            return  # something else is in it, and nothing of ours

    def _path(self, app: str, number: int) -> Path:
        return self._folder / app / f"{number:010}.log"

    # On reading threads

    def read(
        self, query: LogRead, is_wanted: Callable[[LogEntry], bool], marks: Marks
    ) -> Iterator[tuple[LogEntry, ...]]:
        """Lines up to `marks`, in order, in batches: all wanted ones, or the last `query.tail`."""
        apps = [folder_name(query.app)] if query.app else sorted(marks)
        found = (
            entry
            for app in apps
            if app in marks
            for entry in self._wanted(query, is_wanted, app, marks[app], is_backward=query.tail >= 0)
        )
        if query.tail >= 0:
            last: deque[LogEntry] = deque()
            while len(last) < query.tail and (entry := next(found, None)) is not None:
                last.appendleft(entry)
            found = (entry for entry in last)
        yield from batches(found)

    def _wanted(
        self,
        query: LogRead,
        is_wanted: Callable[[LogEntry], bool],
        app: str,
        end: tuple[int, int],
        *,
        is_backward: bool,
    ) -> Iterator[LogEntry]:
        needle = query.container_id.encode()
        numbers = sorted(int(path.stem) for path in (self._folder / app).glob("*.log") if path.stem.isdigit())
        for number in reversed(numbers) if is_backward else numbers:
            if number > end[0]:
                continue
            stop = end[1] if number == end[0] else None
            lines = _lines_backward if is_backward else _lines_forward
            for line in lines(self._path(app, number), stop):
                # Without this, one container of a big app would cost the decoding of every line.
                if needle and needle not in line:
                    continue
                try:
                    entry = self._decoder.decode(line)
                except msgspec.DecodeError:
                    continue  # cut by a crash
                if is_wanted(entry):
                    yield entry


def folder_name(app_id: str) -> str:
    """The folder of an app's lines; lines without a proper app share one."""
    return app_id if _SAFE_NAME.match(app_id) else "other"


def _printable(entry: LogEntry) -> LogEntry:
    return replace(entry, text=entry.text.encode("utf-8", "replace").decode())


def _write_all(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _lines_forward(path: Path, stop: int | None) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            left = path.stat().st_size if stop is None else stop
            for line in file:
                left -= len(line)
                if left < 0:
                    return
                yield line
    except FileNotFoundError:
        return


def _lines_backward(path: Path, stop: int | None) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            position = path.stat().st_size if stop is None else stop
            rest = b""
            while position > 0:
                size = min(BLOCK_BYTES, position)
                position -= size
                file.seek(position)
                first, *lines = (file.read(size) + rest).split(b"\n")
                yield from (line for line in reversed(lines) if line)
                rest = first
            if rest:
                yield rest
    except FileNotFoundError:
        return
