"""A value that a user gave, as a message repeats it."""

from __future__ import annotations

CHARS_MAX = 120


def value_text(value: object) -> str:
    """As `repr` has it, but short, and of anything: numbers of thousands of digits, objects whose `__repr__` raises,
    halves of characters that no terminal takes."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - whatever it raises: this is for saying what is wrong with the value
        return f"<a {type(value).__name__} that cannot be shown>"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= CHARS_MAX else f"{text[:CHARS_MAX]}…"
