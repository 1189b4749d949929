"""The lines of a Dockerfile as instructions: directives, comments, continuations, here-documents, flags, words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from squall.sdk.dockerfile.error import DockerfileError, Line, shown

CHARS_MAX = 2 * 1024 * 1024
INSTRUCTIONS_MAX = 5000

DEFAULT_ESCAPE = "\\"
_DIRECTIVE = re.compile(r"#[ \t]*([a-zA-Z][a-zA-Z0-9]*)[ \t]*=[ \t]*(.+?)[ \t]*\Z")
_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"\d*<<(-?)([^<\s]+)\Z")
_WITH_HEREDOCS = {"RUN", "COPY", "ADD"}
_SPACE = " \t\v\f\r"


@dataclass(frozen=True, slots=True)
class Heredoc:
    """Lines up to one that has the delimiter alone."""

    word: str
    """As it stands in the instruction: `<<EOF`."""
    name: str
    content: str
    is_literal: bool
    """The delimiter was quoted: nothing is filled in."""


@dataclass(frozen=True, slots=True)
class Written:
    """One instruction, its words not yet looked at."""

    line: Line
    keyword: str
    """In capitals."""
    rest: str
    """What follows the keyword and the flags."""
    flags: tuple[tuple[str, str | None], ...] = ()
    """Name and value; None for a flag without one."""
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(slots=True)
class Lines:
    """A Dockerfile, read from top to bottom."""

    file: str
    text: str
    escape: str = DEFAULT_ESCAPE
    _lines: list[str] = field(default_factory=list)
    _number: int = 0

    def instructions(self) -> Iterator[Written]:
        """The instructions, in order.

        Raises:
            DockerfileError: the text is none, or a here-document has no end.
        """
        self._check()
        self._lines = self.text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
        self._directives()
        count = 0
        while self._number < len(self._lines):
            line = self._lines[self._number].lstrip()
            if not line or line.startswith("#"):
                self._number += 1
                continue
            count += 1
            if count > INSTRUCTIONS_MAX:
                raise self._at(line).error(f"more than {INSTRUCTIONS_MAX} instructions")
            yield self._instruction()

    def _check(self) -> None:
        if len(self.text) > CHARS_MAX:
            raise DockerfileError(f"{self.file}: it has more than {CHARS_MAX} characters; is it a Dockerfile?")
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise DockerfileError(f"{self.file}: it is not UTF-8, at character {error.start + 1}") from error
        if "\0" in self.text:
            number = self.text.count("\n", 0, self.text.index("\0")) + 1
            raise DockerfileError(f"{self.file}, line {number}: there is a zero byte in it; is it a Dockerfile?")

    def _at(self, written: str, number: int | None = None) -> Line:
        return Line(self.file, self._number + 1 if number is None else number, shown(written.strip()))

    def _directives(self) -> None:
        seen = set()
        while self._number < len(self._lines):
            line = self._lines[self._number].strip()
            found = _DIRECTIVE.match(line)
            name = found[1].lower() if found else ""
            if found is None or name not in _DIRECTIVES:
                return
            if name in seen:
                raise self._at(line).error(f"the directive {name} is there twice; keep one")
            seen.add(name)
            if name == "escape":
                if found[2] not in ("\\", "`"):
                    raise self._at(line).error(r"escape can be \ or ` only")
                self.escape = found[2]
            if name == "syntax" and "docker/dockerfile" not in found[2]:
                raise self._at(line).error("a syntax other than that of Docker cannot be read here; drop the directive")
            self._number += 1

    def _instruction(self) -> Written:
        number = self._number + 1
        logical = self._logical()
        line = self._at(logical, number)
        keyword, rest = _split(logical)
        keyword = keyword.upper()
        inner = _split(rest)[0].upper() if keyword == "ONBUILD" else keyword
        heredocs = self._heredocs(rest, line) if inner in _WITH_HEREDOCS and "<<" in rest else ()
        if keyword == "ONBUILD":
            return Written(line, keyword, rest.strip(), heredocs=heredocs)
        flags, rest = _flags(rest, self.escape)
        return Written(line, keyword, rest.strip(), flags, heredocs)

    def _logical(self) -> str:
        """Lines joined where one ends in the escape character; comments and empty lines between them are no part."""
        parts: list[str] = []
        while self._number < len(self._lines):
            line = self._lines[self._number]
            self._number += 1
            bare = line.lstrip()
            if parts and (not bare or bare.startswith("#")):
                continue
            line = line if parts else bare
            ending = line.rstrip(" \t")
            if not ending.endswith(self.escape) or ending.endswith(self.escape * 2):
                parts.append(line)
                break
            parts.append(ending[:-1])
        return "".join(parts)

    def _heredocs(self, rest: str, line: Line) -> tuple[Heredoc, ...]:
        return tuple(
            self._heredoc(word, found, line) for word in words(rest, self.escape) if (found := _HEREDOC.match(word))
        )

    def _heredoc(self, word: str, found: re.Match[str], line: Line) -> Heredoc:
        quoted = found[2]
        name = re.sub(r"""["'\\]""", "", quoted)
        if not name:
            raise line.error(f"{shown(word)} is no here-document; write <<EOF")
        content: list[str] = []
        while self._number < len(self._lines):
            one = self._lines[self._number]
            self._number += 1
            one = one.lstrip("\t") if found[1] else one
            if one == name:
                return Heredoc(word, name, "".join(f"{part}\n" for part in content), quoted != name)
            content.append(one)
        raise line.error(f"the here-document {shown(word)} has no end; write {shown(name)} alone on a line after it")


