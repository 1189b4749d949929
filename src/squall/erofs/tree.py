"""Reads a directory into nodes: everything an image keeps of it but the contents of its files."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from squall.erofs import layout
from squall.erofs.errors import PackError

# What overlayfs must find again in a layer: that a directory hides what is below, and where a renamed one was. Its
# other marks name file handles of the machine that the layer was made on.
OPAQUE, REDIRECT = b"trusted.overlay.opaque", b"trusted.overlay.redirect"
_KEPT_OVERLAY_MARKS = (OPAQUE, REDIRECT)
# Labels of the machine, and hashes that are right on that machine only.
_DROPPED = (b"security.selinux", b"security.ima", b"security.evm", b"trusted.")

_PIECE_BYTES = 1024 * 1024


@dataclass(slots=True, eq=False)
class Node:
    """One file, directory, link, device, socket or pipe, however many names it has."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    """Bytes of content. A directory's are counted when its names are known."""
    links: int = 1
    device: int = 0
    target: bytes = b""
    """Where a symbolic link points."""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    data: tuple[tuple[int, int], ...] | None = None
    """Of a file with holes: where its data is, as pairs of begin and end. None: everywhere."""
    children: dict[bytes, Node] = field(default_factory=dict)
    """Of a directory, in the order of the names' bytes."""
    path: bytes = b""
    """Of a file: the first of its names, relative to the root of the tree; of one that is lent, where that is."""


class Contents(Protocol):
    """One file of a source, open."""

    @property
    def size(self) -> int:
        """What it has now."""

    def read(self, begin: int, size: int) -> bytes:
        """A part of it; less when it ends there."""

    def copy(self, begin: int, size: int, target: int, at: int) -> int:
        """Write a part of it to an offset of an open file; returns how much that was, 0 when it ends there."""

    def close(self) -> None:
        """Let go of it."""


class Source(Protocol):
    """What an image is made of."""

    @property
    def name(self) -> str:
        """What errors call it."""

    def read(self) -> Node:
        """The node of the root, with all others below it. Read once: whoever reads them may change them.

        Raises:
            PackError: something in the tree cannot be in an image.
        """

    def content(self, node: Node) -> bytes:
        """All of a small file of the tree that was read; one byte more than it had when it has grown."""

    def open(self, node: Node) -> Contents:
        """A large one."""


class Lent:
    """Files that a tree only has links to, and that an image of it has itself.

    Args:
        prefix: links that begin with it, and a slash, count.
        folders: what the prefix stands for; the first that has a file lends it.
    """

    def __init__(self, prefix: str, folders: Sequence[str]) -> None:
        self._prefix = os.fsencode(prefix) + b"/"
        self._folders = [os.path.realpath(os.fsencode(folder)) for folder in folders]
        self._is_plain: dict[bytes, bool] = {}

    def find(self, target: bytes) -> tuple[bytes, os.stat_result] | None:
        """The file that a link stands for, if it is a file of ours, and none that leads out again."""
        if not target.startswith(self._prefix):
            return None
        inside = target[len(self._prefix) :]
        if not all(part not in (b"", b".", b"..") for part in inside.split(b"/")):
            return None
        for folder in self._folders:
            path = folder + b"/" + inside
            if not self._is_plain_directory(os.path.dirname(path)):
                continue
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                return (path, status) if stat.S_ISREG(status.st_mode) else None
        return None

    def _is_plain_directory(self, path: bytes) -> bool:
        if path not in self._is_plain:
            self._is_plain[path] = os.path.realpath(path) == path
        return self._is_plain[path]


