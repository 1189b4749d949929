"""Delete a directory tree without ever walking into something mounted.

The only deletion of trees in this project (a test says so). A container's directory may hold overlays, binds of the
machine's own files, or /dev: deleting through such a mount deletes what is mounted, on the machine itself.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from squall.runtime.errors import RuntimeFailure

_ESCAPED = re.compile(r"\\([0-7]{3})")


def mounts_below(path: str, mountinfo_path: str = "/proc/self/mountinfo") -> list[str]:
    """Mount points at or below a path in this mount namespace, deepest first: the order to unmount in."""
    top = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    found = []
    for line in Path(mountinfo_path).read_text().splitlines():
        # Field five is the mount point, with space, tab, newline and backslash as octal escapes.
        point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), line.split(" ")[4])
        if point == top or point.startswith(top + "/"):
            found.append(point)
    return sorted(found, key=lambda point: point.count("/"), reverse=True)


def remove_tree(path: str, mountinfo_path: str = "/proc/self/mountinfo") -> None:
    """Delete a file or a directory with all it holds; absent is no error. A symbolic link is deleted, not followed.

    Blocks, as long as the tree is large.

    Raises:
        RuntimeFailure: something is mounted at or below the path (nothing is deleted then), or the kernel refused.
    """
    path = os.path.abspath(path)
    if mounted := mounts_below(path, mountinfo_path):
        raise RuntimeFailure(f"cannot delete {path}: mounted below it: {', '.join(mounted)}; unmount first")
    # rm, not a walk of ours: it goes by descriptors, so a link swapped in meanwhile leads nowhere; it copes with any
    # depth; and it stays on one file system should something be mounted after the check.
    command = ["rm", "-rf", "--one-file-system", "--preserve-root=all", "--", path]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ended.returncode != 0:
        raise RuntimeFailure(f"cannot delete {path}: {ended.stderr.strip()[:500]}; what could be deleted is gone")
