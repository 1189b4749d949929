"""Words."""

from __future__ import annotations


def shout(text: str) -> str:
    """In capitals."""
    return text.upper()