class Scan:
    """A directory, open: its nodes, and later the contents of its files.

    Paths are looked up below one open descriptor, so that nobody can put another tree in its place meanwhile.
    """

    def __init__(self, root: str, lent: Lent | None = None) -> None:
        """Open the directory `root`, to be used in a `with` block."""
        self.name = root
        self._lent = lent
        self._descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._prefix = b"/proc/self/fd/%d/" % self._descriptor
        self._several_names: dict[tuple[int, int], Node] = {}

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def read(self) -> Node:
        """The node of the root, with all others below it.

        Raises:
            PackError: something in the tree cannot be in an image.
        """
        root = self._node(b"", os.stat(self._descriptor), self._prefix + b".")
        # A list and not recursion: how deep a tree is, a stranger decides.
        waiting = [(root, b"")]
        while waiting:
            parent, directory = waiting.pop()
            descriptor = self._open_directory(directory)
            try:
                # Names in an open directory: the kernel need not walk down to each of them.
                prefix = b"/proc/self/fd/%d/" % descriptor
                for name, status in _entries(descriptor):
                    path = directory + name
                    child = parent.children[name] = self._node(path, status, prefix + name)
                    if stat.S_ISDIR(status.st_mode):
                        parent.links += 1
                        waiting.append((child, path + b"/"))
            finally:
                os.close(descriptor)
        return root

    def content(self, node: Node) -> bytes:
        """See `Source`."""
        descriptor = self._open(node)
        try:
            return os.read(descriptor, node.size + 1)
        finally:
            os.close(descriptor)

    def open(self, node: Node) -> Contents:
        """See `Source`."""
        return _File(self._open(node))

    def _open(self, node: Node) -> int:
        return os.open(node.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._descriptor)

    def _open_directory(self, path: bytes) -> int:
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(path or b".", flags, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise PackError(
                f"cannot pack {self.name}: directories in it are nested so deeply that no program can name what is in "
                f"them; remove those below {_shown(path[:60])}…"
            ) from error

    def _node(self, path: bytes, status: os.stat_result, place: bytes) -> Node:
        """The node of a path in the tree, which is also called `place`."""
        kind = stat.S_IFMT(status.st_mode)
        has_several_names = kind != stat.S_IFDIR and status.st_nlink > 1
        if has_several_names:
            known = self._several_names.get((status.st_dev, status.st_ino))
            if known is not None:
                known.links += 1
                return known
        node = Node(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, path=path)
        if has_several_names:
            self._several_names[status.st_dev, status.st_ino] = node
        if kind == stat.S_IFREG:
            node.size = status.st_size
            if status.st_blocks * 512 < status.st_size:
                node.data = self._data_of(node)
        elif kind == stat.S_IFDIR:
            # Its own `.` and the name in its parent; `read` adds the `..` of each directory in it.
            node.links = 2
        elif kind == stat.S_IFLNK:
            node.target = os.readlink(place)
            if self._lent is not None and (found := self._lent.find(node.target)) is not None:
                _become_file(node, *found)
                return node
            node.size = len(node.target)
            if node.size > layout.LINK_BYTES_MAX:
                raise PackError(f"cannot pack {self.name}: link {_shown(path)} points to a path of {node.size} bytes")
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            node.device = status.st_rdev
        node.xattrs = _xattrs(place)
        return node

    def _data_of(self, node: Node) -> tuple[tuple[int, int], ...] | None:
        found: list[tuple[int, int]] = []
        descriptor = self._open(node)
        try:
            at = 0
            while at < node.size:
                try:
                    begin = os.lseek(descriptor, at, os.SEEK_DATA)
                except OSError as error:
                    if error.errno != errno.ENXIO:
                        raise
                    break
                at = os.lseek(descriptor, begin, os.SEEK_HOLE)
                found.append((begin, min(at, node.size)))
        finally:
            os.close(descriptor)
        return None if found == [(0, node.size)] else tuple(found)


def _become_file(link: Node, path: bytes, status: os.stat_result) -> None:
    """The file itself in the place of the link to it; it belongs to whom the link belonged to."""
    link.mode = stat.S_IFREG | stat.S_IMODE(status.st_mode)
    link.mtime_ns, link.size, link.path, link.target = status.st_mtime_ns, status.st_size, path, b""


def _entries(descriptor: int) -> list[tuple[bytes, os.stat_result]]:
    """What is in a directory, in the order of the names' bytes."""
    with os.scandir(descriptor) as found:
        return sorted((os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found)


def _xattrs(place: bytes) -> tuple[tuple[bytes, bytes], ...]:
    try:
        names = os.listxattr(place, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ()
        raise
    if not names:
        return ()
    found: list[tuple[bytes, bytes]] = []
    for name in sorted(map(os.fsencode, names)):
        is_kept = name in _KEPT_OVERLAY_MARKS or not name.startswith(_DROPPED)
        if is_kept and layout.is_storable(name):
            found.append((name, os.getxattr(place, name, follow_symlinks=False)))
    return tuple(found)


class _File:
    """A file of a directory; what is large the kernel copies."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, begin: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, begin)

    def copy(self, begin: int, size: int, target: int, at: int) -> int:
        try:
            return os.copy_file_range(self._descriptor, target, size, offset_src=begin, offset_dst=at)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        return os.pwrite(target, self.read(begin, min(size, _PIECE_BYTES)), at)

    def close(self) -> None:
        os.close(self._descriptor)


def walk(root: Node) -> Iterator[tuple[bytes, Node, Node]]:
    """Each name of a tree once: the name, its node and its directory. The root is in itself, without a name."""
    yield b"", root, root
    waiting = [iter([(root, name, child) for name, child in root.children.items()])]
    while waiting:
        for parent, name, child in waiting[-1]:
            yield name, child, parent
            if child.children:
                waiting.append(iter([(child, name, one) for name, one in child.children.items()]))
                break
        else:
            waiting.pop()


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
