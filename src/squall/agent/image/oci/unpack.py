"""`python -m squall.agent.image.oci.unpack [--bytes-max N] ROOT FILE=DIGEST...`: lay tar archives over one another.

The layers of an OCI image, uncompressed and in order, become one tree as overlayfs would show them: whiteouts
(`.wh.name`) and opaque directories hide what lower layers have. The archives are strangers' (see `tree.py`), so this is
a program of its own: what an archive can use up is limited, and the agent does not stand still meanwhile. Every archive
is hashed as it is read; a digest that is wrong is an error.

Kept are owners, modes, times to the nanosecond, hard links, and of attributes the capabilities of programs, access
lists and what users may set. Left out are device nodes, attributes that only the kernel may trust (`trusted.`), those
by which overlayfs would hide or move files, and labels of the machine the image was made on.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import os
import resource
import stat
import sys
import tarfile
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import BinaryIO, cast

from squall.agent.image.oci.attributes import OPAQUE, RECORD, WHITEOUT, is_kept
from squall.agent.image.oci.tree import Tree, UnsafePath, names_of

ENTRIES_MAX = 3_000_000
BYTES_MAX = 64 * 2**30
"""Of all files of an image together."""
_MEMORY_BYTES_MAX = 256 * 2**20
_ID_MAX = 65_535
# What every file system here keeps.
_TIME_MIN_NS, _TIME_MAX_NS = -(2**31) * 1_000_000_000, 2**33 * 1_000_000_000
_BLOCK_BYTES = 1 << 20


class BadArchive(Exception):
    """An archive cannot be unpacked; the message says why, and nothing made of it may be used."""


def main(arguments: Sequence[str]) -> int:
    """Unpack; 1 with the reason when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m squall.agent.image.oci.unpack", description=__doc__)
    parser.add_argument("--bytes-max", type=int, default=BYTES_MAX)
    parser.add_argument("root")
    parser.add_argument("layers", nargs="+", metavar="FILE=DIGEST")
    chosen = parser.parse_args(arguments)
    # An archive may claim a header of many gigabytes, which the parser would read into memory.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    os.umask(0)
    try:
        layers = [(path, digest) for path, _, digest in (one.rpartition("=") for one in chosen.layers)]
        unpack(chosen.root, layers, min(chosen.bytes_max, BYTES_MAX))
    except MemoryError:
        print(f"needs more than {_MEMORY_BYTES_MAX >> 20} MiB of memory: a header in it is absurdly long")
    except BadArchive as error:
        print(error)
    else:
        return 0
    return 1


def unpack(root: str, layers: Sequence[tuple[str, str]], bytes_max: int = BYTES_MAX) -> None:
    """Lay archives over one another in an empty directory, each a file with the digest it must have.

    Raises:
        BadArchive: one is not what it should be.
    """
    tree = Tree(root)
    try:
        limits = _Budget(bytes_max)
        times: dict[tuple[str, ...], int] = {}
        for number, (path, digest) in enumerate(layers, start=1):
            try:
                with open(path, "rb") as file:
                    _Layer(tree, limits, times).unpack(file, digest)
            except UnsafePath as error:
                raise BadArchive(f"layer {number}: {error}") from error
            except OSError as error:
                raise BadArchive(f"layer {number}: {error}") from error
            except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
                raise BadArchive(f"layer {number}: no proper tar archive: {error}") from error
        # Last: each file made in a directory changes its time.
        for names, time_ns in times.items():
            with contextlib.suppress(OSError):
                os.utime(tree.directory(names, is_made=False), ns=(time_ns, time_ns))
    finally:
        tree.close()


