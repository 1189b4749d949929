"""Whether what was saved is still what was saved: found out before it is brought back.

Against disks, and against files that a power loss has cut short: nobody but the machine's root reaches these files.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Mapping

_PIECE_BYTES = 2**20


def checksums(directory: str, tree: str) -> Mapping[str, list[int]]:
    """Size and checksum of each image in a directory, and of the tree below it of that name.

    Raises:
        OSError: something cannot be read.
    """
    found = {entry.name: list(_of_file(entry.path)) for entry in os.scandir(directory) if entry.name.endswith(".img")}
    found[tree] = list(_of_tree(os.path.join(directory, tree)))
    return found


def _of_file(path: str, checksum: int = 0) -> tuple[int, int]:
    size = 0
    # Links in the tree lead where somebody's code wanted them to.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            size += len(piece)
            checksum = zlib.crc32(piece, checksum)
    return size, checksum


def _of_tree(top: str) -> tuple[int, int]:
    """Of names, kinds, modes and contents; where the files lie and when they were written is nothing of it."""
    size = checksum = 0
    for place, directories, names in os.walk(top):
        directories.sort()
        for name in sorted((*directories, *names)):
            path = os.path.join(place, name)
            mode = os.lstat(path).st_mode
            text = f"{os.path.relpath(path, top)}\0{mode:o}\0"
            if stat.S_ISLNK(mode):
                text += os.readlink(path)
            checksum = zlib.crc32(text.encode(errors="surrogateescape"), checksum)
            if stat.S_ISREG(mode):
                grown, checksum = _of_file(path, checksum)
                size += grown
    return size, checksum
