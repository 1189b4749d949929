"""Keeps the shared cache of packages below its size: what was wanted longest ago goes first.

The cache is uv's own and has what it downloaded in buckets: whole packages in directories of `archive-v0`, and small
files about them in others. uv fetches again what it does not find, so any package may go, with the files about it, as
long as nobody reads it: what goes is moved aside at once, and deleted when builds may run again.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from squall.agent.disk_use import tree_use
from squall.agent.image.inherit import CACHE_DIR
from squall.runtime.removal import remove_tree

KEPT_SHARE = 0.75
"""Of the limit, once it is passed: so that not every build evicts."""
INODE_BYTES = 1_024
"""What a file counts beside its content; many are empty."""
_ASIDE = ".evicted-"
_ARCHIVES = "archive-"
_UNFINISHED = ".tmp"
_LINK = re.compile(re.escape(CACHE_DIR) + r"/(archive-v\d+/[A-Za-z0-9_-]+)/")


@dataclass(frozen=True, slots=True)
class _Item:
    """Something that can go: a package, or a file about some."""

    path: Path
    size_bytes: int
    used_at: float


def cache_bytes(cache: Path) -> int:
    """What the cache takes. Blocks, for a moment for each 100,000 files."""
    use = tree_use(str(cache), lambda _: True)
    return use.space_bytes + use.inodes * INODE_BYTES


def set_aside(cache: Path, bytes_max: int) -> int:
    """Move what was used longest ago out of a cache that is too large, beside it; returns how many bytes that are.

    Blocks for as long as `cache_bytes`. Nobody may use the cache meanwhile.
    """
    unfinished, items = [], []
    for bucket in _directories(cache):
        if bucket.name.startswith(_UNFINISHED):
            unfinished.append(_item(bucket))
        elif bucket.name.startswith(_ARCHIVES):
            items += [_item(package) for package in _directories(bucket)]
        else:
            items += _files(bucket)
    left_bytes = sum(item.size_bytes for item in (*unfinished, *items))
    going: list[Path] = []
    freed_bytes = 0
    for item in (*unfinished, *sorted(items, key=lambda item: item.used_at)):
        if len(going) >= len(unfinished) and left_bytes - freed_bytes <= bytes_max * KEPT_SHARE:
            break
        going.append(item.path)
        freed_bytes += item.size_bytes
    # First what leads to a package: uv takes its word for the package, and fails when that is not there.
    _forget(cache, set(going))
    aside = cache.parent / f"{_ASIDE}{secrets.token_hex(4)}"
    aside.mkdir(mode=0o700)
    for number, path in enumerate(going):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, aside / str(number))
    return freed_bytes


def delete_aside(folder: Path) -> None:
    """Delete what was set aside in the folder of the cache, now or by an agent that was killed. Blocks.

    Raises:
        RuntimeFailure: something cannot be deleted.
    """
    for path in sorted(folder.glob(f"{_ASIDE}*")):
        remove_tree(str(path))


def packages_of(fetched: Path) -> frozenset[str]:
    """The packages in the cache that a fetch has linked into this directory, as paths below the cache."""
    found = set()
    for info in fetched.glob("*.dist-info"):
        try:
            link = os.readlink(info / "METADATA")
        except OSError:
            continue
        if match := _LINK.match(link):
            found.add(match[1])
    return frozenset(found)


def mark_used(cache: Path, packages: frozenset[str]) -> None:
    """Note that a build wants these packages now."""
    for package in packages:
        try:
            os.utime(cache / package, follow_symlinks=False)
        except FileNotFoundError:
            continue


def _directories(path: Path) -> list[Path]:
    with os.scandir(path) as entries:
        return [path / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _item(path: Path) -> _Item:
    return _Item(path, cache_bytes(path), path.lstat().st_mtime)


def _files(bucket: Path) -> Iterator[_Item]:
    for directory, _, names in os.walk(bucket):
        for name in names:
            path = Path(directory, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield _Item(path, status.st_blocks * 512 + INODE_BYTES, _used_at(path, status))


def _used_at(path: Path, status: os.stat_result) -> float:
    """As its package's, where a link of the same name leads to one: without the file uv would not find it."""
    try:
        return max(status.st_mtime, path.with_suffix("").stat().st_mtime)
    except OSError:
        return status.st_mtime


def _forget(cache: Path, going: set[Path]) -> None:
    """Remove the links to packages that go, or have gone, with the files of the same name that speak of them."""
    for bucket in _directories(cache):
        if bucket.name.startswith(_ARCHIVES):
            continue
        for directory, folders, names in os.walk(bucket):
            for name in (*folders, *names):
                link = Path(directory, name)
                if not link.is_symlink():
                    continue
                package = Path(os.path.normpath(link.parent / os.readlink(link)))
                if package in going or not package.exists():
                    for about in (other for other in names if other.startswith(f"{name}.")):
                        Path(directory, about).unlink(missing_ok=True)
                    link.unlink()