class _Hashed:
    """A file that is hashed as it is read, from its beginning to its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        chunk = self._file.read(size)
        self._hash.update(chunk)
        return chunk

    def finish(self) -> str:
        """The digest of all of it."""
        while self.read(_BLOCK_BYTES):
            continue
        return f"sha256:{self._hash.hexdigest()}"


class _Budget:
    """What an image may still use."""

    def __init__(self, bytes_max: int) -> None:
        self._entries = ENTRIES_MAX
        self._bytes_max = self._bytes = bytes_max

    def take(self, size_bytes: int) -> None:
        self._entries -= 1
        self._bytes -= size_bytes
        if size_bytes < 0 or self._entries < 0 or self._bytes < 0:
            raise UnsafePath(
                f"more than {ENTRIES_MAX} files, or more than {self._bytes_max >> 20} MiB in them, which is "
                f"SQUALL_STEP_BYTES_MAX, at most {BYTES_MAX >> 30} GiB; give less"
            )


class _Layer:
    """One archive on its way into the tree."""

    def __init__(self, tree: Tree, budget: _Budget, times: dict[tuple[str, ...], int]) -> None:
        self._tree = tree
        self._budget = budget
        self._times = times
        # Inodes this layer made or named: its whiteouts hide what lower layers have, not what it has itself.
        self._own: set[int] = set()

    def unpack(self, file: BinaryIO, digest: str) -> None:
        hashed = _Hashed(file)
        with tarfile.open(fileobj=cast(BinaryIO, hashed), mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
            while (member := tar.next()) is not None:
                # It would keep every header until the end.
                vars(tar)["members"] = []
                self._budget.take(member.size if member.isreg() else 0)
                self._add(tar, member)
            end = tar.offset
        found = hashed.finish()
        if found != digest:
            raise UnsafePath(f"the digest is {found} and should be {digest}: it was changed or cut off")
        # The parser takes a header it cannot read for the end.
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise UnsafePath(f"no proper tar archive: there is no header at byte {end}")

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        names = names_of(member.name)
        if not names:
            self._set_root(member)
            return
        name = names[-1]
        if name.startswith(WHITEOUT):
            self._hide(names[:-1], name)
            return
        if member.ischr() or member.isblk():
            # The runtime gives containers their devices; in an overlay a device 0/0 would hide files.
            return
        parent = self._tree.directory(names[:-1], is_made=True)
        if member.isdir():
            self._add_directory(parent, names, member)
        elif member.islnk():
            self._add_hard_link(parent, name, names_of(member.linkname))
        else:
            self._tree.remove(parent, name)
            self._add_new(tar, parent, name, member)
        status = self._tree.status(parent, name)
        if status is not None:
            self._own.add(status.st_ino)

    def _set_root(self, member: tarfile.TarInfo) -> None:
        if member.isdir():
            root = self._tree.directory((), is_made=False)
            _clear_attributes(root)
            self._give(root, member)
            self._times[()] = _time_ns(member)

    def _hide(self, parents: tuple[str, ...], name: str) -> None:
        try:
            parent = self._tree.directory(parents, is_made=False)
        except (FileNotFoundError, NotADirectoryError):
            return
        if name == OPAQUE:
            for inner in os.listdir(parent):
                self._tree.remove(parent, inner, self._own)
        elif not name.startswith(WHITEOUT * 2):
            hidden = name.removeprefix(WHITEOUT)
            if hidden in ("", ".", ".."):
                raise UnsafePath(f"{'/'.join((*parents, name))!r} hides no file")
            self._tree.remove(parent, hidden, self._own)

    def _add_directory(self, parent: int, names: tuple[str, ...], member: tarfile.TarInfo) -> None:
        status = self._tree.status(parent, names[-1])
        if status is not None and not stat.S_ISDIR(status.st_mode):
            self._tree.remove(parent, names[-1])
            status = None
        if status is None:
            os.mkdir(names[-1], 0o700, dir_fd=parent)
        descriptor = os.open(names[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            if status is not None:
                _clear_attributes(descriptor)
            self._give(descriptor, member)
        finally:
            os.close(descriptor)
        self._times[names] = _time_ns(member)

    def _add_hard_link(self, parent: int, name: str, target: tuple[str, ...]) -> None:
        if not target:
            raise UnsafePath(f"{name!r} is a hard link to nothing")
        try:
            inode = self._tree.inode(target)
        except (FileNotFoundError, NotADirectoryError):
            raise UnsafePath(f"{name!r} is a hard link to {'/'.join(target)!r}, which is not there") from None
        present = self._tree.status(parent, name)
        if present is not None and present.st_ino == inode:
            return
        self._tree.remove(parent, name)
        try:
            self._tree.link(target, parent, name)
        except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
            raise UnsafePath(f"{name!r} cannot be a hard link to {'/'.join(target)!r}: {error.strerror}") from None

    def _add_new(self, tar: tarfile.TarFile, parent: int, name: str, member: tarfile.TarInfo) -> None:
        time_ns = _time_ns(member)
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.isfifo():
            os.mkfifo(name, stat.S_IMODE(member.mode), dir_fd=parent)
        elif member.isreg():
            content = tar.extractfile(member)
            assert content is not None, "a regular file has content"
            descriptor = self._tree.make_file(parent, name, cast(BinaryIO, content), member.size)
            try:
                self._give(descriptor, member)
                os.utime(descriptor, ns=(time_ns, time_ns))
            finally:
                os.close(descriptor)
            return
        else:
            raise UnsafePath(f"{member.name!r} is of an unknown kind ({member.type!r})")
        self._tree.give_name(parent, name, *_owner(member))
        os.utime(name, ns=(time_ns, time_ns), dir_fd=parent, follow_symlinks=False)

    def _give(self, descriptor: int, member: tarfile.TarInfo) -> None:
        self._tree.give(descriptor, *_owner(member), stat.S_IMODE(member.mode))
        for key, value in member.pax_headers.items():
            if key.startswith(RECORD):
                self._set_attribute(descriptor, key.removeprefix(RECORD), value.encode("utf-8", "surrogateescape"))

    def _set_attribute(self, descriptor: int, name: str, value: bytes) -> None:
        if not is_kept(name):
            return
        try:
            os.setxattr(descriptor, name, value)
        except OSError as error:
            # A file system without them, or a user who may not: then the file has none, as after a copy. The rest is
            # a disk that is full, or a value that the kernel does not take.
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


def _clear_attributes(descriptor: int) -> None:
    """A directory that a layer has again is as that layer says, in its attributes as well."""
    for name in os.listxattr(descriptor):
        if is_kept(name):
            os.removexattr(descriptor, name)


def _owner(member: tarfile.TarInfo) -> tuple[int, int]:
    if not (0 <= member.uid <= _ID_MAX and 0 <= member.gid <= _ID_MAX):
        raise UnsafePath(f"{member.name!r} belongs to {member.uid}:{member.gid}; containers have ids up to {_ID_MAX}")
    return member.uid, member.gid


def _time_ns(member: tarfile.TarInfo) -> int:
    """When a file was changed. The parser has made a number of it that is wrong by hundreds of nanoseconds."""
    try:
        exact = Decimal(member.pax_headers.get("mtime", "") or member.mtime)
        if not exact.is_finite():
            raise UnsafePath(f"{member.name!r} has no proper time")
    except InvalidOperation:
        raise UnsafePath(f"{member.name!r} has no proper time") from None
    return int(min(max(exact * 1_000_000_000, Decimal(_TIME_MIN_NS)), Decimal(_TIME_MAX_NS)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
