"""Tells requests with the same secrets from those with others, and keeps nothing by which a value could be found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from secrets import token_bytes

# Of this process alone: a hash without it could be tried with values that are likely.
_KEY = token_bytes(32)


def secret_mark(secrets: Mapping[str, Mapping[str, str]]) -> str:
    """A text that is the same for the same variables with the same values, in this process; empty without any."""
    if not secrets:
        return ""
    written = json.dumps({name: dict(variables) for name, variables in secrets.items()}, sort_keys=True)
    return hashlib.blake2b(written.encode("utf-8", "surrogatepass"), key=_KEY, digest_size=16).hexdigest()
