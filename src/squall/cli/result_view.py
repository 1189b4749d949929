"""Results and items as a command shows them: a terminal gets what a person can look at, all else gets all of it."""

from __future__ import annotations

import sys
from typing import Any

import click

from squall.sdk._terminal_text import harmless

CHARS_MAX = 10_000
"""Of one value, on a terminal."""

_SLICED = (str, bytes, bytearray, list, tuple)
"""Each element is a character of the text at least: no more of them are needed."""


def show(value: Any) -> None:
    """Print a value.

    A file or a pipe gets `str(value)`: what reads it must not miss anything. On a terminal the text is cut, and obeyed
    by nothing.
    """
    if not sys.stdout.isatty():
        click.echo(str(value))
        return
    text, is_cut = cut(value)
    click.echo(harmless(text))
    if is_cut:
        what = f"… and so on: the first {CHARS_MAX:,} characters. With `> FILE` all of it goes to a file"
        more = ", with `squall run -w FILE …` as it is" if isinstance(value, (str, bytes)) else ""
        click.echo(f"{what}{more}.", err=True)


def cut(value: Any, chars_max: int = CHARS_MAX) -> tuple[str, bool]:
    """The beginning of `str(value)`, and whether there is more. A large value is not made into text as a whole."""
    is_cut = type(value) in _SLICED and len(value) > chars_max
    text = str(value[:chars_max] if is_cut else value)
    return text[:chars_max], is_cut or len(text) > chars_max
