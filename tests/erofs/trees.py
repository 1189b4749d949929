"""Trees to pack, and what there is to compare of two trees."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

BLOCK = 4096
# Around every border there is: of a block, of what fits behind an inode, of what is read whole, of a piece.
SIZES = (0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 12_289, 131_072, 131_073, 1_048_581)


def content(size: int) -> bytes:
    """Bytes that differ from offset to offset, so that nothing can be swapped unnoticed."""
    return b"".join(b"%015d\n" % number for number in range(size // 16 + 1))[:size]


def make_everything(root: Path) -> None:
    """A tree with one of everything that needs no privilege; times are fixed."""
    root.mkdir()
    for size in SIZES:
        (root / f"file-{size}").write_bytes(content(size))
    (root / "sub" / "deeper").mkdir(parents=True)
    (root / "sub" / "program").write_bytes(b"#!/bin/sh\n")
    (root / "sub" / "program").chmod(0o751)
    os.link(root / "sub" / "program", root / "sub" / "deeper" / "same program")
    (root / "link").symlink_to("sub/program")
    (root / "long link").symlink_to("x" * 4000)
    os.mkfifo(root / "pipe", 0o640)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(root / "socket"))
    listening.close()
    (root / "-before the dot").write_bytes(b"-")
    os.close(os.open(os.fsencode(root) + b"/n\xff\xfe\n", os.O_CREAT | os.O_WRONLY, 0o600))
    (root / ("n" * 255)).write_bytes(b"longest name")
    (root / "many").mkdir()
    for number in range(700):
        (root / "many" / f"{number:03} {'.' * (number % 40)}").write_bytes(b"%d" % number)
    (root / "empty").mkdir(mode=0o700)
    set_times(root)


def set_times(root: Path) -> None:
    """Give every name in a tree a time that depends on the name alone, with nanoseconds, some before 1970."""
    for directory, directories, files in os.walk(os.fsencode(root), topdown=False):
        for name in (*files, *directories):
            time_ns = (sum(name) * 1_000_000_007 - 30_000 * 10**9) * 7
            os.utime(os.path.join(directory, name), ns=(time_ns, time_ns), follow_symlinks=False)
    os.utime(root, ns=(10**18, 10**18))


def facts(root: Path) -> dict[bytes, tuple[object, ...]]:
    """What a program can see of each file: mode, owner, size, time, links, device, target, attributes, content."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path in _paths(os.fsencode(root)):
        status = os.lstat(path)
        kind = stat.S_IFMT(status.st_mode)
        size = 0 if kind == stat.S_IFDIR else status.st_size
        target = os.readlink(path) if kind == stat.S_IFLNK else b""
        data = b""
        if kind == stat.S_IFREG:
            with open(path, "rb") as file:
                data = file.read()
        attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in _names(path)}
        owner = (status.st_uid, status.st_gid)
        seen = (status.st_mode, owner, size, status.st_mtime_ns, status.st_nlink, status.st_rdev)
        found[os.path.relpath(path, os.fsencode(root))] = (*seen, target, attributes, data)
    return found


def _names(path: bytes) -> list[str]:
    return sorted(name for name in os.listxattr(path, follow_symlinks=False) if name != "security.selinux")


def _paths(root: bytes) -> Iterator[bytes]:
    for directory, directories, files in os.walk(root):
        yield directory
        yield from (os.path.join(directory, name) for name in files)
        # A link to a directory is among the directories and is not walked into.
        yield from (path for name in directories if os.path.islink(path := os.path.join(directory, name)))
