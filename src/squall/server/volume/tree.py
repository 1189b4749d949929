"""The tree of a version: looked at by path, changed, and compared with another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from squall.protocol.volume import DEPTH_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, RESERVED
from squall.server.model.volume import Nodes
from squall.server.volume.entry import DIRECTORY, Entry
from squall.server.volume.nodes import (
    Directory,
    all_entries,
    entries_of,
    find_entry,
    leaves_of,
)

ROOT = Entry("", DIRECTORY, 0o755)


class PathError(ValueError):
    """What is no path, or cannot be there; the message begins with the path."""


def parts_of(path: str) -> tuple[str, ...]:
    """The names on the way to a path in a volume, none for its top. `/a/b`, `a/b` and `./a//b` are one path.

    Raises:
        PathError: it leads out of the volume, or no file system could have it.
    """
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise PathError(f"{path[:200]!r} leads upwards: write the path from the top of the volume")
    if "\0" in path:
        raise PathError(f"{path[:200]!r} has a NUL in it")
    if parts and parts[0] == RESERVED:
        raise PathError(f"{path[:200]!r}: {RESERVED} at the top of a volume is ours; choose another name")
    encoded = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    if any(size > NAME_BYTES_MAX for size in encoded):
        raise PathError(f"{path[:200]!r}: a name has {NAME_BYTES_MAX} bytes at most")
    if sum(encoded) + len(encoded) > PATH_BYTES_MAX or len(parts) > DEPTH_MAX:
        raise PathError(f"{path[:200]!r}…: a path has {PATH_BYTES_MAX} bytes and {DEPTH_MAX} names at most")
    return parts


def find(nodes: Nodes, root: str, path: str) -> Entry | None:
    """What is at a path; the top is a directory without a name.

    Raises:
        PathError: as `parts_of`.
    """
    entry = top_of(nodes, root)
    for part in parts_of(path):
        found = find_entry(nodes, entry.node, part) if entry.kind == DIRECTORY else None
        if found is None:
            return None
        entry = found
    return entry


def top_of(nodes: Nodes, root: str) -> Entry:
    """The entry of the top."""
    leaves = leaves_of(nodes, root)
    return ROOT._replace(node=root, below=sum(one.below for one in leaves), size=sum(one.size for one in leaves))


def walk(nodes: Nodes, top: Entry, path: str, *, is_deep: bool, after: str = "") -> Iterator[tuple[str, Entry]]:
    """What is in a directory, each with its path, each directory before what is in it; with `after` what comes behind
    that path.

    The order is that of names, directory by directory: of any path the place to go on from is found at once.
    """
    begin, _, rest = after[len(path) :].lstrip("/").partition("/") if after else ("", "", "")
    if begin:
        first = find_entry(nodes, top.node, begin)
        if is_deep and first is not None and first.kind == DIRECTORY:
            here = _joined(path, begin)
            yield from walk(nodes, first, here, is_deep=True, after=_joined(here, rest) if rest else "")
    for entry in all_entries(nodes, top.node, begin):
        here = _joined(path, entry.name)
        yield here, entry
        if is_deep and entry.kind == DIRECTORY:
            yield from walk(nodes, entry, here, is_deep=True)


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


class Change(NamedTuple):
    """How two versions differ at one path: what was there, and what is."""

    path: str
    before: Entry | None
    after: Entry | None


def diff(nodes: Nodes, before: str, after: str, path: str = "") -> Iterator[Change]:
    """What must be changed to come from one directory to another, by path. What is the same is not looked at.

    A directory that is only in one of them comes with all that is in it: before it where it goes, after it where it
    comes.
    """
    if before == after:
        return
    for name, was, is_now in _unequal(nodes, before, after):
        here = _joined(path, name)
        was_directory = was is not None and was.kind == DIRECTORY
        is_directory = is_now is not None and is_now.kind == DIRECTORY
        if was is not None and was_directory and not is_directory:
            yield from diff(nodes, was.node, "", here)
        if not (was_directory and is_directory and _own(was) == _own(is_now)):
            yield Change(here, was, is_now)
        if is_now is not None and is_directory:
            yield from diff(nodes, was.node if was is not None and was_directory else "", is_now.node, here)


def _unequal(nodes: Nodes, before: str, after: str) -> Iterator[tuple[str, Entry | None, Entry | None]]:
    """Names that stand for one thing in one directory and for another, or for nothing, in the other one."""
    leaves_before, leaves_after = leaves_of(nodes, before), leaves_of(nodes, after)
    same = {leaf.node for leaf in leaves_before} & {leaf.node for leaf in leaves_after}
    old = {one.name: one for leaf in leaves_before if leaf.node not in same for one in entries_of(nodes, leaf)}
    new = {one.name: one for leaf in leaves_after if leaf.node not in same for one in entries_of(nodes, leaf)}
    for name in sorted(old.keys() | new.keys()):
        was, is_now = old.get(name), new.get(name)
        if was != is_now:
            yield name, was, is_now


def change_counts(nodes: Nodes, before: str, after: str) -> tuple[int, int]:
    """How many of the changes that `diff` finds put something, and how many take something away.

    What is only in one of them is counted as its directory says, and two directories are compared once, in however many
    places they are: it costs what differs in the store, not what differs in a mount.
    """
    return _counts(nodes, before, after, {})


def _counts(nodes: Nodes, before: str, after: str, known: dict[tuple[str, str], tuple[int, int]]) -> tuple[int, int]:
    if before == after:
        return 0, 0
    if (before, after) not in known:
        put_count = removed_count = 0
        for _, was, is_now in _unequal(nodes, before, after):
            if was is not None and is_now is not None and was.kind == is_now.kind == DIRECTORY:
                put, removed = _counts(nodes, was.node, is_now.node, known)
                put_count += put + (_own(was) != _own(is_now))
                removed_count += removed
            else:
                put_count += 1 + is_now.below if is_now is not None else 0
                removed_count += (was.below if was is not None else 0) + (is_now is None)
        known[before, after] = put_count, removed_count
    return known[before, after]


def _own(entry: Entry | None) -> Entry | None:
    """A directory without what is in it."""
    return entry._replace(node="", below=0, size=0) if entry is not None else None


class Conflict(ValueError):
    """What is there does not allow a change that was not forced."""


class _Open:
    """A directory on the way to something that changes."""

    def __init__(self, nodes: Nodes, entry: Entry) -> None:
        self.entry = entry
        self.directory = Directory(nodes, entry.node)
        self.open: dict[str, _Open] = {}
        """Directories in it that are open too."""


class TreeEditor:
    """A tree that is being changed. Nothing that was kept changes: `write` gives the root of another one."""

    def __init__(self, nodes: Nodes, root: str) -> None:
        self._nodes = nodes
        self._top = _Open(nodes, top_of(nodes, root))

    def put(self, path: str, entry: Entry, *, is_forced: bool = True) -> None:
        """Put an entry at a path, under the path's last name; directories on the way are made.

        A directory that comes where one is keeps what is in that, unless it brings a node of its own. With `is_forced`
        what is in the way goes.

        Raises:
            PathError: as `parts_of`, or it is the top.
            Conflict: a file is, or would come, where there is something else, and it is not forced.
        """
        *above, name = self._named(path)
        here = self._opened(tuple(above), path, is_forced=is_forced)
        there = here.open[name].entry if name in here.open else here.directory.get(name)
        if there is not None and not is_forced and (there.kind == DIRECTORY) != (entry.kind == DIRECTORY):
            what = "a directory" if there.kind == DIRECTORY else "no directory"
            raise Conflict(f"{path!r} is {what} there")
        entry = entry._replace(name=name)
        if entry.kind == DIRECTORY and not entry.node and there is not None and there.kind == DIRECTORY:
            self._put_directory(here, entry, there)
            return
        here.open.pop(name, None)
        here.directory.set(entry)

    def _put_directory(self, here: _Open, entry: Entry, there: Entry) -> None:
        """Only what it is itself changes."""
        kept = entry._replace(node=there.node, below=there.below, size=there.size)
        if entry.name in here.open:
            here.open[entry.name].entry = kept
        here.directory.set(kept)

    def put_beside(self, path: str, entry: Entry) -> bool:
        """Put what is no directory at a path; False where there is a directory with something in it, which stays.

        Raises:
            PathError: as `put`.
        """
        there = self.find(path)
        if there is not None and there.kind == DIRECTORY and there.node:
            return False
        self.put(path, entry)
        return True

    def remove(self, path: str) -> bool:
        """Take away what is at a path, with all that is in it; whether there was something.

        Raises:
            PathError: as `put`.
        """
        *above, name = self._named(path)
        here = self._walked(tuple(above))
        if here is None or here.directory.get(name) is None:
            return False
        here.open.pop(name, None)
        here.directory.remove(name)
        return True

    def remove_seen(self, path: str, seen: Entry) -> None:
        """Take away what somebody saw at a path and removed: of a directory, what has come into it since stays."""
        there = self.find(path)
        if there is None:
            return
        if there.kind != DIRECTORY or there.node == seen.node:
            self.remove(path)
        elif seen.kind != DIRECTORY:
            self.remove_empty(path)
        else:
            for below, entry in walk(self._nodes, seen, path, is_deep=True):
                if entry.kind != DIRECTORY:
                    self.remove_file(below)
            self._prune(path, seen)

    def _prune(self, path: str, seen: Entry) -> None:
        """Directories that somebody saw and removed, and that are empty now."""
        for entry in all_entries(self._nodes, seen.node):
            if entry.kind == DIRECTORY:
                self._prune(_joined(path, entry.name), entry)
        self.remove_empty(path)

    def remove_file(self, path: str) -> None:
        """Take away what is no directory."""
        there = self.find(path)
        if there is not None and there.kind != DIRECTORY:
            self.remove(path)

    def remove_empty(self, path: str) -> None:
        """Take away a directory, if nothing is in it."""
        there = self.find(path)
        if there is not None and there.kind == DIRECTORY and not there.node:
            self.remove(path)

    def find(self, path: str) -> Entry | None:
        """What is at a path now.

        Raises:
            PathError: as `parts_of`.
        """
        parts = parts_of(path)
        if not parts:
            return self._closed(self._top)
        *above, name = parts
        here = self._walked(tuple(above))
        if here is None:
            return None
        if name in here.open:
            here.directory.set(self._closed(here.open.pop(name)))
        return here.directory.get(name)

    def write(self) -> str:
        """The root of the tree as it is now; empty when there is nothing in it."""
        return self._closed(self._top).node

    # On the way

    def _named(self, path: str) -> tuple[str, ...]:
        parts = parts_of(path)
        if not parts:
            raise PathError(f"{path!r} is the top of the volume: name something in it")
        return parts

    def _walked(self, parts: tuple[str, ...]) -> _Open | None:
        """The directory there, open; None when there is none."""
        here = self._top
        for part in parts:
            below = self._below(here, part)
            if below is None:
                return None
            here = below
        return here

    def _below(self, here: _Open, name: str) -> _Open | None:
        if name not in here.open:
            entry = here.directory.get(name)
            if entry is None or entry.kind != DIRECTORY:
                return None
            here.open[name] = _Open(self._nodes, entry)
        return here.open[name]

    def _opened(self, parts: tuple[str, ...], path: str, *, is_forced: bool) -> _Open:
        """The directory there, open, and made where it is missing."""
        here = self._top
        for number, part in enumerate(parts):
            below = self._below(here, part)
            if below is None:
                if here.directory.get(part) is not None and not is_forced:
                    raise Conflict(f"{'/'.join(parts[: number + 1])!r}, on the way to {path!r}, is no directory there")
                here.directory.set(Entry(part, DIRECTORY, 0o755))
                below = here.open[part] = _Open(self._nodes, Entry(part, DIRECTORY, 0o755))
            here = below
        return here

    def _closed(self, here: _Open) -> Entry:
        """A directory's entry with everything that was changed in it."""
        for name, below in here.open.items():
            entry = self._closed(below)
            if entry != here.directory.get(name):
                here.directory.set(entry)
        here.open = {}
        node, count, size = here.directory.write()
        here.entry = here.entry._replace(node=node, below=count, size=size)
        return here.entry
