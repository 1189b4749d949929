"""Writes an image: metadata into its blocks, contents behind them, from the first byte to the last."""

from __future__ import annotations

import bisect
import errno
import itertools
import mmap
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from squall.erofs import layout
from squall.erofs.errors import PackError
from squall.erofs.layout import BLOCK_BYTES, Dirent, Inode, Superblock
from squall.erofs.placement import Place, Placement, place
from squall.erofs.processes import run_parts
from squall.erofs.tree import Contents, Lent, Node, Scan, Source

# Files up to this size are read whole and written together; larger ones are copied by the kernel.
_SMALL_BYTES = 128 * 1024
_BUFFER_BYTES = 1024 * 1024
# Between two pieces of a copy somebody may look whether it is still wanted.
_PIECE_BYTES = 64 * 1024 * 1024
# What a node costs, in bytes that could be copied meanwhile.
_NODE_COST = 100_000
# Below this another process costs more than it saves.
_SHARE_COST_MIN = 32_000_000


def pack(tree: str, image: Path, lent: Lent | None = None, processes: int = 1, *, spare_bytes: int = 0) -> int:
    """Write the directory `tree` as an image, with the files that it has links to; see `write`."""
    with Scan(tree, lent) as scan:
        return write(scan, image, processes, spare_bytes=spare_bytes)


def write(source: Source, image: Path, processes: int = 1, *, spare_bytes: int = 0) -> int:
    """Write a tree as an image to the new file `image` and return its size in bytes.

    The caller owns both: nothing changes the tree meanwhile, and a file that is half-written when this fails is his to
    remove. Nothing is synced.

    Args:
        processes: how many may work at it, where it is large; more than one only in a program of one thread.
        spare_bytes: of the disk, which others are to find free afterwards.

    Raises:
        PackError: the tree cannot be an image, a file changed, or the disk is full.
        FileExistsError: `image` is there already.
    """
    descriptor = os.open(image, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        placement = place(source.read())
        _reserve(descriptor, placement, image, spare_bytes)
        try:
            with mmap.mmap(descriptor, placement.metadata_blocks * BLOCK_BYTES) as metadata:
                parts = _shares(placement.places, processes)
                run_parts([_Writer(source, placement, descriptor, metadata).write(part) for part in parts])
                _write_superblock(placement, metadata)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _disk_full(placement, image, error) from error
        return placement.blocks * BLOCK_BYTES
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, placement: Placement, image: Path, spare_bytes: int) -> None:
    """Take the space, so that a full disk is found out first, and not by a signal while memory is written to."""
    state = os.fstatvfs(descriptor)
    if spare_bytes and state.f_bavail * state.f_frsize < placement.blocks * BLOCK_BYTES + spare_bytes:
        raise PackError(
            f"cannot write image {image}: it needs {placement.blocks * BLOCK_BYTES / 1e6:.0f} MB, and of "
            f"{state.f_bavail * state.f_frsize / 1e6:.0f} MB that are free there {spare_bytes / 1e6:.0f} MB are kept; "
            "free some space there, or put the data directory on a larger disk"
        )
    try:
        os.posix_fallocate(descriptor, 0, placement.blocks * BLOCK_BYTES)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise _disk_full(placement, image, error) from error


def _disk_full(placement: Placement, image: Path, error: OSError) -> PackError:
    return PackError(
        f"cannot write image {image}: {error.strerror} (it needs {placement.blocks * BLOCK_BYTES / 1e6:.0f} MB); free "
        "some space there"
    )


def _write_superblock(placement: Placement, metadata: mmap.mmap) -> None:
    superblock = Superblock(placement.places[0].slot, len(placement.places), placement.blocks)
    at = layout.SUPERBLOCK_OFFSET
    packed = layout.pack_superblock(superblock)
    metadata[at : at + len(packed)] = packed
    checksum = layout.superblock_checksum(metadata[:BLOCK_BYTES])
    metadata[at + 4 : at + 8] = checksum.to_bytes(4, "little")


