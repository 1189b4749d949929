"""The records of an EROFS image as they lie on disk, all little-endian."""

from __future__ import annotations

import os
import stat
import struct
from typing import NamedTuple

from squall.erofs.errors import BadImage

BLOCK_BITS = 12
BLOCK_BYTES = 1 << BLOCK_BITS
SLOT_BYTES = 32
"""Inodes begin at multiples of this; a node's number is its offset divided by it."""

SUPERBLOCK_OFFSET = 1024
MAGIC = 0xE0F5E1E2
HAS_CHECKSUM = 0x1
HAS_MTIME = 0x2
HAS_CHUNKED_FILES = 0x4
"""The one incompatible feature of our images; the two above are compatible ones."""

FLAT_PLAIN = 0
"""All of the content in blocks of its own."""
FLAT_INLINE = 2
"""Whole blocks, then the rest right behind the inode."""
CHUNKED = 4
"""A table of block addresses behind the inode, one for each chunk; `HOLE` for one that is all zeros."""

HOLE = 0xFFFFFFFF
CHUNK_BITS_MAX = 31
NAME_BYTES_MAX = 255
LINK_BYTES_MAX = BLOCK_BYTES - 1
XATTR_VALUE_BYTES_MAX = 0xFFFF

# magic, checksum, compatible features, block bits, slots; root, inodes, time, its nanoseconds, blocks, metadata and
# shared attributes at, uuid, name, incompatible features; six fields of features we do not use, and reserved ones.
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ24x")
_INODE = struct.Struct("<HHHHQIIIIQII16x")
_COMPACT_INODE = struct.Struct("<HHHHIIIIHHI")
_DIRENT = struct.Struct("<QHBx")
_XATTR = struct.Struct("<BBH")

INODE_BYTES = _INODE.size
DIRENT_BYTES = _DIRENT.size
XATTR_HEADER_BYTES = 12
CHUNK_ENTRY_BYTES = 4

_FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}

# A name is stored as the number of its prefix and the rest. The two whole names of access control lists come first:
# `system.` alone has no number.
_XATTR_PREFIXES = (
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
)


class Superblock(NamedTuple):
    """What an image says of itself."""

    root: int
    """The number of the root's node."""
    inodes: int
    blocks: int
    metadata_block: int = 0
    """Where node numbers are counted from."""


class Inode(NamedTuple):
    """A node as it lies on disk."""

    layout: int
    xattr_bytes: int
    """What its attributes occupy, header included."""
    mode: int
    size: int
    place: int
    """The first block of the content, the device number, or the format of the chunks, as `layout` and `mode` say."""
    number: int
    uid: int
    gid: int
    mtime_ns: int
    links: int
    head_bytes: int = INODE_BYTES
    """What the record itself occupies: 64, or 32 in images that others have made."""


class Dirent(NamedTuple):
    """A name in a directory."""

    name: bytes
    node: int
    file_type: int


def pack_superblock(superblock: Superblock) -> bytes:
    """128 bytes, without their checksum; the time of making, id and name are zero in every image of ours."""
    return _SUPERBLOCK.pack(
        MAGIC,
        0,
        HAS_CHECKSUM | HAS_MTIME,
        BLOCK_BITS,
        0,
        superblock.root,
        superblock.inodes,
        0,
        0,
        superblock.blocks,
        superblock.metadata_block,
        0,
        bytes(16),
        bytes(16),
        HAS_CHUNKED_FILES,
        *(0,) * 7,
    )


def read_superblock(block: bytes) -> Superblock:
    """Read the first block of an image.

    Raises:
        BadImage: it is none, is damaged, or has features we do not read.
    """
    if len(block) < BLOCK_BYTES:
        raise BadImage(f"not an EROFS image: {len(block)} bytes are less than a block")
    fields = _SUPERBLOCK.unpack_from(block, SUPERBLOCK_OFFSET)
    magic, checksum, compatible, block_bits, _, root, inodes, _, _, blocks, metadata_block, *_ = fields
    incompatible = fields[14]
    if magic != MAGIC:
        raise BadImage("not an EROFS image: its magic number is missing")
    if block_bits != BLOCK_BITS or incompatible & ~HAS_CHUNKED_FILES:
        raise BadImage(f"cannot read EROFS image: block size 2^{block_bits}, features {incompatible:#x}")
    if compatible & HAS_CHECKSUM and checksum != superblock_checksum(block):
        raise BadImage("damaged EROFS image: the checksum of its superblock is wrong")
    return Superblock(root, inodes, blocks, metadata_block)


