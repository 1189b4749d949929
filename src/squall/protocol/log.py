"""Log lines, and how a line says which input printed it.

A container's stdout and stderr are plain pipes. The guest's own `sys.stdout` puts a mark before each line:

    0x1e label 0x1f text newline

The label is the id of the input; where there is none, and the line comes in pieces, `~` and a number of whoever prints.
A piece of a line that goes on, flushed before its end, has a `+` before the label: the text of the next line with that
label follows it without a gap. A carriage return in a line takes away what was before it, as in a terminal.

What subprocesses and C code print carries no mark and belongs to the container. User code can forge marks: that only
mislabels its own lines.
"""

from __future__ import annotations

from squall.protocol.records import record

MARK = b"\x1e"
SEPARATOR = b"\x1f"
GOES_ON = b"+"
NO_INPUT = b"~"
LABEL_BYTES_MAX = 100
LINE_BYTES_MAX = 16 * 1024
"""Longer lines are cut into pieces."""

STDOUT = "stdout"
STDERR = "stderr"
SYSTEM = "system"

PASSING = "passing"
STANDING = "standing"


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
    stage: str = ""
    """Empty for a whole line. `passing`: what is there of one that goes on or is written over, for terminals; it is not
    kept, and may be left out. `standing`: the same, said to all now and then."""
    dropped: int = 0
    """How many lines this one stands for: they were left out here. 0 for a line itself."""
    variant_id: str = ""
    """Which variant of the function it is of; empty for the function itself."""


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
    """Of the app, or a variant of one."""
    is_following: bool = False
    tail: int = 100
    """Start with the last that many; -1 means all that are kept."""
    since: float | None = None
    until: float | None = None
    search: str = ""
    source: str = ""
    has_passing: bool = False
    """Following, also entries that are `passing`."""
    has_variants: bool = False
    """Of a function, also what its variants printed."""


def read_mark(line: bytes) -> tuple[bytes, bool, bytes] | None:
    """The label a line is marked with, whether it goes on, and its text; None if it has no mark."""
    if not line.startswith(MARK):
        return None
    label, separator, text = line[1:].partition(SEPARATOR)
    if not separator or len(label) > LABEL_BYTES_MAX:
        return None
    goes_on = label.startswith(GOES_ON)
    return label[len(GOES_ON) :] if goes_on else label, goes_on, text


def split_mark(line: bytes) -> tuple[str, bytes]:
    """The input id a line is marked with (empty if none) and its text."""
    mark = read_mark(line)
    if mark is None:
        return "", line
    return input_of(mark[0]), mark[2]


def input_of(label: bytes) -> str:
    """The input id that a label is; empty if it is none."""
    return "" if label.startswith(NO_INPUT) else label.decode("ascii", "replace")


def unmarked_bytes(line: bytes) -> int:
    """How much comes before a mark inside a line that begins without one; 0 if there is none."""
    start = line.find(MARK)
    mark = read_mark(line[start:]) if start > 0 else None
    return start if mark is not None and mark[0] else 0


def visible(text: bytes, *, has_more: bool = False) -> bytes:
    """What a terminal would show of a line: what was written over is gone.

    With `has_more` a carriage return at its end stays: what comes next is written over it.
    """
    if b"\r" not in text:
        return text
    shown = text.rstrip(b"\r")
    end = b"\r" if has_more and len(shown) < len(text) else b""
    return shown.rpartition(b"\r")[2] + end
