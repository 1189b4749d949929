"""Texts of Dockerfiles that name variables only the image has: `${NAME}`, `${NAME:-word}`, `${NAME:+word}`, `$$`."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PART = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<kind>[-+])(?P<word>[^}]*))?\})")


def expand(text: str, env: Mapping[str, str]) -> str:
    """A text with the values of variables in their places; nothing in the place of one that is not set."""

    def value(part: re.Match[str]) -> str:
        if part["dollar"]:
            return "$"
        found = env.get(part["name"], "")
        if part["kind"] == "-":
            return found or part["word"]
        if part["kind"] == "+":
            return part["word"] if found else ""
        return found

    return _PART.sub(value, text)
