"""Secrets: variables with values that only the containers see which name them. No answer has a value.

A secret with a name is an asset (`asset.py`), and is found, listed, renamed and deleted as one. One without is of an
app: it is there for as long as a function or a version of that app names it.
"""

from __future__ import annotations

from squall.protocol.records import field, record, replace

BYTES_MAX = 64 * 1024
"""Of the names and values of one secret, as UTF-8."""
GIVEN_BYTES_MAX = 512 * 1024
"""Of all that a container is given: a kernel takes 2 MiB of variables and arguments, and those of images are others."""
NAMES_MAX = 1_000
NAME_CHARS_MAX = 200


@record
class SecretCreate:
    """Make a secret. The caller makes the id, so repeating is harmless.

    Without a name it is of an app, and the answer is the one that has the same in it where the app has such a one.

    Errors: `exists` when there is one of that name, unless that is fine, or it is to be replaced; `exhausted`.
    """

    asset_id: str
    values: dict[str, str] = field(default_factory=dict, repr=False)
    name: str = ""
    environment: str = ""
    created_by: str = ""
    may_exist: bool = False
    """Then what is in it stays as it is."""
    is_replacing: bool = False
    """What is in it is replaced, as a whole."""
    app_id: str = ""
    function_id: str = ""
    """In place of its app, a function of that app."""


@record
class SecretInfo:
    """One secret as it is shown: never its values."""

    asset_id: str
    name: str = ""
    """Empty when it is of an app."""
    environment: str = ""
    created_at: float = 0.0
    """Seconds since 1970."""
    created_by: str = ""
    last_used_at: float | None = None
    """When a container or a build was last given it."""


@record
class SecretGet:
    """Ask for one. Errors: `not_found`, with names that are like it; `invalid` when it lacks a variable."""

    secret: str
    """Its id, or its name."""
    environment: str = ""
    required_keys: tuple[str, ...] = ()


@record
class SecretUpdate:
    """Give variables of a secret that has a name other values, or add some. Containers that run keep what they have.

    Error: `not_found`.
    """

    secret: str
    """Its id, or its name."""
    values: dict[str, str] = field(default_factory=dict, repr=False)
    environment: str = ""


@record
class SecretList:
    """Ask for those that have a name, newest first."""

    environment: str = ""
    limit: int = 100
    before_at: float | None = None
    """Those that were made before that time, or at that time with a smaller id."""
    before_id: str = ""

    def following(self, listing: SecretListing) -> SecretList | None:
        """The question for the next page."""
        if not listing.is_cut or not listing.secrets:
            return None
        last = listing.secrets[-1]
        if (last.created_at, last.asset_id) == (self.before_at, self.before_id):
            return None
        limit = max(0, self.limit - len(listing.secrets))
        return replace(self, limit=limit, before_at=last.created_at, before_id=last.asset_id)


@record
class SecretListing:
    """The answer: a page of it."""

    secrets: tuple[SecretInfo, ...]
    is_cut: bool = False
    """There are more."""


@record
class SecretKeyRotate:
    """Encrypt all secrets anew: with a new key, or with the first one of those that the server was started with."""


@record
class SecretKeyRotated:
    """How many were, and how many could not be read with any key that there is: these are as they were."""

    count: int
    unreadable_count: int = 0
    is_key_given: bool = False
    """The key is not the server's own: it was started with it."""


def problem(values: dict[str, str]) -> str:
    """Why these cannot be the variables of a secret, in words that name no value; empty where they can."""
    if len(values) > NAMES_MAX:
        return f"it has {len(values)} variables, at most {NAMES_MAX}"
    size = 0
    for name, value in values.items():
        if not name or len(name) > NAME_CHARS_MAX or not _is_variable(name) or "=" in name:
            shown = name[:40].encode("ascii", "backslashreplace").decode()
            return f"{shown!r} is no name of a variable: 1 to {NAME_CHARS_MAX} characters of Unicode, without = and NUL"
        if not _is_variable(value):
            return f"the value of {name} is no text of Unicode without NUL"
        size += len(name.encode()) + len(value.encode())
    return f"it has {size} bytes, at most {BYTES_MAX}" if size > BYTES_MAX else ""


def _is_variable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
