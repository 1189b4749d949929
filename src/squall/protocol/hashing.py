"""SHA-256 without OpenSSL, for the first few things that a program hashes.

`hashlib` loads OpenSSL, in 5 ms: a thirtieth of a whole `squall run`, and as long as all that a container imports by
itself. CPython brings a SHA-256 of its own, which takes 6 times as long for each byte. The standard library's `random`
takes its SHA-512 in the same way.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Protocol, cast

_OWN_BYTES_MAX = 2**18
"""Of one program: CPython's own hash takes 2 ms for so many, that of OpenSSL 0.3."""

_hashed_bytes = 0


class Digest(Protocol):
    """A hash object of `hashlib`, as far as it is used."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more of the content."""

    def hexdigest(self) -> str:
        """The hash of what was taken so far."""


def new_sha256(size_bytes: int) -> Digest:
    """A hash object for content of about this size."""
    global _hashed_bytes
    _hashed_bytes += size_bytes
    make = _own() if _hashed_bytes <= _OWN_BYTES_MAX else None
    if make is not None:
        return make()
    import hashlib  # cold start: with OpenSSL

    return hashlib.sha256()


def sha256_hex(data: bytes | memoryview) -> str:
    """The hash of this, as 64 hexadecimal digits."""
    digest = new_sha256(len(data))
    digest.update(data)
    return digest.hexdigest()


@functools.cache
def _own() -> Callable[[], Digest] | None:
    """CPython's own; None where there is none, as in a Python that may only use certified cryptography."""
    try:
        own = importlib.import_module("_sha2" if sys.version_info >= (3, 12) else "_sha256")
    except ImportError:
        return None
    return cast("Callable[[], Digest]", own.sha256)
