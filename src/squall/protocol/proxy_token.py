"""Proxy tokens: what opens web functions that ask for one.

A token is an id and a secret. Whoever makes one makes both, and sends the hash of the secret: the secret itself is
never told to the server's methods, so that nothing that is stored, logged or listed has it.
"""

from __future__ import annotations

import re

from squall.protocol.records import record

NAME_CHARS_MAX = 100
NAME_RULE = f"at most {NAME_CHARS_MAX} printable characters"
_SHA256 = r"[0-9a-f]{64}\Z"


def is_token_name(text: str) -> bool:
    """Whether a token may be called that; empty is none."""
    return len(text) <= NAME_CHARS_MAX and text.isprintable()


def is_sha256(text: str) -> bool:
    """Whether it is the hash of something, as 64 hexadecimal digits."""
    return re.match(_SHA256, text) is not None


@record
class ProxyTokenCreate:
    """Let a token open the web functions of every environment. Asked again it is the same one. Errors: `exists` when
    there is one of its id with another secret, `exhausted`."""

    token_id: str
    """New: see `ids`."""
    secret_sha256: str
    """As 64 hexadecimal digits."""
    name: str = ""
    """For people."""
    created_by: str = ""
    """The user, as people know him."""


@record
class ProxyTokenInfo:
    """One token as listed. Times are seconds since 1970."""

    token_id: str
    name: str = ""
    created_at: float = 0.0
    created_by: str = ""
    last_used_at: float | None = None
    """When it opened something last, to the hour; None: never."""
    is_scoped: bool = False
    """It opens web functions of `environments` only; else of all."""
    environments: tuple[str, ...] = ()
    """By name."""


@record
class ProxyTokenList:
    """Ask for all."""

    allowed_in: str = ""
    """Only those that open the web functions of this environment; empty: all."""


@record
class ProxyTokenListing:
    """The newest first."""

    tokens: tuple[ProxyTokenInfo, ...] = ()


@record
class ProxyTokenUpdate:
    """Give a token another name. Error: `not_found`."""

    token_id: str
    name: str


@record
class ProxyTokenAllow:
    """Let a token open the web functions of an environment; from the first time on, of no others than it is allowed.
    Error: `not_found` for the token and for the environment."""

    token_id: str
    environment: str = ""


@record
class ProxyTokenRevoke:
    """The other way round. Once this is answered no request passes any more. Errors: `not_found`; `invalid` for a
    token that opens every environment."""

    token_id: str
    environment: str = ""


@record
class ProxyTokenDelete:
    """Forget a token. Once this is answered no request passes with it any more. Error: `not_found`."""

    token_id: str