def superblock_checksum(block: bytes) -> int:
    """The checksum that belongs into an image whose first block this is: CRC-32C from the superblock to the end."""
    covered = bytearray(block[SUPERBLOCK_OFFSET:BLOCK_BYTES])
    covered[4:8] = bytes(4)
    value = 0xFFFFFFFF
    for byte in covered:
        value = _CRC32C[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value


def _crc32c_table() -> tuple[int, ...]:
    table: list[int] = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C = _crc32c_table()


def pack_inode(inode: Inode) -> bytes:
    """64 bytes; the attributes, and what `layout` puts behind them, follow."""
    count = 0 if not inode.xattr_bytes else (inode.xattr_bytes - XATTR_HEADER_BYTES) // 4 + 1
    seconds, nanoseconds = divmod(inode.mtime_ns, 1_000_000_000)
    return _INODE.pack(
        1 | inode.layout << 1,
        count,
        inode.mode,
        0,
        inode.size,
        inode.place,
        inode.number,
        inode.uid,
        inode.gid,
        # Times before 1970 are two's complement.
        seconds & 0xFFFFFFFFFFFFFFFF,
        nanoseconds,
        inode.links,
    )


def read_inode(data: bytes) -> Inode:
    """Read a node from the 64 bytes at its place.

    Raises:
        BadImage: its time cannot be.
    """
    form = int.from_bytes(data[:2], "little")
    layout = form >> 1 & 0x7
    if not form & 1:
        _, count, mode, links, size, _, place, number, uid, gid, _ = _COMPACT_INODE.unpack_from(data)
        return Inode(layout, _xattr_bytes(count), mode, size, place, number, uid, gid, 0, links, _COMPACT_INODE.size)
    _, count, mode, _, size, place, number, uid, gid, seconds, nanoseconds, links = _INODE.unpack_from(data)
    if nanoseconds >= 1_000_000_000:
        raise BadImage("damaged EROFS image: a time has too many nanoseconds")
    seconds -= (seconds >> 63) << 64
    mtime_ns = seconds * 1_000_000_000 + nanoseconds
    return Inode(layout, _xattr_bytes(count), mode, size, place, number, uid, gid, mtime_ns, links)


def _xattr_bytes(count: int) -> int:
    return 0 if not count else XATTR_HEADER_BYTES + 4 * (count - 1)


def pack_xattrs(xattrs: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The attributes of a node as they follow its record; nothing for none."""
    if not xattrs:
        return b""
    parts = [bytes(XATTR_HEADER_BYTES)]
    for name, value in xattrs:
        index, rest = _split(name)
        entry = _XATTR.pack(len(rest), index, len(value)) + rest + value
        parts.append(entry + bytes(-len(entry) % 4))
    return b"".join(parts)


def is_storable(name: bytes) -> bool:
    """Whether the format has a number for the prefix of this attribute's name."""
    return any(name.startswith(prefix) for prefix, _ in _XATTR_PREFIXES)


def _split(name: bytes) -> tuple[int, bytes]:
    for prefix, index in _XATTR_PREFIXES:
        if name.startswith(prefix):
            return index, name[len(prefix) :]
    raise ValueError(f"no prefix of {name!r} has a number")


def read_xattrs(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Read what `pack_xattrs` made.

    Raises:
        BadImage: the lengths are wrong, or attributes are shared between nodes, which ours never are.
    """
    if not data:
        return ()
    if data[4]:
        raise BadImage("cannot read EROFS image: it shares attributes between nodes")
    prefixes = {index: prefix for prefix, index in _XATTR_PREFIXES}
    found: list[tuple[bytes, bytes]] = []
    at = XATTR_HEADER_BYTES
    while at + _XATTR.size <= len(data):
        name_bytes, index, value_bytes = _XATTR.unpack_from(data, at)
        at += _XATTR.size
        end = at + name_bytes + value_bytes
        if index not in prefixes or end > len(data):
            raise BadImage("damaged EROFS image: an extended attribute does not fit its node")
        found.append((prefixes[index] + data[at : at + name_bytes], data[at + name_bytes : end]))
        at = end + -end % 4
    return tuple(found)


def file_type(mode: int) -> int:
    """The kind of file as names in directories say it."""
    return _FILE_TYPES[stat.S_IFMT(mode)]


def encode_device(device: int) -> int:
    """A device number as the kernel writes it in 32 bits."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def decode_device(place: int) -> int:
    """The device number of a node."""
    return os.makedev((place & 0xFFF00) >> 8, (place & 0xFF) | ((place >> 12) & 0xFFF00))


def directory_blocks(names: list[bytes]) -> list[int]:
    """How many of the sorted names go in each block of a directory."""
    counts: list[int] = []
    count = used = 0
    for name in names:
        wanted = DIRENT_BYTES + len(name)
        if used + wanted > BLOCK_BYTES:
            counts.append(count)
            count = used = 0
        count += 1
        used += wanted
    counts.append(count)
    return counts


def directory_bytes(names: list[bytes], counts: list[int]) -> int:
    """The size of a directory of these sorted names, laid out as `directory_blocks` says."""
    last = names[len(names) - counts[-1] :]
    return (len(counts) - 1) * BLOCK_BYTES + sum(DIRENT_BYTES + len(name) for name in last)


def pack_directory_block(entries: list[Dirent]) -> bytes:
    """One block of a directory, as long as its entries need."""
    at = DIRENT_BYTES * len(entries)
    records: list[bytes] = []
    for entry in entries:
        records.append(_DIRENT.pack(entry.node, at, entry.file_type))
        at += len(entry.name)
    return b"".join((*records, *(entry.name for entry in entries)))


def read_directory_block(block: bytes) -> list[Dirent]:
    """Read the entries of a block that `pack_directory_block` made, zeros behind it or not.

    Raises:
        BadImage: an offset points out of the block.
    """
    if len(block) < DIRENT_BYTES:
        raise BadImage("damaged EROFS image: a block of a directory is too short")
    first = _DIRENT.unpack_from(block)[1]
    count, rest = divmod(first, DIRENT_BYTES)
    if rest or not count or first > len(block):
        raise BadImage("damaged EROFS image: a block of a directory has no sensible number of names")
    records = [_DIRENT.unpack_from(block, DIRENT_BYTES * index) for index in range(count)]
    ends = [record[1] for record in records[1:]] + [len(block)]
    found: list[Dirent] = []
    for (node, at, kind), end in zip(records, ends, strict=True):
        name = block[at:end].rstrip(b"\0")
        if (
            not first <= at < end <= len(block)
            or not name
            or len(name) > NAME_BYTES_MAX
            or b"/" in name
            or b"\0" in name
        ):
            raise BadImage("damaged EROFS image: a name in a directory does not fit its block")
        found.append(Dirent(name, node, kind))
    return found
