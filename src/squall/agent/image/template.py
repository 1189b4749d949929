"""Texts of Dockerfiles that name variables only the image has: `${NAME}`, `${NAME:-word}`, `${NAME:+word}`, `$$`.

Without the colon a variable that is set and empty counts as set. A word may have variables again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

DEPTH_MAX = 50
"""Words within words; what is deeper is text."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_PART = re.compile(rf"\$(?:(?P<dollar>\$)|\{{(?P<name>{_NAME})(?:(?P<kind>:?[-+])|(?=\}})))|(?P<end>\}})")


def expand(text: str, env: Mapping[str, str]) -> str:
    """A text with the values of variables in their places; nothing in the place of one that is not set."""
    # What is open: the text before each variable whose end is not reached, and how it begins.
    open_parts: list[tuple[list[str], re.Match[str]]] = []
    found: list[str] = []
    position = 0
    for part in _PART.finditer(text):
        found.append(text[position : part.start()])
        position = part.end()
        if part["dollar"]:
            found.append("$")
        elif part["end"] is None and len(open_parts) < DEPTH_MAX:
            open_parts.append((found, part))
            found = []
        elif part["end"] and open_parts:
            word = "".join(found)
            found, begun = open_parts.pop()
            found.append(_value(env.get(begun["name"]), begun["kind"] or "", word))
        else:
            found.append(part[0])
    found.append(text[position:])
    while open_parts:
        rest = "".join(found)
        found, begun = open_parts.pop()
        found += [begun[0], rest]
    return "".join(found)


def _value(value: str | None, kind: str, word: str) -> str:
    is_set = value is not None and (value != "" or not kind.startswith(":"))
    if kind.endswith("+"):
        return word if is_set else ""
    if kind.endswith("-") and not is_set:
        return word
    return value or ""
