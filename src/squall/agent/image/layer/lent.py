"""Files that a tree has links to, brought into it where the tree itself becomes the layer.

Where an image is packed of the tree, `squall.erofs.tree` reads them from where they are.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from squall.erofs.tree import Lent


def bring_in(tree: Path, prefix: str, folders: Sequence[str]) -> None:
    """Put copies in the place of links to what is lent."""
    lent = Lent(prefix, folders)
    for folder, directories, names in os.walk(os.fsencode(tree)):
        for name in (*directories, *names):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if not stat.S_ISLNK(status.st_mode) or (found := lent.find(os.readlink(path))) is None:
                continue
            _replace(path, status, *found)


def _replace(link: bytes, status: os.stat_result, source: bytes, found: os.stat_result) -> None:
    """Put a copy in the place of a link. A stranger made the tree: no name that is in it already is written to."""
    descriptor, copy = tempfile.mkstemp(dir=os.path.dirname(link))
    with open(descriptor, "wb") as target, open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW), "rb") as lent:
        shutil.copyfileobj(lent, target)
        os.fchown(target.fileno(), status.st_uid, status.st_gid)
        os.fchmod(target.fileno(), stat.S_IMODE(found.st_mode))
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
    os.rename(copy, link)
