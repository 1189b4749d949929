"""Log lines, and how a line says which input printed it.

A container's stdout and stderr are plain pipes. The guest's own `sys.stdout` puts a mark before each line:

    0x1e input-id 0x1f text newline

What subprocesses and C code print carries no mark and belongs to the container. User code can forge marks: that only
mislabels its own lines.
"""

from __future__ import annotations

from squall.protocol.records import record

MARK = b"\x1e"
SEPARATOR = b"\x1f"
LINE_BYTES_MAX = 16 * 1024
"""Longer lines are cut into pieces."""

STDOUT = "stdout"
STDERR = "stderr"
SYSTEM = "system"


@record
class LogEntry:
    """One line."""

    at: float
    """Seconds since 1970, when the agent read it."""
    source: str
    """stdout, stderr, or system for what Squall itself has to say."""
    text: str
    container_id: str = ""
    input_id: str = ""
    app_id: str = ""
    function_id: str = ""


@record
class LogBatch:
    """Lines in order."""

    entries: tuple[LogEntry, ...]


@record
class LogRead:
    """Ask for log lines; with `is_following` the stream goes on until the app stops (or the container ends)."""

    app: str = ""
    container_id: str = ""
    function: str = ""
    is_following: bool = False
    tail: int = 100
    """Start with the last that many; -1 means all that are kept."""
    since: float | None = None
    until: float | None = None
    search: str = ""
    source: str = ""


def split_mark(line: bytes) -> tuple[str, bytes]:
    """The input id a line is marked with (empty if none) and its text."""
    if not line.startswith(MARK):
        return "", line
    input_id, separator, text = line[1:].partition(SEPARATOR)
    if not separator or len(input_id) > 100:
        return "", line
    return input_id.decode("ascii", "replace"), text


def unmarked_bytes(line: bytes) -> int:
    """How much comes before a mark inside a line that begins without one; 0 if there is none."""
    start = line.find(MARK)
    if start <= 0 or not split_mark(line[start:])[0]:
        return 0
    return start
