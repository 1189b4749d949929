"""`sys.stdout` and `sys.stderr` of user code: each line says which input printed it.

Lines leave as they end, each with the mark of `protocol.log` in one write, so that lines of several threads do not
mix and nothing is lost when the process dies. A carriage return ends a line too: progress bars become lines.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterable

from squall.protocol.log import LINE_BYTES_MAX, MARK, SEPARATOR


class MarkedStream(io.TextIOBase):
    """A text stream over a descriptor, line by line, marked with the input that prints."""

    def __init__(self, descriptor: int, name: str, current_input_id: Callable[[], str | None]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._current_input_id = current_input_id
        self._partial: dict[str, str] = {}
        self._lock = threading.RLock()
        self.name = name
        self.mode = "w"

    # RET: the names and results are those of io.TextIOBase.

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Always UTF-8."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What cannot be encoded is written as an escape."""
        return "backslashreplace"

    @property
    def buffer(self) -> io.BufferedWriter:
        """The bare descriptor, without marks, for programs that write bytes."""
        return io.BufferedWriter(_Descriptor(self._descriptor))

    def fileno(self) -> int:
        """The descriptor, for subprocesses."""
        return self._descriptor

    def writable(self) -> bool:
        """Yes."""
        return True

    def isatty(self) -> bool:
        """Never a terminal."""
        return False

    def write(self, text: str) -> int:
        """Write whole lines now; keep the rest until its line ends."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        input_id = self._current_input_id() or ""
        with self._lock:
            whole = self._partial.pop(input_id, "") + text
            if "\r" in whole:
                whole = whole.replace("\r\n", "\n").replace("\r", "\n")
            *lines, rest = whole.split("\n")
            while len(rest) > LINE_BYTES_MAX:
                lines.append(rest[:LINE_BYTES_MAX])
                rest = rest[LINE_BYTES_MAX:]
            if rest:
                self._partial[input_id] = rest
            self._emit(input_id, lines)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        """Write each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Lines leave as they end; there is nothing to flush."""

    def end_input(self, input_id: str) -> None:
        """Write what an input left without an end of line."""
        if self._partial:
            with self._lock:
                rest = self._partial.pop(input_id, "")
                if rest:
                    self._emit(input_id, [rest])

    def _emit(self, input_id: str, lines: list[str]) -> None:
        mark = MARK + input_id.encode() + SEPARATOR if input_id else b""
        for line in lines:
            data = line.encode("utf-8", "backslashreplace")
            for start in range(0, len(data) or 1, LINE_BYTES_MAX):
                _write_all(self._descriptor, mark + data[start : start + LINE_BYTES_MAX] + b"\n")


class _Descriptor(io.RawIOBase):
    """Raw bytes to a descriptor that is not ours to close."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        _write_all(self._descriptor, view.tobytes())
        return view.nbytes


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        written = os.write(descriptor, data)
        data = data[written:]
