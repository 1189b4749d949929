"""Bytes by content, and the contract of what keeps them. The rules of chunks are those of `protocol/blob.py`."""

from __future__ import annotations

from typing import Protocol

from squall.protocol.blob import CHUNK_BYTES


class BlobStore(Protocol):
    """Keeps blobs under the SHA-256 of their bytes (64 hexadecimal digits, lower case).

    A blob is visible whole and verified, or not at all: whatever dies in the middle leaves an upload that can go on or
    is swept. Every method raises PlatformError: `invalid` for what is no SHA-256, `exhausted` when the disk is full (it
    says what to do), `unavailable` when the bucket cannot be reached.
    """

    async def missing(self, sha256s: tuple[str, ...], *, is_told: bool = True) -> tuple[str, ...]:
        """Those not here, in the order asked, each once. The others stay for half a day, named or not.

        Where nobody `is_told`, `delete_untold` may take them: whoever asks keeps that off until they are named.
        """

    async def put_chunk(self, sha256: str, size_bytes: int, offset: int, data: bytes) -> bool:
        """Add bytes at `offset` of a blob of `size_bytes`; True once the whole blob is here.

        Bytes that are here already are passed over, so several clients may put the same blob at the same time and one
        may begin again after a lost connection. An empty blob is one empty chunk.

        Raises PlatformError `conflict` for a gap (the message says where to go on), `invalid` when the bytes are not
        what the hash says (all that came is forgotten).
        """

    async def get_chunk(self, sha256: str, offset: int = 0, length: int = CHUNK_BYTES) -> tuple[int, bytes]:
        """The size of the whole blob, and at most `length` bytes from `offset`; none at or past its end.

        Raises PlatformError `not_found`.
        """

    def path(self, sha256: str) -> str | None:
        """The blob as a file of this machine, to be linked or read but never written; None when it is none here."""

    async def check(self, sha256: str) -> None:
        """Look at the bytes of a blob, and forget it if they are not what its name says: it can be put again then."""

    async def delete(self, sha256: str) -> None:
        """Forget a blob, half-made ones too; an unknown one is no error."""

    async def delete_untold(self, sha256: str) -> bool:
        """Forget a whole blob, unless somebody was told in the last half day that it is here; whether it went."""

    async def evict(self, bytes_max: int, keep: frozenset[str]) -> int:
        """Delete blobs not in `keep`, oldest first, until all together are below `bytes_max`; bytes deleted.

        A blob that came less than a day ago stays: an input that waits in memory, or one on its way, may name it. So
        does one that `missing` was asked for: a commit that names it may be under way.
        """

    async def sweep(self, older_than_s: float = 24 * 3600.0) -> int:
        """Delete half-made uploads that got nothing for that long; how many."""
