"""Bytes too large for a frame, addressed by their SHA-256 (hexadecimal); moved in chunks."""

from __future__ import annotations

import re

from squall.protocol.records import record

CHUNK_BYTES = 4 * 2**20

_SHA256 = r"[0-9a-f]{64}\Z"


def is_sha256(text: str) -> bool:
    """Whether this can name a blob."""
    return bool(re.match(_SHA256, text))


@record
class BlobStat:
    """Ask which of these blobs the store lacks."""

    sha256s: tuple[str, ...]
    is_doubted: bool = False
    """They came damaged: the store looks at their bytes, and forgets those that are not what their name says."""


@record
class BlobMissing:
    """Those it lacks, in the order asked."""

    sha256s: tuple[str, ...]


@record
class BlobPut:
    """One chunk in the body. Chunks of one blob come in order; the last makes it visible, if the hash is right."""

    sha256: str
    size_bytes: int
    """Of the whole blob."""
    offset: int = 0


@record
class BlobGet:
    """Ask for one chunk; the answer's body holds it."""

    sha256: str
    offset: int = 0
    length: int = CHUNK_BYTES


@record
class BlobChunk:
    """The answer to `BlobGet`."""

    size_bytes: int
    """Of the whole blob."""
    offset: int = 0
