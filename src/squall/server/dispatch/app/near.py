"""What a wrong name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NAMES_MAX = 10_000
"""To compare with, so that a wrong name costs little however many there are."""


def near(name: str, names: Iterable[str]) -> str:
    """`; did you mean …?` with the names that are most like it, or nothing."""
    close = difflib.get_close_matches(name[:80], sorted(names)[:NAMES_MAX], n=3)
    return f"; did you mean {' or '.join(repr(one) for one in close)}?" if close else ""
