"""Makes a directory of an image, for kernels that cannot mount one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from squall.erofs import layout
from squall.erofs.errors import BadImage
from squall.erofs.reader import Image


def unpack(image: Path, directory: str) -> None:
    """Write what is in an image into an empty directory that nobody else writes to: owners, times, links and holes.

    Raises:
        BadImage: the file is no image or is damaged. What is written by then is the caller's to remove.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Image(image) as opened:
            _Unpacking(opened, b"/proc/self/fd/%d/" % descriptor).write()
    except FileExistsError as error:
        raise BadImage(f"damaged EROFS image: two files are called {error.filename!r}") from error
    except (OverflowError, ValueError) as error:
        raise BadImage(f"damaged EROFS image: {error}") from error
    finally:
        os.close(descriptor)


class _Unpacking:
    def __init__(self, image: Image, prefix: bytes) -> None:
        self._image = image
        self._prefix = prefix
        self._paths: dict[int, bytes] = {}

    def write(self) -> None:
        root = self._image.root
        self._paths[root] = b"."
        directories = [(b"", root)]
        # No name in an image leads out of it: the reader refuses slashes, and a directory is always made, never found.
        for parent, slot in directories:
            for entry in self._image.entries(slot):
                path = parent + entry.name
                if entry.file_type == layout.file_type(stat.S_IFDIR):
                    if entry.node in self._paths:
                        raise BadImage(f"damaged EROFS image: the directory {path!r} has two names")
                    self._paths[entry.node] = path
                    os.mkdir(self._prefix + path, 0o700)
                    directories.append((path + b"/", entry.node))
                elif entry.node in self._paths:
                    os.link(self._prefix + self._paths[entry.node], self._prefix + path, follow_symlinks=False)
                else:
                    self._paths[entry.node] = path
                    self._make(path, entry.node)
        # Last, and from the leaves to the root: writing into a directory changes its time.
        for parent, slot in reversed(directories):
            self._finish(parent or b".", slot)

    def _make(self, path: bytes, slot: int) -> None:
        inode = self._image.inode(slot)
        place = self._prefix + path
        kind = stat.S_IFMT(inode.mode)
        if kind == stat.S_IFREG:
            self._make_file(place, slot, inode.size)
        elif kind == stat.S_IFLNK:
            os.symlink(self._image.target(slot), place)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
            os.mknod(place, kind | 0o600, layout.decode_device(inode.place))
        else:
            raise BadImage(f"damaged EROFS image: {path!r} has the impossible mode {inode.mode:#o}")
        self._finish(path, slot)

    def _make_file(self, place: bytes, slot: int, size: int) -> None:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for offset, data in self._image.content(slot):
                while data:
                    count = os.pwrite(descriptor, data, offset)
                    offset, data = offset + count, data[count:]
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def _finish(self, path: bytes, slot: int) -> None:
        """Owner first, because giving a file away takes its capabilities and set-user-id bits; the time last."""
        inode = self._image.inode(slot)
        place = self._prefix + path
        os.chown(place, inode.uid, inode.gid, follow_symlinks=False)
        for name, value in self._image.xattrs(slot):
            os.setxattr(place, name, value, follow_symlinks=False)
        if not stat.S_ISLNK(inode.mode):
            os.chmod(place, stat.S_IMODE(inode.mode))
        os.utime(place, ns=(inode.mtime_ns, inode.mtime_ns), follow_symlinks=False)
