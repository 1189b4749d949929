"""What a tree has: files, directories, symbolic links; and how they are written down."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

FILE, DIRECTORY, SYMLINK = "f", "d", "l"
HOLE = ""
"""In the place of a block's name: zeros that nobody keeps."""


class Entry(NamedTuple):
    """One name of a directory, with what it stands for."""

    name: str
    """Bytes that are no UTF-8 are surrogates, as everywhere in Python."""
    kind: str
    mode: int = 0o644
    """Permission bits."""
    mtime_ns: int = 0
    """Since 1970."""
    uid: int = 0
    gid: int = 0
    """As in containers."""
    size: int = 0
    """Bytes of a file; of a directory, those of all files below."""
    blocks: tuple[str, ...] = ()
    """Of a file, the SHA-256 of each of its blocks, in order. All but the last have `BLOCK_BYTES`."""
    offset: int = 0
    """Where in its only block a small file begins: many share one."""
    block_list: str = ""
    """Of a file of very many blocks, in their place: the node that lists them."""
    target: str = ""
    """Of a symbolic link."""
    node: str = ""
    """Of a directory, its node; empty when it has no entries."""
    below: int = 0
    """Of a directory, how many entries are below it, at any depth."""


_WIDTH = len(Entry._fields)
_DEFAULTS = tuple(Entry._field_defaults.get(name) for name in Entry._fields)


def encode(entries: Iterable[Entry]) -> bytes:
    """Entries as they are kept, always in the same way; what equals its default at the end of one is left out."""
    rows = []
    for entry in entries:
        width = _WIDTH
        while entry[width - 1] == _DEFAULTS[width - 1]:
            width -= 1
        rows.append(entry[:width])
    return dump(rows)


def decode(data: bytes) -> list[Entry]:
    """The other way round."""
    return [entry_of(row) for row in json.loads(data)]


def entry_of(row: Sequence[Any]) -> Entry:
    """An entry of a row, whose last columns may be left out."""
    entry = Entry(*row)
    return entry if entry.blocks == () else entry._replace(blocks=tuple(entry.blocks))


def dump(value: Any) -> bytes:
    """JSON in ASCII: surrogates are escaped, which UTF-8 has no place for."""
    return json.dumps(value, separators=(",", ":")).encode()
