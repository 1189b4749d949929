"""Texts in which variables may be left that only the image has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that neither the Dockerfile nor its arguments set, so that the image may."""

    name: str
    kind: str = ""
    """`:-`, `-`, `:+` or `+`: what `word` is for, as a shell means it; empty for the value alone."""
    word: tuple[Part, ...] = ()


Part = str | Variable


@dataclass(frozen=True, slots=True)
class Text:
    """Literal pieces and variables of the image, in order; `text("x")` makes one."""

    parts: tuple[Part, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether it is known without the image."""
        return not any(isinstance(part, Variable) for part in self.parts)

    @property
    def plain(self) -> str:
        """The text; only of one that is known without the image."""
        assert self.is_plain
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def names(self) -> tuple[str, ...]:
        """The variables of the image that it needs, each once."""
        return tuple(dict.fromkeys(_names(self.parts)))

    @property
    def template(self) -> str:
        """As an `ImageStep` with `is_template` has it: `${NAME}`, `${NAME:-word}`, a dollar sign as `$$`."""
        return _template(self.parts)

    def __bool__(self) -> bool:
        return bool(self.parts)


def text(value: str) -> Text:
    """A text that is known."""
    return Text((value,)) if value else Text()


def joined(parts: Iterable[Part]) -> Text:
    """A text of parts, literal neighbours as one."""
    found: list[Part] = []
    literal: list[str] = []
    for part in parts:
        if isinstance(part, str):
            literal.append(part)
            continue
        if any(literal):
            found.append("".join(literal))
        literal = []
        found.append(part)
    if any(literal):
        found.append("".join(literal))
    return Text(tuple(found))


def _names(parts: tuple[Part, ...]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, Variable):
            yield part.name
            yield from _names(part.word)


def _template(parts: tuple[Part, ...]) -> str:
    return "".join(
        part.replace("$", "$$")
        if isinstance(part, str)
        else f"${{{part.name}{part.kind}{_template(part.word) if part.kind else ''}}}"
        for part in parts
    )
