"""`sys.stdout` and `sys.stderr` of user code: each line says which input printed it.

Lines leave as they end, each with the mark of `protocol.log` in one write, so that lines of several threads do not
mix and nothing is lost when the process dies. What is flushed before its line ends leaves as a piece of that line, and
so does what a carriage return lets others write over: progress bars.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterable

from squall.protocol.log import GOES_ON, LINE_BYTES_MAX, MARK, NO_INPUT, SEPARATOR, visible


class MarkedStream(io.TextIOBase):
    """A text stream over a descriptor, line by line, marked with the input that prints."""

    def __init__(self, descriptor: int, name: str, current_input_id: Callable[[], str | None]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._current_input_id = current_input_id
        self._partial: dict[str | threading.Thread, str] = {}
        """What has not left of a line; by input, of threads that run none, by thread."""
        self._begun: set[str | threading.Thread] = set()
        """Of these a piece of their line has left."""
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

    @property
    def line_buffering(self) -> bool:
        """Lines leave as they end."""
        return True

    @property
    def write_through(self) -> bool:
        """What is no line yet waits."""
        return False

    def reconfigure(
        self,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        line_buffering: bool | None = None,
        write_through: bool | None = None,
    ) -> None:
        """Of a plain text stream; how lines leave here cannot be changed, and is what most ask for.

        Raises:
            UnsupportedOperation: (of `io`) another encoding than UTF-8.
        """
        if encoding is not None and encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
            raise io.UnsupportedOperation(f"output of a function is UTF-8; encoding={encoding!r} cannot be had")

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
        """Write whole lines now; keep the rest until it is flushed or its line ends."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        input_id = self._current_input_id() or ""
        key = input_id or threading.current_thread()
        with self._lock:
            whole = self._partial.pop(key, "") + text
            is_progress = "\r" in whole
            if is_progress:
                whole = whole.replace("\r\n", "\n")
            *lines, rest = whole.split("\n")
            if len(rest) > LINE_BYTES_MAX:
                *pieces, rest = [rest[at : at + LINE_BYTES_MAX] for at in range(0, len(rest), LINE_BYTES_MAX)]
                lines += pieces
            if rest:
                self._partial[key] = rest
            if lines:
                self._emit(key, lines)
            if is_progress and rest:
                self._emit_piece(key)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        """Write each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Let go what is there of a line that this input, or this thread, has not ended."""
        if self._partial:
            with self._lock:
                self._emit_piece(self._current_input_id() or threading.current_thread())

    def end_input(self, input_id: str) -> None:
        """Write what is left without an end of line: by the input, by this thread, by threads that have ended."""
        if self._partial or self._begun:
            here = threading.current_thread()
            with self._lock:
                for key in [*self._partial, *(self._begun - self._partial.keys())]:
                    if key == input_id or key is here or (isinstance(key, threading.Thread) and not key.is_alive()):
                        self._emit(key, [self._partial.pop(key, "")])

    def forked(self) -> None:
        """This is a child now: a thread that its parent has may have been writing, and will not let go of the lock."""
        self._lock = threading.RLock()
        # Its parent's, who goes on with them.
        self._begun = set()

    def end(self) -> None:
        """Write all that is left without an end of line: the process ends."""
        with self._lock:
            for key in [*self._partial, *(self._begun - self._partial.keys())]:
                self._emit(key, [self._partial.pop(key, "")])

    def _emit(self, key: str | threading.Thread, lines: list[str]) -> None:
        mark = _mark(key) if key in self._begun or isinstance(key, str) else b""
        for line in lines:
            data = line.encode("utf-8", "backslashreplace")
            if key in self._begun:
                self._begun.discard(key)
                self._write(mark, data)
                mark = mark if isinstance(key, str) else b""
            else:
                self._write(mark, visible(data))

    def _emit_piece(self, key: str | threading.Thread) -> None:
        rest = self._partial.pop(key, "")
        if rest:
            self._begun.add(key)
            self._write(_mark(key, GOES_ON), rest.encode("utf-8", "backslashreplace"))

    def _write(self, mark: bytes, data: bytes) -> None:
        for start in range(0, len(data) or 1, LINE_BYTES_MAX):
            _write_all(self._descriptor, mark + data[start : start + LINE_BYTES_MAX] + b"\n")


def _mark(key: str | threading.Thread, prefix: bytes = b"") -> bytes:
    label = key.encode() if isinstance(key, str) else b"%s%d" % (NO_INPUT, key.ident or 0)
    return MARK + prefix + label + SEPARATOR


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