def words(rest: str, escape: str) -> list[str]:
    """Words with their quotes and backslashes: what is in quotes or behind a backslash separates none.

    An open quote goes on to the end; whoever reads the word says so.
    """
    found: list[str] = []
    word: list[str] = []
    quote = ""
    position = 0
    while position < len(rest):
        char = rest[position]
        position += 1
        if char.isspace() and not quote:
            if word:
                found.append("".join(word))
            word = []
            continue
        word.append(char)
        if char == escape and quote != "'" and position < len(rest):
            word.append(rest[position])
            position += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
    if word:
        found.append("".join(word))
    return found


def json_words(written: Written) -> tuple[str, ...] | None:
    """The words of a JSON list; None for what is no such list, and so meant for a shell or as plain words.

    Raises:
        DockerfileError: a list, but one that no program can be given.
    """
    if not written.rest.startswith("["):
        return None
    try:
        found: Any = json.loads(written.rest)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        return None
    for one in found:
        if "\0" in one or any("\ud800" <= char <= "\udfff" for char in one):
            raise written.line.error(f"{shown(ascii(one))} has a character that no argument can have")
    return tuple(found)


def _split(logical: str) -> tuple[str, str]:
    """The first word and what follows."""
    bare = logical.lstrip()
    found = re.match(r"\S+", bare)
    first = found[0] if found else ""
    return first, bare[len(first) :].lstrip(_SPACE)


def _flags(rest: str, escape: str) -> tuple[tuple[tuple[str, str | None], ...], str]:
    """The words in front that begin with two dashes, and what follows them."""
    found: list[tuple[str, str | None]] = []
    position = 0
    while rest.startswith("--", position):
        end, flag = _flag_word(rest, position, escape)
        position = end
        while position < len(rest) and rest[position].isspace():
            position += 1
        if flag == "--":
            break
        name, is_valued, value = flag[2:].partition("=")
        found.append((name, value if is_valued else None))
    return tuple(found), rest[position:]


def _flag_word(rest: str, position: int, escape: str) -> tuple[int, str]:
    """Where a flag ends, and the flag without its quotes."""
    flag: list[str] = []
    quote = ""
    while position < len(rest) and (quote or not rest[position].isspace()):
        char = rest[position]
        position += 1
        if char == escape and quote != "'" and rest[position : position + 1] in ('"', "'", escape, " "):
            flag.append(rest[position : position + 1])
            position += 1
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            flag.append(char)
    return position, "".join(flag)
