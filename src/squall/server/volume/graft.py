"""What comes to be in a volume beside what is there: what is somewhere else in it, within what paths may be.

Equal directories are one node, so a tree that was copied into itself many times is small here and huge where it is
mounted. Nothing here takes longer for that: equal nodes are looked at once.
"""

from __future__ import annotations

from typing import NamedTuple

from squall.protocol.volume import COMMIT_CHANGES_MAX, DEPTH_MAX, PATH_BYTES_MAX
from squall.server.model.volume import Nodes
from squall.server.volume.entry import DIRECTORY, Entry
from squall.server.volume.nodes import Directory, all_entries
from squall.server.volume.tree import PathError, TreeEditor, parts_of


class TooMany(ValueError):
    """More is to be put one by one than a commit may change."""


class Extent(NamedTuple):
    """How far what is in a directory reaches below it, or may reach."""

    name_count: int = 0
    """In the deepest path."""
    path_bytes: int = 0
    """In the longest path, with a slash before each name."""


class Graft:
    """Puts entries of a volume elsewhere in a tree that is being changed."""

    def __init__(self, editor: TreeEditor, nodes: Nodes, *, keeps_unseen: bool = False) -> None:
        self._editor = editor
        self._keeps_unseen = keeps_unseen
        self._nodes = nodes
        self._extents: dict[str, Extent] = {"": Extent()}
        """Of each node that was looked at."""
        self._put_count = 0
        """One by one, where directories were merged."""
        self.left_out_count = 0
        """Paths that would have been too long."""
        self.in_way_count = 0
        """Files that stayed away, as others have directories of their names."""

    def put(self, found: Entry, path: str, *, is_forced: bool, is_trimmed: bool = False) -> None:
        """Put it at a path; a directory beside what is in one there, also below it. With `keeps_unseen` what is no
        directory stays away where there is one with something in it.

        Args:
            is_trimmed: leave out what would be too deep or have too long a path; that is an error otherwise.

        Raises:
            PathError: as `parts_of`, or something in it would have no path.
            Conflict: as `TreeEditor.put`.
            TooMany: two directories have too much in them to be merged.
        """
        if found.kind != DIRECTORY:
            self._put_one(path, found, is_forced=is_forced)
            return
        parts = parts_of(path)
        room = Extent(DEPTH_MAX - len(parts), PATH_BYTES_MAX - sum(map(_name_bytes, parts)))
        if not _fits(self._extent(found.node), room):
            if not is_trimmed:
                limits = f"{PATH_BYTES_MAX:,} bytes and {DEPTH_MAX} names at most"
                raise PathError(f"{path[:200]!r}: paths below it would be too long; a path has {limits}")
            kept = self._trimmed(found, room, {})
            self.left_out_count += found.below - kept.below
            found = kept
        there = self._editor.find(path)
        if there is not None and there.kind == DIRECTORY:
            self._merge(found, there, path, is_forced=is_forced)
        else:
            self._editor.put(path, found, is_forced=is_forced)

    def _put_one(self, path: str, entry: Entry, *, is_forced: bool) -> None:
        if self._keeps_unseen and entry.kind != DIRECTORY:
            self.in_way_count += not self._editor.put_beside(path, entry)
        else:
            self._editor.put(path, entry, is_forced=is_forced)

    def _merge(self, found: Entry, there: Entry, path: str, *, is_forced: bool) -> None:
        if found.node == there.node:
            return
        if not there.node:
            whole = there._replace(node=found.node, below=found.below, size=found.size)
            self._editor.put(path, whole, is_forced=is_forced)
            return
        for entry in all_entries(self._nodes, found.node):
            self._put_count += 1
            if self._put_count > COMMIT_CHANGES_MAX:
                raise TooMany(f"{path[:200]!r}: more than {COMMIT_CHANGES_MAX:,} paths are to be put beside others")
            here = f"{path}/{entry.name}"
            below = self._editor.find(here)
            if entry.kind == DIRECTORY and below is not None and below.kind == DIRECTORY:
                self._editor.put(here, entry._replace(node="", below=0, size=0), is_forced=is_forced)
                self._merge(entry, entry._replace(node=below.node), here, is_forced=is_forced)
            else:
                self._put_one(here, entry, is_forced=is_forced)

    def _extent(self, directory: str) -> Extent:
        found = self._extents.get(directory)
        if found is None:
            name_count = path_bytes = 0
            for entry in all_entries(self._nodes, directory):
                below = self._extent(entry.node)
                name_count = max(name_count, 1 + below.name_count)
                path_bytes = max(path_bytes, _name_bytes(entry.name) + below.path_bytes)
            found = self._extents[directory] = Extent(name_count, path_bytes)
        return found

    def _trimmed(self, directory: Entry, room: Extent, made: dict[tuple[str, Extent], Entry]) -> Entry:
        """A directory without what is out of reach. Only the ways there are written anew."""
        if _fits(self._extent(directory.node), room):
            return directory
        key = directory.node, room
        if key not in made:
            here = Directory(self._nodes, directory.node)
            for entry in all_entries(self._nodes, directory.node):
                left = Extent(room.name_count - 1, room.path_bytes - _name_bytes(entry.name))
                if left.name_count < 0 or left.path_bytes < 0:
                    here.remove(entry.name)
                elif entry.kind == DIRECTORY:
                    here.set(self._trimmed(entry, left, made))
            node, below, size = here.write()
            made[key] = directory._replace(node=node, below=below, size=size)
        kept = made[key]
        return directory._replace(node=kept.node, below=kept.below, size=kept.size)


def _fits(extent: Extent, room: Extent) -> bool:
    return extent.name_count <= room.name_count and extent.path_bytes <= room.path_bytes


def _name_bytes(name: str) -> int:
    return len(name.encode("utf-8", "surrogateescape")) + 1
