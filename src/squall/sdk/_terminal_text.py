"""What containers print, made harmless for a terminal.

A terminal obeys what it shows: sequences set its title, write the clipboard, move over lines of others, or make it
answer as if somebody typed. Colours and erasing to the end of the line are wanted, tabs and carriage returns too; the
rest is left out. What goes to a file or a pipe is not touched.
"""

from __future__ import annotations

import re
from typing import IO

_RESET = "\x1b[0m"
_CONTROL = (
    r"(\x1b\[[0-9;:]*[mK])"  # colours, erase in line: kept
    r"|\x1b\[[0-?]*[ -/]*[@-~]?"  # other CSI sequences
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS, SOS, PM, APC with all they carry
    r"|\x1b[ -/]*[0-~]?"  # what is left of escapes
    r"|\x9b[0-?]*[ -/]*[@-~]?|[\x90\x98\x9d-\x9f][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # the same in one character
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)


def harmless(text: str) -> str:
    """The text without what a terminal would obey; its colours end with it."""
    if text.isprintable():
        return text
    kept = re.sub(_CONTROL, lambda match: match[1] or "", text)
    return kept + _RESET if "\x1b[" in kept and not kept.endswith(_RESET) else kept


def for_stream(stream: IO[str], text: str) -> str:
    """What to write to this stream: harmless if it is a terminal, else the text itself."""
    try:
        return harmless(text) if stream.isatty() else text
    except ValueError:
        return text  # closed: writing says so


def size_text(size_bytes: int) -> str:
    """A size for people: `71 MB`."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.{1 if size_bytes < 10 * unit else 0}f} {name}"
    return f"{max(1, size_bytes // 1_000)} kB" if size_bytes else "0 kB"


def is_terminal(stream: IO[str]) -> bool:
    """Whether a person may look at it."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False  # there is none, or it is closed
