"""Which files to leave out, in the syntax of `.dockerignore`.

Patterns are relative to the tree. `*` and `?` stay within one name, `**` crosses directories, `[a-z]` is a choice. A
pattern that matches a directory matches everything below it. The last pattern that matches decides; `!` takes back.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from squall.exception import InvalidError

IgnoreArgument = Sequence[str] | Callable[[Path], bool]

_Rule = tuple[re.Pattern[str], bool]


class FilePatternMatcher:
    """Matches paths by patterns: `ignore=FilePatternMatcher("**/*.pyc", "!keep.pyc")`, or `~matcher` for all but these.

    Raises:
        InvalidError: a pattern is none.
    """

    def __init__(self, *pattern: str) -> None:
        for one in pattern:
            if not isinstance(one, str):
                raise InvalidError(f"FilePatternMatcher({one!r}): patterns are strings")
        self._file_path: str | None = None
        self._patterns: list[str] | None = list(pattern)
        self._rules: list[_Rule] | None = _rules(pattern)

    @classmethod
    def from_file(cls, file_path: str | Path) -> FilePatternMatcher:
        """Patterns from a file, one on a line as in `.dockerignore`; it is read when the first path is matched."""
        matcher = cls()
        matcher._file_path, matcher._patterns, matcher._rules = str(file_path), None, None
        return matcher

    @property
    def patterns(self) -> list[str]:
        """The patterns, in order.

        Raises:
            InvalidError: their file cannot be read.
        """
        if self._patterns is None:
            assert self._file_path is not None
            try:
                with open(self._file_path, encoding="utf-8") as file:
                    lines = file.read().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise InvalidError(f"FilePatternMatcher.from_file({self._file_path!r}): {cause}") from error
            self._patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        return list(self._patterns)

    def can_prune_directories(self) -> bool:
        """Whether a directory that matches can be passed over whole: no pattern takes back what is in it."""
        return all(is_matching for _, is_matching in self._compiled())

    def __call__(self, file_path: Path) -> bool:
        """Whether a path, relative to the tree, matches."""
        text = file_path.as_posix()
        found = False
        for expression, is_matching in self._compiled():
            if found != is_matching and expression.match(text):
                found = is_matching
        return found

    def __invert__(self) -> _Inverted:
        return _Inverted(self)

    def __repr__(self) -> str:
        if self._file_path is not None:
            return f"FilePatternMatcher.from_file({self._file_path!r})"
        return f"FilePatternMatcher({', '.join(map(repr, self.patterns))})"

    def _compiled(self) -> list[_Rule]:
        if self._rules is None:
            self._rules = _rules(self.patterns)
        return self._rules


class _Inverted:
    """Everything that another matcher does not match."""

    def __init__(self, matcher: FilePatternMatcher) -> None:
        self._matcher = matcher

    def can_prune_directories(self) -> bool:
        """A directory that does not match may hold files that do."""
        return False

    def __call__(self, file_path: Path) -> bool:
        """Whether the other one does not match."""
        return not self._matcher(file_path)

    def __invert__(self) -> FilePatternMatcher:
        return self._matcher

    def __repr__(self) -> str:
        return f"~{self._matcher!r}"


def as_predicate(ignore: IgnoreArgument) -> Callable[[Path], bool]:
    """The predicate that patterns stand for; a predicate stays what it is.

    Raises:
        InvalidError: neither, or a pattern that is none.
    """
    if callable(ignore):
        return ignore
    if isinstance(ignore, (str, os.PathLike)) or not all(isinstance(pattern, str) for pattern in ignore):
        raise InvalidError("ignore= takes a list of patterns, or a function of a path")
    return FilePatternMatcher(*ignore)


def can_prune(ignore: Callable[[Path], bool]) -> bool:
    """Whether a directory that a predicate matches can be passed over whole; of a function nobody knows."""
    return isinstance(ignore, FilePatternMatcher) and ignore.can_prune_directories()


def _rules(patterns: Sequence[str]) -> list[_Rule]:
    return [rule for pattern in patterns if (rule := _rule(pattern)) is not None]


def _rule(pattern: str) -> tuple[re.Pattern[str], bool] | None:
    # Some editors begin a file with a byte order mark.
    text = pattern.removeprefix("\ufeff").strip()
    if not text or text.startswith("#"):
        return None
    is_ignoring = not text.startswith("!")
    text = text.lstrip("!").strip().strip("/")
    text = _cleaned(text)
    if not text:
        return None
    try:
        return re.compile(_expression(text)), is_ignoring
    except re.error as error:
        raise InvalidError(f"ignore pattern {pattern!r}: {error}") from error


def _cleaned(text: str) -> str:
    """The pattern without what leads nowhere: `a/./b//c/../d` is `a/b/d`."""
    parts: list[str] = []
    for part in text.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _expression(text: str) -> str:
    """What a path begins with that the pattern matches, or that is below something it matches.

    `**` with a slash after it, or without one, stands for any directories: nothing, or whatever ends in a slash. At the
    end it stands for anything.

    It never goes back on what it took: between two `**` with slashes the first place that fits is as good as any later
    one, and between two `*` of a name likewise, so each such stretch is looked for once. Written plainly,
    `**/*a*a*a*a*b` keeps a machine busy for as long as its author likes. Only `**` within names,
    as in `a**b**c`, goes back.
    """
    groups = itertools.count()
    stretches = _between_double_stars(text)
    out = ""
    for number, stretch in enumerate(stretches[:-1]):
        if number and not stretch:
            continue  # `**/**` is `**`
        found = "/".join(_name_expression(name, groups) for name in stretch.split("/"))
        if number:
            found = "(?:[^/]*/)*?" + found
            out += _once(found, groups) if stretch.endswith("/") else found
        else:
            out += found
    last = stretches[-1]
    if not last and len(stretches) > 1:
        # After a slash, and alone, at least one name.
        return out if stretches[-2] and not stretches[-2].endswith("/") else out + "[^/]"
    found = "/".join(_name_expression(name, groups) for name in last.split("/")) + r"(?:/|\Z)"
    return out + (_once("(?:[^/]*/)*?" + found, groups) if len(stretches) > 1 else found)


def _between_double_stars(text: str) -> list[str]:
    """The pattern, cut at each `**` with the slash that may follow it."""
    found = [""]
    position = 0
    while position < len(text):
        end = position + 1
        if text.startswith("**", position):
            found.append("")
            position += 3 if text.startswith("/", position + 2) else 2
            continue
        if text[position] == "\\":
            end = position + 2
        elif text[position] == "[":
            end = max(end, text.find("]", position + 2) + 1)
        found[-1] += text[position:end]
        position = end
    return found


def _once(expression: str, groups: Iterator[int]) -> str:
    """The first way in which it matches and no other, whatever follows: an atomic group, which Python 3.10 has not."""
    name = f"g{next(groups)}"
    return f"(?=(?P<{name}>{expression}))(?P={name})"


def _name_expression(part: str, groups: Iterator[int]) -> str:
    first, *later = _between_stars(part)
    if not later:
        return first
    middle = "".join(_once("[^/]*?" + text, groups) for text in later[:-1])
    return f"{first}{middle}[^/]*{later[-1]}"


def _between_stars(part: str) -> list[str]:
    """Expressions of fixed length: what is before, between and after the stars of a name."""
    found = [""]
    position = 0
    while position < len(part):
        char = part[position]
        position += 1
        if char == "*":
            while part[position : position + 1] == "*":
                position += 1
            found.append("")
        elif char == "?":
            found[-1] += "[^/]"
        elif char == "[":
            end = part.find("]", position + 1)
            if end < 0:
                found[-1] += r"\["
                continue
            choice = part[position:end].replace("\\", "\\\\")
            found[-1] += f"(?!/)[{'^' + choice[1:] if choice[:1] in '!^' else choice}]"
            position = end + 1
        elif char == "\\" and position < len(part):
            found[-1] += re.escape(part[position])
            position += 1
        else:
            found[-1] += re.escape(char)
    return found
