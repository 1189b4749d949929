"""Writes an image: metadata into its blocks, contents behind them, from the first byte to the last."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from squall.erofs import layout
from squall.erofs.errors import PackError
from squall.erofs.layout import BLOCK_BYTES, Dirent, Inode, Superblock
from squall.erofs.placement import Place, Placement, place
from squall.erofs.tree import Contents, Lent, Node, Scan, Source

# Files up to this size are read whole and written together; larger ones are copied by the kernel, beside that.
_SMALL_BYTES = 128 * 1024
_BUFFER_BYTES = 1024 * 1024


def pack(tree: str, image: Path, lent: Lent | None = None) -> int:
    """Write the directory `tree` as an image, with the files that it has links to; see `write`."""
    with Scan(tree, lent) as scan:
        return write(scan, image)


def write(source: Source, image: Path) -> int:
    """Write a tree as an image to the new file `image` and return its size in bytes.

    The caller owns both: nothing changes the tree meanwhile, and a file that is half-written when this fails is his to
    remove. Nothing is synced.

    Raises:
        PackError: the tree cannot be an image, a file changed, or the disk is full.
        FileExistsError: `image` is there already.
    """
    descriptor = os.open(image, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        placement = place(source.read())
        _reserve(descriptor, placement, image)
        try:
            with mmap.mmap(descriptor, placement.metadata_blocks * BLOCK_BYTES) as metadata:
                _Writer(source, placement, descriptor, metadata).write()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _disk_full(placement, image, error) from error
        return placement.blocks * BLOCK_BYTES
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, placement: Placement, image: Path) -> None:
    """Take the space, so that a full disk is found out first, and not by a signal while memory is written to."""
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


class _Writer:
    def __init__(self, source: Source, placement: Placement, descriptor: int, metadata: mmap.mmap) -> None:
        self._source = source
        self._placement = placement
        self._descriptor = descriptor
        self._metadata = metadata
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._at = placement.metadata_blocks * BLOCK_BYTES

    def write(self) -> None:
        with _InThread(self._copy_large):
            for one in self._placement.places:
                mode = one.node.mode
                if stat.S_ISREG(mode):
                    self._write_node(one, b"" if not one.size or _is_large(one) else self._content(one))
                elif stat.S_ISDIR(mode):
                    self._write_node(one, b"".join(self._directory(one)))
                else:
                    self._write_node(one, one.node.target)
            self._flush()
        self._write_superblock()

    def _write_superblock(self) -> None:
        root, count = self._placement.places[0], len(self._placement.places)
        superblock = Superblock(root.slot, count, self._placement.blocks)
        at = layout.SUPERBLOCK_OFFSET
        packed = layout.pack_superblock(superblock)
        self._metadata[at : at + len(packed)] = packed
        checksum = layout.superblock_checksum(self._metadata[:BLOCK_BYTES])
        self._metadata[at + 4 : at + 8] = checksum.to_bytes(4, "little")

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

    def _copy_large(self) -> None:
        """Copy the contents of large files to their places."""
        for one in self._placement.places:
            if not stat.S_ISREG(one.node.mode) or not _is_large(one):
                continue
            contents = self._source.open(one.node)
            try:
                if one.layout == layout.CHUNKED:
                    self._copy_chunks(one, contents)
                else:
                    self._copy_whole(one, contents)
            finally:
                contents.close()

    def _copy_whole(self, one: Place, contents: Contents) -> None:
        at, in_blocks = one.block * BLOCK_BYTES, one.size - one.tail_bytes
        self._copy(one, contents, 0, in_blocks, at)
        if one.tail_bytes:
            tail = self._exactly(one, contents.read(in_blocks, one.tail_bytes), one.tail_bytes)
            at = one.offset + one.head_bytes
            self._metadata[at : at + len(tail)] = tail
        if contents.size != one.size:
            raise self._changed(one)

    def _copy_chunks(self, one: Place, contents: Contents) -> None:
        at = one.block * BLOCK_BYTES
        for first, count in _runs(one.chunks):
            begin = first << one.chunk_bits
            size = min(count << one.chunk_bits, one.size - begin)
            self._copy(one, contents, begin, size, at)
            at += -(-size // BLOCK_BYTES) * BLOCK_BYTES

    def _copy(self, one: Place, contents: Contents, begin: int, size: int, at: int) -> None:
        """Copy a part of a file to an offset in the image."""
        done = 0
        while done < size:
            count = contents.copy(begin + done, size - done, self._descriptor, at + done)
            if not count:
                raise self._changed(one)
            done += count

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


class _InThread:
    """Something that goes on beside a `with` block and is over when that ends; its error is raised there."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="large files")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._error = error


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
