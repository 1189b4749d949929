"""Who runs this program, as lists and histories show it."""

from __future__ import annotations

CHARS_MAX = 200


def user_name() -> str:
    """The name of the user, or nothing where there is none."""
    import getpass  # cold start: not where nothing is made

    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""  # a user without a name
    # A variable may hold bytes that are no text.
    return name.encode("utf-8", "replace").decode()[:CHARS_MAX]
