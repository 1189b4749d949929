"""The overlay that a version of a volume is: an image of its tree above a directory of contents.

The marks of a file in the image name a place in that directory, below `CONTENTS`. How the two are put together depends
on what the kernel knows:

    descriptor   the tree is a mount that is attached nowhere, the contents are a data-only layer   Linux 6.13 and newer
    path         the tree is attached for a moment, where nobody sees it; the contents as before    Linux 6.5 and newer
    layer        the contents are a layer as any other, and the tree has a whiteout above them      older ones
"""

from __future__ import annotations

import os
import re
import socket

from squall.runtime import syscalls as sc
from squall.runtime.errors import RuntimeFailure
from squall.runtime.layer_mounts import in_child

CONTENTS = ".squall-contents"
"""The only name in a directory of contents; where these are a layer as any other, it is hidden."""
DESCRIPTOR, PATH, LAYER = "descriptor", "path", "layer"
WAYS = (DESCRIPTOR, PATH, LAYER)
_SINCE = {DESCRIPTOR: (6, 13), PATH: (6, 5), LAYER: (0, 0)}
_PLACE = "/sys"
"""Where the tree is attached for a moment, in a mount namespace of its own: nothing of this is needed there."""


def way_of(release: str) -> str:
    """The way of a kernel of this release."""
    version = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    return next(way for way in WAYS if version >= _SINCE[way])


def make_overlay(subject: str, tree: int, contents: str, writable: str, attributes: int, way: str | None = None) -> int:
    """An overlay of a mount of a tree; attached nowhere; its descriptor.

    Args:
        tree: attached nowhere.
        contents: the directory that has `CONTENTS`.
        writable: a directory with `upper` and `work`; empty for a mount that is only read.
        way: one of `WAYS`; None for this kernel's.

    Raises:
        RuntimeFailure: the kernel refuses it.
    """
    way = way_of(os.uname().release) if way is None else way
    # volatile: without it the end of a mount waits for the disk. What is to last is in a commit.
    written = {"upperdir": f"{writable}/upper", "workdir": f"{writable}/work"} if writable else {}
    options = {**written, "metacopy": "on", "redirect_dir": "on", "index": "off"}
    flags = ("volatile",) if writable else ()
    if way == DESCRIPTOR:
        options = {"datadir+": contents, **options}
        return sc.make_overlay(subject, options, flags, attributes, lower_fd=tree)
    separator = "::" if way == PATH else ":"
    options = {"lowerdir": f"{_PLACE}{separator}{_escaped(contents)}", **options}
    return _made_apart(subject, tree, options, flags, attributes)


def _made_apart(subject: str, tree: int, options: dict[str, str], flags: tuple[str, ...], attributes: int) -> int:
    """As a layer by its path a mount has to be attached: in a namespace of a process that ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def make() -> None:
        sc.mount("none", "/", None, sc.MS_REC | sc.MS_PRIVATE)
        sc.move_mount(tree, _PLACE)
        made = sc.make_overlay(subject, options, flags, attributes)
        socket.send_fds(theirs, [b"\n"], [made])

    try:
        in_child(make, sc.CLONE_NEWNS)
        ours.setblocking(False)
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    except OSError as error:
        raise RuntimeFailure(f"cannot mount {subject}: {error.strerror}") from error
    finally:
        ours.close()
        theirs.close()
    if not descriptors:
        raise RuntimeFailure(f"cannot mount {subject}: this process can open no more files")
    return descriptors[0]


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:")
