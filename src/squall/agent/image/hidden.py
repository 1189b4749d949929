"""Keeps the values of secrets out of what steps print.

A value is hidden as it is, in each of its lines, as it is written into a URL or into JSON, and as the user and password
of a URL that it is or has. Lines are hidden before they are cut: what a cut leaves of a value would be shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote

CHARS_MIN = 4
"""Shorter values are in every other line by chance."""
_NAME_CHARS_MIN = 16
"""The name of a user beside a password is hidden from this length on: then it is a token, and no word of everyday."""
# Up to the last @: passwords have one, too. The second is of passwords that no URL may have and some nevertheless do.
_USERINFO = (re.compile(r"://([^/?#\s]+)@"), re.compile(r"://(\S+:\S+)@"))
_LEFT_BY_URLS = "!$&'()*+,"
"""What a URL may have as it is in a user and a password; some programs quote it all the same."""
_QUOTED = re.compile(r"%[0-9A-F]{2}")


class Hidden:
    """Values that are shown nowhere."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        found = {form for value in values for part in _parts(value) for form in _forms(part)}
        self._forms = tuple(form for form in found if len(form) >= CHARS_MIN)
        self.chars_max = max([len(form) for form in self._forms if "\n" not in form], default=0)
        """Of the longest that can be in one line."""

    def and_of(self, values: Iterable[str]) -> Hidden:
        """These values, and others."""
        more = Hidden(values)
        more._forms = tuple({*self._forms, *more._forms})
        more.chars_max = max(self.chars_max, more.chars_max)
        return more

    def hide(self, text: str, chars_max: int | None = None) -> str:
        """A text without them.

        Args:
            chars_max: of the text, as it was, only so much is wanted. A value that is there in part is hidden all the
                same, if `chars_max` of its own more are given.
        """
        end = len(text) if chars_max is None else min(chars_max, len(text))
        shown, at = [], 0
        for first, last in _joined(self._found(text)):
            if first >= end:
                break
            shown += [text[at:first], "***"]
            at = last
        shown.append(text[at:end])
        return "".join(shown)

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        for form in self._forms:
            first = text.find(form)
            while first >= 0:
                yield first, first + len(form)
                # They may overlap, also with themselves.
                first = text.find(form, first + 1)


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans in order, those that overlap as one."""
    begun: tuple[int, int] | None = None
    for first, last in sorted(spans):
        if begun is not None and first < begun[1]:
            begun = begun[0], max(begun[1], last)
            continue
        if begun is not None:
            yield begun
        begun = first, last
    if begun is not None:
        yield begun


def _parts(value: str) -> Iterator[str]:
    """A value, its lines, because output comes line by line, and what it says of users and passwords."""
    yield from (value.strip(), *(line.strip() for line in value.splitlines()))
    for pattern in _USERINFO:
        for match in pattern.finditer(value):
            name, _, password = match[1].partition(":")
            yield from (match[1], password)
            if not password or len(name) >= _NAME_CHARS_MIN:
                yield name


def _forms(part: str) -> Iterator[str]:
    """A text as programs may print it."""
    for plain in {part, unquote(part).strip()}:
        yield plain
        yield json.dumps(plain)[1:-1]
        yield json.dumps(plain, ensure_ascii=False)[1:-1]
        for quoted in (quote(plain, safe=""), quote(plain, safe=_LEFT_BY_URLS), quote_plus(plain), quote(plain)):
            yield quoted
            yield _QUOTED.sub(lambda match: match[0].lower(), quoted)
