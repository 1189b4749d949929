"""Patterns with `*` and `?`, matched in time that no pattern can blow up.

All ways to match are followed at once, as bits of one number, in one pass over the text. A regular expression would go
back and try again: `*a*a*a*a*b` is enough to keep one busy for minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_STAR = None
_Token = Callable[[str], bool] | None


class Pattern:
    """A pattern made of tokens."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens: list[_Token] = []
        for token in tokens:
            if token is not _STAR or self._tokens[-1:] != [_STAR]:
                self._tokens.append(token)
        self._stars = sum(1 << index for index, token in enumerate(self._tokens) if token is _STAR)
        self._moves: dict[str, int] = {}

    def matches(self, text: str) -> bool:
        """Whether it matches the whole text."""
        state = self._passed(1)
        for char in text:
            state = self._after(state, char)
            if not state:
                return False
        return bool(state >> len(self._tokens))

    def prefix(self, text: str, start: int = 0, *, is_longest: bool = True) -> int:
        """Where a match that begins at `start` ends; -1 without one."""
        state, found = self._passed(1), -1
        for index in range(start, len(text) + 1):
            if state >> len(self._tokens):
                found = index
                if not is_longest:
                    break
            if not state or index == len(text):
                break
            state = self._after(state, text[index])
        return found

    def reversed(self) -> Pattern:
        """One that matches the same texts backwards."""
        return Pattern(self._tokens[::-1])

    def _after(self, state: int, char: str) -> int:
        moves = self._moves.get(char)
        if moves is None:
            moves = self._moves[char] = sum(
                1 << index for index, token in enumerate(self._tokens) if token is not _STAR and token(char)
            )
        return self._passed((state & moves) << 1 | state & self._stars)

    def _passed(self, state: int) -> int:
        """A star matches nothing, too."""
        return state | (state & self._stars) << 1


def shell_pattern(written: str) -> Pattern:
    r"""A pattern of `${name#pattern}`: `*`, `?`, and a backslash before what is meant literally.

    Raises:
        ValueError: a backslash at the end.
    """
    tokens: list[_Token] = []
    position = 0
    while position < len(written):
        char = written[position]
        position += 1
        if char == "\\":
            if position == len(written):
                raise ValueError("it ends in a backslash")
            tokens.append(_literal(written[position]))
            position += 1
        else:
            tokens.append({"*": _STAR, "?": _anything}.get(char, _literal(char)))
    return Pattern(tokens)


def name_pattern(written: str) -> Pattern:
    r"""A pattern for one name of a path, as Go's `filepath.Match` has it: `*`, `?`, `[a-z]`, `[^a-z]`, backslashes.

    Raises:
        ValueError: a bracket or a backslash without its other half.
    """
    tokens: list[_Token] = []
    position = 0
    while position < len(written):
        char = written[position]
        if char == "[":
            token, position = _choice(written, position + 1)
            tokens.append(token)
            continue
        if char == "\\":
            position += 1
            if position == len(written):
                raise ValueError("it ends in a backslash")
            tokens.append(_literal(written[position]))
        else:
            tokens.append({"*": _STAR, "?": _anything}.get(char, _literal(char)))
        position += 1
    return Pattern(tokens)


def has_wildcard(name: str) -> bool:
    """Whether a name is a pattern; a backslash makes one, because it is not part of what it matches."""
    return any(char in name for char in "*?[\\")


def _choice(written: str, position: int) -> tuple[_Token, int]:
    """What a bracket stands for, and the place after it."""
    is_negated = written[position : position + 1] == "^"
    position += is_negated
    ranges: list[tuple[str, str]] = []
    while written[position : position + 1] != "]" or not ranges:
        low, position = _of_choice(written, position)
        high = low
        if written[position : position + 1] == "-":
            high, position = _of_choice(written, position + 1)
        ranges.append((low, high))
    found = tuple(ranges)

    def is_chosen(char: str) -> bool:
        return any(low <= char <= high for low, high in found) != is_negated

    return is_chosen, position + 1


def _of_choice(written: str, position: int) -> tuple[str, int]:
    if written[position : position + 1] == "\\":
        position += 1
    elif written[position : position + 1] in ("-", "]"):
        raise ValueError(f"{written[position]!r} in a bracket needs a backslash before it")
    if position >= len(written):
        raise ValueError("a bracket is not closed")
    return written[position], position + 1


def _literal(wanted: str) -> Callable[[str], bool]:
    return wanted.__eq__


def _anything(char: str) -> bool:
    return True