def _shares(places: Sequence[Place], processes: int) -> list[Sequence[Place]]:
    """The nodes in as many parts of about the same work, at most, as are worth a process each."""
    ends = list(itertools.accumulate(_NODE_COST + one.block_count * BLOCK_BYTES for one in places))
    count = max(1, min(processes, ends[-1] // _SHARE_COST_MIN))
    cuts = [bisect.bisect(ends, ends[-1] * number // count) for number in range(1, count)]
    return [places[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(places)])]


class _Writer:
    def __init__(self, source: Source, placement: Placement, descriptor: int, metadata: mmap.mmap) -> None:
        self._source = source
        self._placement = placement
        self._descriptor = descriptor
        self._metadata = metadata
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._at = placement.metadata_blocks * BLOCK_BYTES

    def write(self, places: Sequence[Place]) -> Iterator[None]:
        """Write these nodes and what they hold, one after the other."""
        for one in places:
            mode = one.node.mode
            if stat.S_ISREG(mode):
                is_large = _is_large(one)
                self._write_node(one, b"" if not one.size or is_large else self._content(one))
                if is_large:
                    yield from self._copy_large(one)
            elif stat.S_ISDIR(mode):
                self._write_node(one, b"".join(self._directory(one)))
            else:
                self._write_node(one, one.node.target)
            yield
        self._flush()

    def _write_node(self, one: Place, content: bytes) -> None:
        """Write an inode and its content; of a large file, which is copied, the inode only."""
        node = one.node
        value = one.block
        if one.layout == layout.CHUNKED:
            value = one.chunk_bits - layout.BLOCK_BITS
        elif node.device:
            value = layout.encode_device(node.device)
        inode = Inode(
            one.layout,
            len(one.xattrs),
            node.mode,
            one.size,
            value,
            one.number,
            node.uid,
            node.gid,
            node.mtime_ns,
            node.links,
        )
        head = layout.pack_inode(inode) + one.xattrs
        if one.layout == layout.CHUNKED:
            head += _chunk_table(one)
        if content:
            in_blocks = len(content) - one.tail_bytes
            head += content[in_blocks:]
            if in_blocks:
                self._write_blocks(one, content[:in_blocks])
        self._metadata[one.offset : one.offset + len(head)] = head

    def _directory(self, one: Place) -> Iterator[bytes]:
        of = self._placement.of
        children = one.node.children
        nodes: dict[bytes, Node] = {b".": one.node, b"..": one.parent, **children}
        names = sorted(nodes)
        at = 0
        for count in one.blocks_of_names:
            found = [(name, nodes[name]) for name in names[at : at + count]]
            entries = [Dirent(name, of[node].slot, layout.file_type(node.mode)) for name, node in found]
            at += count
            block = layout.pack_directory_block(entries)
            # All but the last are whole blocks.
            yield block if at == len(names) else block.ljust(BLOCK_BYTES, b"\0")

    def _content(self, one: Place) -> bytes:
        """The content of a small file."""
        return self._exactly(one, self._source.content(one.node), one.size)

    def _copy_large(self, one: Place) -> Iterator[None]:
        """Copy the content of a large file to its place, a piece at a time."""
        contents = self._source.open(one.node)
        try:
            if one.layout == layout.CHUNKED:
                yield from self._copy_chunks(one, contents)
            else:
                yield from self._copy_whole(one, contents)
        finally:
            contents.close()

    def _copy_whole(self, one: Place, contents: Contents) -> Iterator[None]:
        at, in_blocks = one.block * BLOCK_BYTES, one.size - one.tail_bytes
        yield from self._copy(one, contents, 0, in_blocks, at)
        if one.tail_bytes:
            tail = self._exactly(one, contents.read(in_blocks, one.tail_bytes), one.tail_bytes)
            at = one.offset + one.head_bytes
            self._metadata[at : at + len(tail)] = tail
        if contents.size != one.size:
            raise self._changed(one)

    def _copy_chunks(self, one: Place, contents: Contents) -> Iterator[None]:
        at = one.block * BLOCK_BYTES
        for first, count in _runs(one.chunks):
            begin = first << one.chunk_bits
            size = min(count << one.chunk_bits, one.size - begin)
            yield from self._copy(one, contents, begin, size, at)
            at += -(-size // BLOCK_BYTES) * BLOCK_BYTES

    def _copy(self, one: Place, contents: Contents, begin: int, size: int, at: int) -> Iterator[None]:
        """Copy a part of a file to an offset in the image."""
        done = 0
        while done < size:
            piece = min(size - done, _PIECE_BYTES)
            count = contents.copy(begin + done, piece, self._descriptor, at + done)
            if not count:
                raise self._changed(one)
            done += count
            yield

    def _exactly(self, one: Place, content: bytes, size: int) -> bytes:
        if len(content) != size:
            raise self._changed(one)
        return content

    def _write_blocks(self, one: Place, content: bytes) -> None:
        """Write content into blocks, together with what comes right before and behind it."""
        at = one.block * BLOCK_BYTES
        if at != self._at + self._pending_bytes or self._pending_bytes >= _BUFFER_BYTES:
            self._flush()
            self._at = at
        rest = -len(content) % BLOCK_BYTES
        self._pending.append(content)
        self._pending.append(bytes(rest))
        self._pending_bytes += len(content) + rest

    def _flush(self) -> None:
        data = memoryview(b"".join(self._pending))
        self._pending.clear()
        self._pending_bytes = 0
        while data:
            count = os.pwrite(self._descriptor, data, self._at)
            self._at += count
            data = data[count:]

    def _changed(self, one: Place) -> PackError:
        path = os.path.join(self._source.name, one.node.path.decode("utf-8", "backslashreplace"))
        return PackError(f"cannot pack {path}: it changed while it was read; let nothing write there meanwhile")


def _is_large(one: Place) -> bool:
    """Whether a file's content is copied and not read."""
    return one.size > _SMALL_BYTES or one.layout == layout.CHUNKED


def _runs(chunks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Chunks that follow one another: the first, and how many."""
    first = count = 0
    for chunk in chunks:
        if chunk != first + count:
            if count:
                yield first, count
            first, count = chunk, 0
        count += 1
    if count:
        yield first, count


def _chunk_table(one: Place) -> bytes:
    count = -(-one.size >> one.chunk_bits)
    per_chunk = 1 << (one.chunk_bits - layout.BLOCK_BITS)
    table = [layout.HOLE] * count
    for position, chunk in enumerate(one.chunks):
        table[chunk] = one.block + position * per_chunk
    return b"".join(address.to_bytes(4, "little") for address in table)
