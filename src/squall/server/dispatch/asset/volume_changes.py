"""Changes to a tree, as they come from clients and nodes, checked and carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from squall.protocol import volume as wire
from squall.protocol.blob import is_sha256
from squall.protocol.errors import CONFLICT, EXHAUSTED, EXISTS, INVALID, NOT_FOUND, PlatformError
from squall.protocol.volume import BLOCK_BYTES, BYTES_MAX, ENTRIES_MAX, FILE_BYTES_MAX, HOLE, VolumeChange, VolumeEntry
from squall.server.model.volume import MemoryNodes, NewNode, Nodes
from squall.server.volume.entry import DIRECTORY, FILE, SYMLINK, Entry
from squall.server.volume.graft import Graft, TooMany
from squall.server.volume.nodes import write_blocks
from squall.server.volume.tree import Conflict, PathError, TreeEditor, change_counts, find, parts_of, top_of
from squall.server.volume.usage import reachable

KINDS = {wire.FILE: FILE, wire.DIRECTORY: DIRECTORY, wire.SYMLINK: SYMLINK}
NAMES = {kind: name for name, kind in KINDS.items()}
TARGET_CHARS_MAX = 4_095
NUMBER_MAX = 2**63 - 1
MODE_MAX = 0o7777
ID_MAX = 65_535


class Changed(NamedTuple):
    """A tree that changes were made to."""

    root: str
    nodes: dict[str, NewNode]
    """Those that it brings."""
    put_count: int
    removed_count: int
    entry_count: int
    size: int
    left_out_count: int = 0
    """Paths that would have been longer than any of a volume may be."""
    in_way_count: int = 0
    """Files that stayed away, as others have directories of their names."""


def check(change: VolumeChange) -> None:
    """Refuse what no tree should have, before anything is done.

    Raises:
        PlatformError: `invalid`, naming the path.
    """
    path = wire.from_wire(change.path)
    what = f"VolumeCommit: {path[:200]!r}"
    try:
        if not parts_of(path):
            raise PathError("it is the top of the volume, which is not changed itself")
        if change.action in (wire.COPY, wire.TOUCH, wire.REMOVE_SEEN):
            parts_of(wire.from_wire(change.target))
    except PathError as error:
        raise PlatformError(INVALID, f"{what}: {error}") from None
    if change.action not in (wire.PUT, wire.REMOVE, wire.REMOVE_SEEN, wire.REMOVE_EMPTY, wire.COPY, wire.TOUCH):
        raise PlatformError(INVALID, f"{what}: {change.action[:40]!r} is nothing that is done to a path")
    if change.action not in (wire.PUT, wire.TOUCH):
        return
    numbers = (
        ("mode", change.mode, 0, MODE_MAX),
        ("mtime_ns", change.mtime_ns, -NUMBER_MAX, NUMBER_MAX),
        ("size", change.size, 0, FILE_BYTES_MAX),
        ("uid", change.uid, 0, ID_MAX),
        ("gid", change.gid, 0, ID_MAX),
        ("offset", change.offset, 0, BLOCK_BYTES),
    )
    for name, number, least, most in numbers:
        if not least <= number <= most:
            raise PlatformError(INVALID, f"{what}: {name} must be from {least} to {most}")
    if change.action == wire.TOUCH:
        return
    if change.block_list:
        raise PlatformError(INVALID, f"{what}: blocks are named one by one where a file is put")
    if change.kind not in KINDS:
        raise PlatformError(INVALID, f"{what}: {change.kind[:40]!r} is none of {', '.join(KINDS)}")
    if change.kind == wire.SYMLINK and not 0 < len(change.target) <= TARGET_CHARS_MAX:
        raise PlatformError(INVALID, f"{what}: a symbolic link has a target of 1 to {TARGET_CHARS_MAX} characters")
    _check_blocks(what, change)


def _check_blocks(what: str, change: VolumeChange) -> None:
    needed = -(-change.size // BLOCK_BYTES) if change.kind == wire.FILE else 0
    if len(change.blocks) != needed:
        raise PlatformError(INVALID, f"{what}: {len(change.blocks)} blocks, and its size makes {needed}")
    if wire.block_list_bytes(change.blocks) > wire.BLOCK_LIST_BYTES_MAX:
        raise PlatformError(INVALID, f"{what}: {wire.TOO_MANY_BLOCKS}")
    if change.offset and (needed != 1 or change.offset + change.size > BLOCK_BYTES or change.blocks[0] == HOLE):
        raise PlatformError(INVALID, f"{what}: only a small file in a block that is there begins within it")
    if not all(block == HOLE or is_sha256(block) for block in change.blocks):
        raise PlatformError(INVALID, f"{what}: a block is named by a SHA-256 in hexadecimal digits")


def apply(
    nodes: Nodes,
    root: str,
    seen_root: str | None,
    changes: Iterable[VolumeChange],
    *,
    is_forced: bool = True,
    is_replacing: bool = True,
    keeps_unseen: bool = False,
) -> Changed:
    """The tree with these changes, each of which was checked.

    Args:
        root: the tree as it is.
        seen_root: as it was for whoever made the changes; None where that is not kept any more.
        keeps_unseen: leave out files where others have put a directory since, and remove none in the place of a file.

    What a container has moved too deep is left out, as what it has written there is: its node could do nothing with an
    error, and all else that it commits would be lost.

    Raises:
        PlatformError: `conflict`, when something is in the way; `exists` for a file that is not to be replaced;
            `not_found` for what is to be copied; `exhausted`, when the tree would have too much in it.
    """
    left_out_count = in_way_count = 0

    def change_all(editor: TreeEditor, made: MemoryNodes) -> None:
        nonlocal left_out_count, in_way_count
        graft = Graft(editor, made, keeps_unseen=keeps_unseen)
        for change in changes:
            path = wire.from_wire(change.path)
            if not is_replacing and change.action == wire.PUT and change.kind != wire.DIRECTORY:
                _check_free(editor, path)
            try:
                if keeps_unseen:
                    _make_way(editor, made, seen_root, change, path)
                if keeps_unseen and change.action == wire.REMOVE:
                    editor.remove_file(path)
                elif seen_root is None:
                    _apply_unseen(editor, graft, made, root, change, path, is_forced=is_forced)
                else:
                    _apply_one(editor, graft, made, seen_root, change, path, is_forced=is_forced)
            except Conflict as error:
                hint = "remove it first, or force that"
                raise PlatformError(CONFLICT, f"VolumeCommit: {error}; {hint}") from None
            except TooMany as error:
                raise PlatformError(EXHAUSTED, f"VolumeCommit: {error}") from None
        left_out_count, in_way_count = graft.left_out_count, graft.in_way_count

    changed = edited(nodes, root, change_all)
    return changed._replace(left_out_count=left_out_count, in_way_count=in_way_count)


def _make_way(editor: TreeEditor, made: MemoryNodes, seen_root: str | None, change: VolumeChange, path: str) -> None:
    """Where a file comes in the place of a directory, this goes as whoever makes the change has seen it."""
    if seen_root is None or change.action not in (wire.PUT, wire.TOUCH) or change.kind == wire.DIRECTORY:
        return
    there = editor.find(path)
    if there is not None and there.kind == DIRECTORY:
        seen = find(made, seen_root, path)
        if seen is not None and seen.kind == DIRECTORY:
            editor.remove_seen(path, seen)


def _check_free(editor: TreeEditor, path: str) -> None:
    there = editor.find(path)
    if there is not None and there.kind != DIRECTORY:
        hint = "force=True (-f) replaces it"
        raise PlatformError(EXISTS, f"VolumeCommit: there is a file {path[:200]!r} already; {hint}")


def edited(nodes: Nodes, root: str, edit: Callable[[TreeEditor, MemoryNodes], None]) -> Changed:
    """The tree that an edit makes of another one, and how they differ.

    Raises:
        PlatformError: `exhausted`, when there would be too much in it.
    """
    made = MemoryNodes(nodes)
    editor = TreeEditor(made, root)
    edit(editor, made)
    after = editor.write()
    top = top_of(made, after)
    _check_growth(top_of(nodes, root), top)
    put_count, removed_count = change_counts(made, root, after)
    # Not those of its states in between. What was there has nothing that is new in it.
    live = reachable(made, [after], within=made.made)
    brought = {name: node for name, node in made.made.items() if name in live}
    return Changed(after, brought, put_count, removed_count, top.below, top.size)


def _check_growth(before: Entry, after: Entry) -> None:
    for what, was, is_now, most in (
        ("files and directories", before.below, after.below, ENTRIES_MAX),
        ("bytes of files", before.size, after.size, BYTES_MAX),
    ):
        if is_now > max(was, most):
            raise PlatformError(EXHAUSTED, f"the volume would have {is_now:,} {what}, and {most:,} it may have at most")


def _apply_one(
    editor: TreeEditor,
    graft: Graft,
    made: MemoryNodes,
    seen_root: str,
    change: VolumeChange,
    path: str,
    *,
    is_forced: bool,
) -> None:
    if change.action == wire.PUT and change.kind == wire.DIRECTORY:
        editor.put(path, _entry_of(made, change), is_forced=is_forced)
    elif change.action == wire.PUT:
        graft.put(_entry_of(made, change), path, is_forced=is_forced)
    elif change.action == wire.REMOVE:
        editor.remove(path)
    elif change.action == wire.REMOVE_EMPTY:
        editor.remove_empty(path)
    elif change.action == wire.REMOVE_SEEN:
        seen = find(made, seen_root, wire.from_wire(change.target) or path)
        if seen is not None:
            editor.remove_seen(path, seen)
    else:
        source = wire.from_wire(change.target)
        found = find(made, seen_root, source) if parts_of(source) else None
        if found is None:
            raise PlatformError(NOT_FOUND, f"VolumeCommit: there is no {source[:200]!r} to copy to {path[:200]!r}")
        if change.action == wire.TOUCH:
            found = found._replace(mode=change.mode, mtime_ns=change.mtime_ns, uid=change.uid, gid=change.gid)
        graft.put(found, path, is_forced=is_forced, is_trimmed=True)


def _apply_unseen(
    editor: TreeEditor,
    graft: Graft,
    made: MemoryNodes,
    root: str,
    change: VolumeChange,
    path: str,
    *,
    is_forced: bool,
) -> None:
    """Where nobody knows what whoever made the change has seen: nothing that others may have put there goes for it."""
    if change.action == wire.REMOVE_SEEN:
        return
    if change.action in (wire.COPY, wire.TOUCH) and find(made, root, wire.from_wire(change.target)) is None:
        return
    _apply_one(editor, graft, made, root, change, path, is_forced=is_forced)


def _entry_of(nodes: Nodes, change: VolumeChange) -> Entry:
    blocks, block_list = write_blocks(nodes, change.blocks)
    return Entry(
        "",
        KINDS[change.kind],
        change.mode,
        change.mtime_ns,
        change.uid,
        change.gid,
        change.size if change.kind == wire.FILE else 0,
        blocks,
        change.offset,
        block_list,
        wire.from_wire(change.target),
    )


def change_of(path: str, entry: Entry) -> VolumeChange:
    """What would put it, as a node is told."""
    return VolumeChange(
        wire.to_wire(path),
        kind=NAMES[entry.kind],
        mode=entry.mode,
        mtime_ns=entry.mtime_ns,
        size=entry.size if entry.kind == FILE else 0,
        uid=entry.uid,
        gid=entry.gid,
        blocks=entry.blocks,
        offset=entry.offset,
        target=wire.to_wire(entry.target),
        block_list=entry.block_list,
    )


def shown(path: str, entry: Entry, *, has_blocks: bool = False) -> VolumeEntry:
    """As it travels."""
    block, offset = (entry.blocks[0], entry.offset) if has_blocks and len(entry.blocks) == 1 else (HOLE, 0)
    return VolumeEntry(
        wire.to_wire(path),
        NAMES[entry.kind],
        entry.mode,
        entry.mtime_ns,
        entry.size,
        entry.uid,
        entry.gid,
        wire.to_wire(entry.target),
        entry.below,
        block,
        offset,
    )


def copy(editor: TreeEditor, nodes: Nodes, root: str, sources: Sequence[str], path: str, *, is_deep: bool) -> None:
    """What `cp` does: into a directory that is there, or else to that path. Directories that are there are merged.

    Raises:
        PlatformError: `not_found`; `invalid` for a directory where it is not deep, or into itself, or where paths would
            be too long; `conflict`; `exhausted`.
    """
    graft = Graft(editor, nodes)
    into = find(nodes, root, path)
    is_into = into is not None and into.kind == DIRECTORY
    if len(sources) > 1 and not is_into:
        raise PlatformError(
            CONFLICT, f"VolumeCopy: {path[:200]!r} is no directory, and several things are to be copied"
        )
    for source in sources:
        found = find(nodes, root, source)
        if found is None:
            raise PlatformError(NOT_FOUND, f"VolumeCopy: there is no {source[:200]!r} in the volume")
        parts = parts_of(source)
        target = parts_of(path) + (parts[-1:] if is_into else ())
        if found.kind == DIRECTORY:
            if not is_deep:
                message = f"{source[:200]!r} is a directory; copy it with recursive=True (-r)"
                raise PlatformError(INVALID, f"VolumeCopy: {message}")
            if target[: len(parts)] == parts:
                raise PlatformError(INVALID, f"VolumeCopy: {source[:200]!r} cannot be copied into itself")
        try:
            graft.put(found, "/".join(target), is_forced=False)
        except Conflict as error:
            raise PlatformError(CONFLICT, f"VolumeCopy: {error}") from None
        except PathError as error:
            raise PlatformError(INVALID, f"VolumeCopy: {error}") from None
        except TooMany as error:
            raise PlatformError(EXHAUSTED, f"VolumeCopy: {error}") from None
