"""Tries what containers are made of, in a process and a mount namespace of its own, so that nothing can be left behind.

Run as a program: `python -m squall.runtime.checks.probe DATA_DIR` prints one JSON object, step to error; an empty
error means that the step worked.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from collections.abc import Callable

from squall.runtime import syscalls as sc
from squall.runtime.errors import RuntimeFailure
from squall.runtime.id_ranges import make_user_namespace
from squall.runtime.removal import mounts_below, remove_tree
from squall.runtime.spec import IdRange

# Any range above the machine's own ids will do: no process runs in it, no file keeps it.
TRIED_RANGE = IdRange(start=0x70000000)


def _try(step: Callable[[], None]) -> str:
    try:
        step()
    except (RuntimeFailure, OSError) as error:
        return str(error)
    return ""


def _map_ids(source: str, target: str) -> None:
    namespace_fd = make_user_namespace(TRIED_RANGE)
    tree_fd = sc.open_tree(source)
    try:
        sc.set_mount_attributes(tree_fd, source, sc.MOUNT_ATTR_IDMAP, user_namespace_fd=namespace_fd)
        sc.move_mount(tree_fd, target)
    finally:
        os.close(tree_fd)
        os.close(namespace_fd)
    owner = os.stat(target).st_uid
    if owner != TRIED_RANGE.start:
        raise RuntimeFailure(f"cannot map the ids of {source}: id 0 appears as {owner} and not as {TRIED_RANGE.start}")


def _overlay(top: str, lower: str) -> None:
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{top}/{name}")
    options = f"lowerdir={lower},upperdir={top}/upper,workdir={top}/work"
    sc.mount("overlay", f"{top}/merged", "overlay", 0, options)
    with open(f"{top}/merged/written", "w", encoding="utf-8") as file:
        file.write("through the overlay")
    if not os.path.exists(f"{top}/upper/written"):
        raise RuntimeFailure(f"cannot write through an overlay on {top}: the file is not in the upper layer")


def _erofs(target: str) -> None:
    try:
        sc.mount("none", target, "erofs", sc.MS_RDONLY)
    except RuntimeFailure as failure:
        cause = failure.__cause__
        # Any other refusal is of the device that we did not give: the file system is known.
        if isinstance(cause, OSError) and cause.errno == errno.ENODEV:
            raise


def probe(data_dir: str) -> dict[str, str]:
    """Try each feature below `data_dir`, which must exist. Changes the calling process's mount namespace."""
    sc.unshare(sc.CLONE_NEWNS)
    sc.mount("none", "/", None, sc.MS_REC | sc.MS_PRIVATE)
    top = tempfile.mkdtemp(prefix=".probe-", dir=data_dir)
    try:
        # The whole tree is on the file system under test; the mounts end with this process.
        for name in ("lower", "mapped"):
            os.mkdir(f"{top}/{name}")
        found = {
            "user namespaces": _try(lambda: os.close(make_user_namespace(TRIED_RANGE))),
            "idmapped mounts": _try(lambda: _map_ids(f"{top}/lower", f"{top}/mapped")),
        }
        # An overlay over an id-mapped layer is what containers have; without id-mapping the plain one tells something
        # too.
        lower = "lower" if found["idmapped mounts"] else "mapped"
        return found | {
            "overlay": _try(lambda: _overlay(top, f"{top}/{lower}")),
            "erofs": _try(lambda: _erofs(f"{top}/lower")),
        }
    finally:
        _remove(top)


def _remove(top: str) -> None:
    for point in mounts_below(top):
        sc.unmount(point)
    remove_tree(top)


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1])))
