r"""Variables, quotes and backslashes in the texts of instructions, as Docker reads them.

`$NAME`, `${NAME}`, and in braces `:-` `-` `:+` `+` `:?` `?` with a word, `#` `##` `%` `%%` with a pattern, `/` and `//`
with a pattern and what to put in its place. Words may hold variables again. A variable that the Dockerfile does not
know stays in the text for the image to fill in, if it is of a kind that can.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from squall.sdk.dockerfile.pattern import Pattern, shell_pattern
from squall.sdk.dockerfile.text import Part, Text, Variable, joined

DEPTH_MAX = 20
TEXT_CHARS_MAX = 1024 * 1024
"""Of one text with its variables filled in: `ENV A=$A$A` doubles it."""
REPLACED_CHARS_MAX = 512
"""Of a value in which `/` replaces: it is searched from each of its characters on."""

_IMAGE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
_SPECIAL = "@*#?-$!"


class ExpansionProblem(Exception):
    """A text cannot be read; the message says why, without its place."""


class Unknown:
    """What a lookup says of a variable that only the image may have."""


Lookup = Callable[[str], Text | Unknown | None]
"""The value of a variable; None says it is not set anywhere."""
Spend = Callable[[int], None]
"""Told how many characters were worked on; may raise, to end what would take forever."""


class Expansion:
    """One text on its way to what it stands for."""

    def __init__(self, written: str, lookup: Lookup, spend: Spend, escape: str, *, keeps_quotes: bool = False) -> None:
        self._written = written
        self._lookup = lookup
        self._spend = spend
        self._escape = escape
        self._keeps_quotes = keeps_quotes
        self._position = 0
        self._depth = 0

    def text(self) -> Text:
        """What it stands for.

        Raises:
            ExpansionProblem: quotes or braces without an end, or a variable that must be set and is not.
        """
        if "$" not in self._written and self._escape not in self._written and not self._has_quotes():
            return Text((self._written,)) if self._written else Text()
        found = joined(self._until(""))
        chars = _chars(found.parts)
        self._spend(chars)
        if chars > TEXT_CHARS_MAX:
            raise ExpansionProblem(f"with its variables filled in it has more than {TEXT_CHARS_MAX} characters")
        return found

    def _has_quotes(self) -> bool:
        return not self._keeps_quotes and ("'" in self._written or '"' in self._written)

    def _next(self) -> str:
        char = self._written[self._position : self._position + 1]
        self._position += 1
        return char

    def _peek(self) -> str:
        return self._written[self._position : self._position + 1]

    def _until(self, end: str, *, keeps_escapes: bool = False) -> list[Part]:
        """The parts up to a character, which is passed over, or up to the end of it all."""
        parts: list[Part] = []
        while (char := self._next()) != end:
            if not char:
                raise ExpansionProblem(f"'{end}' is missing, after '${{'; a dollar sign of its own is \\$")
            if char == "$":
                parts += self._variable()
            elif char == "'" and not self._keeps_quotes:
                parts.append(self._single_quoted())
            elif char == '"' and not self._keeps_quotes:
                parts += self._double_quoted()
            elif char == self._escape:
                following = self._next()
                # A pattern has escapes of its own; only what would end it is none.
                is_kept = keeps_escapes and following not in ("}", "/", "")
                parts.append(f"\\{following}" if is_kept else following)
            else:
                parts.append(char)
        return parts

    def _single_quoted(self) -> str:
        end = self._written.find("'", self._position)
        if end < 0:
            raise ExpansionProblem("a ' is not closed; write \\' for one that is no quote")
        found = self._written[self._position : end]
        self._position = end + 1
        return found

    def _double_quoted(self) -> list[Part]:
        parts: list[Part] = []
        while (char := self._next()) != '"':
            if not char:
                raise ExpansionProblem('a " is not closed; write \\" for one that is no quote')
            if char == "$":
                parts += self._variable()
            elif char == self._escape and self._peek() in ('"', "$", self._escape):
                parts.append(self._next())
            else:
                parts.append(char)
        return parts

    def _variable(self) -> tuple[Part, ...]:
        """What a dollar sign, which has been read, begins."""
        if self._peek() != "{":
            name = self._name()
            return self._value(name) if name else ("$",)
        self._position += 1
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ExpansionProblem(f"more than {DEPTH_MAX} variables within one another")
        name = self._name()
        if not name:
            raise ExpansionProblem("'${' must be followed by the name of a variable; a dollar sign of its own is \\$")
        found = self._in_braces(name)
        self._depth -= 1
        return found

    def _in_braces(self, name: str) -> tuple[Part, ...]:
        kind = self._next()
        if kind == "}":
            return self._value(name)
        if kind == ":":
            kind += self._next()
        if kind in (":-", "-", ":+", "+", ":?", "?"):
            return self._with_word(name, kind, joined(self._until("}")))
        if kind in ("#", "%"):
            if self._peek() == kind:
                kind += self._next()
            return self._trimmed(name, kind, self._pattern(name, self._until("}", keeps_escapes=True)))
        if kind == "/":
            if self._peek() == "/":
                kind += self._next()
            pattern = self._pattern(name, self._until("/", keeps_escapes=True))
            return self._replaced(name, kind, pattern, joined(self._until("}")))
        if not kind or kind == ":":
            raise ExpansionProblem(f"'}}' is missing, after '${{{name}'; a dollar sign of its own is \\$")
        raise ExpansionProblem(f"${{{name}{kind}…}} is no form of a variable; ${{{name}:-default}} is one")

    def _name(self) -> str:
        start = self._position
        first = self._peek()
        if first and first in _SPECIAL:
            self._position += 1
            return first
        is_number = first.isdigit()
        while (char := self._peek()) and (char.isdigit() if is_number else char == "_" or char.isalnum()):
            self._position += 1
        return self._written[start : self._position]

    def _find(self, name: str) -> Text | Unknown | None:
        found = self._lookup(name)
        # An image's variable has a name that a shell could have set.
        return None if isinstance(found, Unknown) and not _IMAGE_NAME.match(name) else found

    def _value(self, name: str) -> tuple[Part, ...]:
        found = self._find(name)
        if isinstance(found, Unknown):
            return (Variable(name),)
        if found is None:
            return ()
        self._spend(_chars(found.parts))
        return found.parts

    def _with_word(self, name: str, kind: str, word: Text) -> tuple[Part, ...]:
        found = self._find(name)
        if isinstance(found, Unknown):
            if "?" in kind:
                raise ExpansionProblem(f"no ARG or ENV sets {name}: {_said(word) or 'it must be set'}")
            if any("}" in part for part in word.parts if isinstance(part, str)):
                raise ExpansionProblem(f"what stands in for {name}, a variable of the image, may hold no '}}'")
            return (Variable(name, kind, word.parts),)
        is_set = found is not None and (bool(found) or not kind.startswith(":"))
        if kind.endswith("+"):
            return word.parts if is_set else ()
        if is_set:
            return self._value(name)
        if kind.endswith("-"):
            return word.parts
        what = "empty" if found is not None else "not set"
        raise ExpansionProblem(f"{name} is {what}: {_said(word) or 'give it in build_args=, or a default by ARG'}")

    def _pattern(self, name: str, parts: list[Part]) -> Pattern:
        written = joined(parts)
        if not written.is_plain:
            raise ExpansionProblem(f"the pattern for {name} has {written.names[0]}, which only the image knows")
        if len(written.plain) > REPLACED_CHARS_MAX:
            raise ExpansionProblem(f"the pattern for {name} has more than {REPLACED_CHARS_MAX} characters")
        try:
            return shell_pattern(written.plain)
        except ValueError as error:
            raise ExpansionProblem(f"the pattern for {name} is none: {error}") from error

    def _plain(self, name: str, kind: str) -> str:
        found = self._find(name)
        if isinstance(found, Unknown) or (found is not None and not found.is_plain):
            raise ExpansionProblem(
                f"${{{name}{kind}…}} needs a value that only the image knows; set {name} by ARG or ENV, "
                "or do it in a RUN line"
            )
        value = found.plain if found is not None else ""
        self._spend(8 * len(value))
        return value

    def _trimmed(self, name: str, kind: str, pattern: Pattern) -> tuple[Part, ...]:
        value = self._plain(name, kind)
        is_longest = len(kind) == 2
        if kind[0] == "#":
            end = pattern.prefix(value, is_longest=is_longest)
            return (value[max(end, 0) :],)
        end = pattern.reversed().prefix(value[::-1], is_longest=is_longest)
        return (value[: len(value) - max(end, 0)],)

    def _replaced(self, name: str, kind: str, pattern: Pattern, word: Text) -> tuple[Part, ...]:
        value = self._plain(name, kind)
        if len(value) > REPLACED_CHARS_MAX:
            raise ExpansionProblem(f"{name} is too long to replace in: more than {REPLACED_CHARS_MAX} characters")
        self._spend(len(value) ** 2)
        parts: list[Part] = []
        position = 0
        while position < len(value):
            end = pattern.prefix(value, position)
            if end <= position:
                parts.append(value[position])
                position += 1
                continue
            parts += word.parts
            position = end
            if kind == "/":
                break
        self._spend(_chars(tuple(parts)))
        return (*parts, value[position:])


def _said(word: Text) -> str:
    return word.plain if word.is_plain else word.template


def _chars(parts: tuple[Part, ...]) -> int:
    return sum(len(part) if isinstance(part, str) else 8 + _chars(part.word) for part in parts)
