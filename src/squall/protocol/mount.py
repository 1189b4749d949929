"""The user's code and files on their way into a container: a manifest of content-addressed files."""

from __future__ import annotations

import json

from squall.protocol.hashing import sha256_hex
from squall.protocol.records import record

BLOCK_BYTES = 8 * 2**20
"""A larger file travels in blocks of this size, the last one shorter: what is known of it need not be sent again."""


@record
class MountFile:
    """One file of a mount."""

    path: str
    """Relative to the mount's target, with forward slashes, no `..`."""
    sha256: str
    """Of the whole content."""
    size_bytes: int
    mode: int = 0o644
    blocks: tuple[str, ...] = ()
    """The SHA-256 of each block, if it travels in blocks."""

    @property
    def blobs(self) -> tuple[str, ...]:
        """What its content is in the blob store, one after the other."""
        return self.blocks or (self.sha256,)


@record
class MountManifest:
    """All files of a mount. Equal content has an equal id, whoever makes it."""

    files: tuple[MountFile, ...]
    """Sorted by path."""

    def mount_id(self) -> str:
        """`mo-` and a hash of the manifest."""
        rows = [[file.path, file.sha256, file.size_bytes, file.mode] for file in self.files]
        return "mo-" + sha256_hex(json.dumps(rows, separators=(",", ":")).encode())[:40]


@record
class MountRef:
    """A mount at its place in a container; `target` is an absolute directory. Several mounts may share one target."""

    mount_id: str
    target: str


@record
class MountCreate:
    """Register a manifest; may be repeated."""

    manifest: MountManifest


@record
class MountCreated:
    """The mount's id, and the blobs that must be put before it can be used."""

    mount_id: str
    missing_sha256s: tuple[str, ...] = ()


@record
class MountGet:
    """Ask for a manifest (the agent does, to lay the files out)."""

    mount_id: str
