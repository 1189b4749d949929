"""Writes one layer as the archive that OCI has for it: the same layer gives the same bytes, on any machine.

What overlayfs marks by devices and attributes is said by names here: `.wh.name` hides a name, `.wh..wh..opq` all that
lower layers have in a directory. A directory that was renamed becomes one that hides what is at its new place, with all
that shows in it, because OCI cannot say where it was. Names are in the order of their bytes; owners are numbers; times
have their nanoseconds. Sockets are left out, as archives have none.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from squall.agent.image.oci.attributes import OPAQUE, RECORD, WHITEOUT, is_kept
from squall.erofs import tree
from squall.erofs.image_tree import ImageTree
from squall.erofs.merge import Merged
from squall.erofs.tree import Node, Scan, Source

_PIECE_BYTES = 1 << 20
_ZEROS = bytes(_PIECE_BYTES)
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


class CannotExport(Exception):
    """A layer has something that no image of a registry can hold; the message says what."""


class Writable(Protocol):
    """What an archive is written to."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""


class _Waiting(NamedTuple):
    """Something to be written: at which path, and whose it is."""

    path: tuple[bytes, ...]
    node: Node
    source: Source
    """The layer, or for what is in a moved directory all of them merged."""


def write_archive(layers: Sequence[str], file: Writable, on_line: Callable[[str], None]) -> None:
    """Write the last of these layers, bottom first; of the others is taken what it has moved.

    Args:
        on_line: told what is left out.

    Raises:
        CannotExport: a file has a name that means something else in an image.
        BadImage, PackError, OSError: a layer cannot be read.
    """
    with contextlib.ExitStack() as stack:
        sources: list[Source] = []
        for layer in layers:
            if os.path.isdir(layer):
                sources.append(stack.enter_context(Scan(layer)))
            else:
                sources.append(stack.enter_context(ImageTree(Path(layer))))
        _Archive(sources, file, on_line).write()


class _Archive:
    def __init__(self, sources: Sequence[Source], file: Writable, on_line: Callable[[str], None]) -> None:
        self._sources = sources
        self._file = file
        self._on_line = on_line
        self._merged: tuple[Source, Node] | None = None
        self._written = 0
        self._names: dict[Node, str] = {}

    def write(self) -> None:
        own = self._sources[-1]
        # A list and not recursion: how deep a tree is, a stranger decides.
        waiting = [_Waiting((), own.read(), own)]
        while waiting:
            waiting += reversed(list(self._add(waiting.pop())))
        self._put(bytes(2 * tarfile.BLOCKSIZE))
        self._put(bytes(-self._written % tarfile.RECORDSIZE))

    def _add(self, one: _Waiting) -> Iterator[_Waiting]:
        """Write one thing; gives what is in it."""
        node = one.node
        path = os.fsdecode(b"/".join(one.path))
        name = os.fsdecode(one.path[-1]) if one.path else ""
        if name.startswith(WHITEOUT):
            raise CannotExport(
                f"{path!r} begins with {WHITEOUT}, which in an image of a registry hides a file; rename it in a step"
            )
        if stat.S_ISCHR(node.mode) and node.device == 0:
            self._mark(one.path[:-1], WHITEOUT + name)
        elif stat.S_ISSOCK(node.mode):
            self._on_line(f"left out: {path!r} is a socket")
        elif stat.S_ISDIR(node.mode):
            self._put_header(self._header(node, path or "."))
            yield from self._inside(one)
        else:
            self._add_file(one.source, node, path)

    def _inside(self, one: _Waiting) -> Iterator[_Waiting]:
        """What is in a directory, after the mark that it hides others."""
        marks = dict(one.node.xattrs)
        is_opaque, source, node = marks.get(tree.OPAQUE) == b"y", one.source, one.node
        is_moved = tree.REDIRECT in marks and not is_opaque
        if is_opaque or is_moved:
            self._mark(one.path, OPAQUE)
        if is_moved:
            source, node = self._shown(one.path)
        for name, child in sorted(node.children.items()):
            yield _Waiting((*one.path, name), child, source)

    def _shown(self, path: Sequence[bytes]) -> tuple[Source, Node]:
        """A directory with all that shows in it, moved or not."""
        if self._merged is None:
            merged = Merged(self._sources)
            self._merged = merged, merged.read()
        source, node = self._merged
        for name in path:
            node = node.children[name]
        return source, node

    def _add_file(self, source: Source, node: Node, path: str) -> None:
        first = self._names.setdefault(node, path)
        header = self._header(node, path)
        if first != path:
            header.type, header.linkname, header.pax_headers = tarfile.LNKTYPE, first, {}
        elif stat.S_ISLNK(node.mode):
            header.linkname = os.fsdecode(node.target)
        elif node.device:
            header.devmajor, header.devminor = os.major(node.device), os.minor(node.device)
        elif stat.S_ISREG(node.mode):
            header.size = node.size
        self._put_header(header)
        if header.size:
            self._put_content(source, node, path)

    def _put_content(self, source: Source, node: Node, path: str) -> None:
        begun = self._written
        contents = source.open(node)
        try:
            at = 0
            for begin, end in ((0, node.size),) if node.data is None else node.data:
                self._put_zeros(begin - at)
                at = begin
                while at < end and (piece := contents.read(at, min(end - at, _PIECE_BYTES))):
                    self._put(piece)
                    at += len(piece)
            self._put_zeros(node.size - at if node.data is not None else 0)
        finally:
            contents.close()
        if self._written - begun != node.size:
            raise CannotExport(f"{path!r} has {self._written - begun} bytes and should have {node.size}")
        self._put(bytes(-node.size % tarfile.BLOCKSIZE))

    def _put_zeros(self, count: int) -> None:
        for begin in range(0, count, _PIECE_BYTES):
            self._put(_ZEROS[: count - begin])

    def _header(self, node: Node, path: str) -> tarfile.TarInfo:
        header = tarfile.TarInfo(path)
        header.type = _KINDS[stat.S_IFMT(node.mode)]
        header.mode, header.uid, header.gid = stat.S_IMODE(node.mode), node.uid, node.gid
        records: dict[str, str] = {}
        header.mtime, nanoseconds = divmod(node.mtime_ns, 1_000_000_000)
        if nanoseconds:
            records["mtime"] = _time(node.mtime_ns)
        for name, value in sorted(node.xattrs):
            text = os.fsdecode(name)
            if is_kept(text) and "=" in text:
                self._on_line(f"left out: attribute {text!r} of {path!r}; archives have no = in such names")
            elif is_kept(text):
                records[RECORD + text] = value.decode("utf-8", "surrogateescape")
        header.pax_headers = records
        return header

    def _mark(self, parents: Sequence[bytes], name: str) -> None:
        header = tarfile.TarInfo("/".join([*map(os.fsdecode, parents), name]))
        header.mode = 0o600
        self._put_header(header)

    def _put_header(self, header: tarfile.TarInfo) -> None:
        self._put(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._written += len(data)


def _time(time_ns: int) -> str:
    """Seconds since 1970 with all of their digits."""
    seconds, nanoseconds = divmod(abs(time_ns), 1_000_000_000)
    return f"{'-' if time_ns < 0 else ''}{seconds}.{nanoseconds:09}"
