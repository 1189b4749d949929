"""The one exception of this package, and the place it names."""

from __future__ import annotations

from dataclasses import dataclass

from squall.exception import InvalidError

SHOWN_CHARS_MAX = 160


class DockerfileError(InvalidError):
    """A Dockerfile cannot be read or built; the message names the file, the line, and what to do."""


@dataclass(frozen=True, slots=True)
class Line:
    """Where an instruction is."""

    file: str
    number: int
    """Of its first line, from 1."""
    written: str
    """The instruction as one line, the ends of long ones cut off."""

    def error(self, message: str) -> DockerfileError:
        """The exception to raise about it."""
        return DockerfileError(f"{self.file}, line {self.number}: {shown(message, 1000)}\n    {self.written}")


def shown(words: str, chars_max: int = SHOWN_CHARS_MAX) -> str:
    """A text of a user's for a message: on one line, nothing that moves a cursor, and not too long."""
    words = words if len(words) <= chars_max else words[: chars_max - 1] + "…"
    return "".join(
        char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}" for char in words
    )
