"""Files that a tree has links to, brought into it where the tree itself becomes the layer.

Where an image is packed of the tree, `squall.erofs.tree` reads them from where they are.
"""

from __future__ import annotations

import os
import shutil
import stat
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
            copy = path + b".squall-new"
            shutil.copyfile(found[0], copy, follow_symlinks=False)
            os.chown(copy, status.st_uid, status.st_gid)
            shutil.copystat(found[0], copy, follow_symlinks=False)
            os.rename(copy, path)
