"""Which extended attributes of files go into images and come out of them, and how archives write them."""

from __future__ import annotations

RECORD = "SCHILY.xattr."
"""In front of an attribute's name in the extended header of an archive."""
WHITEOUT = ".wh."
"""In front of the name of what a layer hides."""
OPAQUE = ".wh..wh..opq"
"""In a directory that hides all that lower layers have in it."""
_KEPT = frozenset({"security.capability", "system.posix_acl_access", "system.posix_acl_default"})


def is_kept(name: str) -> bool:
    """Whether an attribute means the same on every machine, and nothing to overlayfs."""
    # Not `trusted.`, which is how overlayfs marks directories, nor another system's labels.
    return name in _KEPT or (name.startswith("user.") and not name.startswith("user.overlay."))
