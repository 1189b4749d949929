"""Which files to leave out, in the syntax of `.dockerignore`.

Patterns are relative to the tree. `*` and `?` stay within one name, `**` crosses directories, `[a-z]` is a choice. A
pattern that matches a directory matches everything below it. The last pattern that matches decides; `!` takes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from squall.exception import InvalidError

IgnoreArgument = Sequence[str] | Callable[[Path], bool]


def as_predicate(ignore: IgnoreArgument) -> Callable[[Path], bool]:
    """The predicate that patterns stand for; a predicate stays what it is.

    Raises:
        InvalidError: neither, or a pattern that is none.
    """
    if callable(ignore):
        return ignore
    if isinstance(ignore, str) or not all(isinstance(pattern, str) for pattern in ignore):
        raise InvalidError("ignore= takes a list of patterns, or a function of a path")
    rules = [rule for pattern in ignore if (rule := _rule(pattern)) is not None]

    def is_ignored(path: Path) -> bool:
        text = path.as_posix()
        found = False
        for expression, is_ignoring in rules:
            if found != is_ignoring and expression.match(text):
                found = is_ignoring
        return found

    return is_ignored


def _rule(pattern: str) -> tuple[re.Pattern[str], bool] | None:
    text = pattern.strip()
    if not text or text.startswith("#"):
        return None
    is_ignoring = not text.startswith("!")
    text = text.lstrip("!").strip().strip("/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts:
        return None
    try:
        return re.compile(_expression(parts) + r"(?:/.*)?\Z"), is_ignoring
    except re.error as error:
        raise InvalidError(f"ignore pattern {pattern!r}: {error}") from error


def _expression(parts: list[str]) -> str:
    out = ""
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if part == "**":
            out += ".*" if is_last else "(?:.*/)?"
        else:
            out += _name_expression(part) + ("" if is_last else "/")
    return out


def _name_expression(part: str) -> str:
    out = ""
    position = 0
    while position < len(part):
        char = part[position]
        position += 1
        if char == "*":
            while part[position : position + 1] == "*":
                position += 1
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            end = part.find("]", position + 1)
            if end < 0:
                out += r"\["
                continue
            choice = part[position:end].replace("\\", "\\\\")
            out += f"[{'^' + choice[1:] if choice[:1] in '!^' else choice}]"
            position = end + 1
        elif char == "\\" and position < len(part):
            out += re.escape(part[position])
            position += 1
        else:
            out += re.escape(char)
    return out
