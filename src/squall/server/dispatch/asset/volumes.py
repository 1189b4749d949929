"""Volumes: commits, and looks at versions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from squall.protocol import volume as wire
from squall.protocol.asset import VOLUME
from squall.protocol.errors import CONFLICT, INVALID, NOT_FOUND, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.pages import PAGE_RECORDS_MAX, first_page
from squall.server.dispatch.asset import volume_changes
from squall.server.dispatch.asset.volume_changes import Changed
from squall.server.dispatch.asset.volume_garbage import VolumeGarbage
from squall.server.dispatch.asset.volume_staging import Share, Staging
from squall.server.dispatch.client.callers import Caller
from squall.server.model.volume import MemoryNodes, Nodes, StoredVolumeVersion
from squall.server.volume import retention
from squall.server.volume.entry import DIRECTORY, FILE, Entry
from squall.server.volume.nodes import blocks_of
from squall.server.volume.tree import PathError, TreeEditor, change_counts, diff, find, parts_of, top_of, walk

if TYPE_CHECKING:
    from squall.protocol.codec import Codec
    from squall.server.dispatch.asset.assets import Assets
    from squall.server.model.asset import StoredAsset
    from squall.server.model.blobs import BlobStore
    from squall.server.model.clock import Clock
    from squall.server.model.store import Store

R = TypeVar("R")

MISSING_MAX = 1_000
"""Blocks told in one answer."""
BLOCKS_MAX = 10_000
"""In one answer, and asked of the blob store at once."""
CAUSE_CHARS_MAX = 200
TRIES_MAX = 5
"""Of a commit whose version another server process has made meanwhile."""

_log = logging.getLogger("squall.server.dispatch.asset.volumes")


class Volumes:
    """What is in volumes."""

    def __init__(self, *, assets: Assets, store: Store, blobs: BlobStore, codec: Codec, clock: Clock) -> None:
        self._assets = assets
        self._store = store.volumes
        self._blobs = blobs
        self._codec = codec
        self._clock = clock
        self._staging = Staging(clock)
        self._turns: dict[str, asyncio.Lock] = {}
        """Of volumes that have been changed: one commit after the other."""
        self.garbage = VolumeGarbage(store, blobs, clock)
        self.on_named: Callable[[frozenset[str]], None] = lambda blocks: None
        """Told the blocks of each commit."""
        assets.on_deleted.append(self._forget)

    def _forget(self, volume_id: str) -> None:
        self._staging.forget(volume_id)
        self._turns.pop(volume_id, None)

    # Commits

    async def commit(self, caller: Caller, record: wire.VolumeCommit) -> wire.VolumeCommitted:
        """See `VolumeCommit`."""
        asset = await self._used(caller, "VolumeCommit", record.volume_id)
        _check_commit("VolumeCommit", record.commit_id, record.cause)
        done = await self._store.committed(asset.asset_id, record.commit_id)
        if done is not None:
            return wire.VolumeCommitted(_version(done))
        for change in record.changes:
            volume_changes.check(change)
        changes = self._staging.add(_share(caller, asset.environment), record)
        if not record.is_last:
            return wire.VolumeCommitted()
        async with self.garbage.untouched():
            missing = await self._missing(changes)
            if missing:
                return wire.VolumeCommitted(None, missing)
            seen_root = await self._seen_root(asset.asset_id, record.version)
            is_of_newest = record.version is None

            def apply(nodes: Nodes, root: str) -> Changed:
                return volume_changes.apply(
                    nodes,
                    root,
                    root if is_of_newest else seen_root,
                    changes,
                    is_forced=record.is_forced,
                    is_replacing=record.is_replacing,
                    keeps_unseen=not is_of_newest,
                )

            try:
                cause = record.cause
                if seen_root is None and not is_of_newest:
                    cause += f" (made in version {record.version}, which is not kept: what it removed there stays)"
                made = await self._change(asset, record, cause, caller, apply)
            finally:
                # Refused, it would be refused again.
                self._staging.done(asset.asset_id, record.commit_id)
        self.on_named(frozenset(await asyncio.to_thread(_blocks_of, changes)))
        return wire.VolumeCommitted(_version(made))

    async def _missing(self, changes: list[wire.VolumeChange]) -> tuple[str, ...]:
        named = iter(await asyncio.to_thread(_blocks_of, changes))
        missing: list[str] = []
        while some := tuple(islice(named, BLOCKS_MAX)):
            missing += await self._blobs.missing(some, is_told=False)
            if len(missing) >= MISSING_MAX:
                break
        return tuple(missing[:MISSING_MAX])

    async def _seen_root(self, volume_id: str, number: int | None) -> str | None:
        """The tree that changes were made in; None for that of the newest, and of one that is not kept any more."""
        if number is None:
            return None
        if number == 0:
            return ""
        version = await self._store.get(volume_id, number)
        return version.root if version is not None else None

    async def _change(
        self,
        asset: StoredAsset,
        record: wire.VolumeCommit | wire.VolumeCopy | wire.VolumeRemove | wire.VolumeRollback,
        cause: str,
        caller: Caller,
        change: Callable[[Nodes, str], Changed],
    ) -> StoredVolumeVersion:
        """Make the next version; the newest as it is where nothing would change. Garbage is `untouched` meanwhile."""
        async with self._turns.setdefault(asset.asset_id, asyncio.Lock()):
            for _ in range(TRIES_MAX):
                done = await self._store.committed(asset.asset_id, record.commit_id)
                if done is not None:
                    return done
                head = await self._store.head(asset.asset_id)
                changed = await self._look(partial(_changed, change, head.root))
                if changed.root == head.root:
                    return head
                version = StoredVolumeVersion(
                    asset.asset_id,
                    head.number + 1,
                    changed.root,
                    record.commit_id,
                    self._clock.now(),
                    cause + _left_out(changed),
                    _who(caller, record.created_by),
                    changed.entry_count,
                    changed.size,
                    changed.put_count,
                    changed.removed_count,
                )
                try:
                    self.garbage.named(changed.nodes)
                    return await self._store.add(version, changed.nodes)
                except PlatformError as error:
                    if error.code != CONFLICT:
                        raise
            raise PlatformError(
                CONFLICT, f"VolumeCommit: others change volume {asset.name or asset.asset_id} all the time"
            )

    async def copy(self, caller: Caller, record: wire.VolumeCopy) -> wire.VolumeCommitted:
        """See `VolumeCopy`."""
        asset = await self._used(caller, "VolumeCopy", record.volume_id)
        _check_commit("VolumeCopy", record.commit_id, "")
        path = _path("VolumeCopy", record.path)
        sources = [_path("VolumeCopy", source) for source in record.sources]

        def copy(nodes: Nodes, root: str) -> Changed:
            def edit(editor: TreeEditor, made: MemoryNodes) -> None:
                volume_changes.copy(editor, made, root, sources, path, is_deep=record.is_deep)

            return volume_changes.edited(nodes, root, edit)

        async with self.garbage.untouched():
            return wire.VolumeCommitted(_version(await self._change(asset, record, "copy", caller, copy)))

    async def remove(self, caller: Caller, record: wire.VolumeRemove) -> wire.VolumeCommitted:
        """See `VolumeRemove`."""
        asset = await self._used(caller, "VolumeRemove", record.volume_id)
        _check_commit("VolumeRemove", record.commit_id, "")
        path = _path("VolumeRemove", record.path)
        if not parts_of(path) and not record.is_deep:
            raise PlatformError(
                CONFLICT, "VolumeRemove: that is all there is in the volume; say so with recursive=True (-r)"
            )

        def remove(nodes: Nodes, root: str) -> Changed:
            def edit(editor: TreeEditor, made: MemoryNodes) -> None:
                _remove(editor, nodes, root, path, is_deep=record.is_deep)

            return volume_changes.edited(nodes, root, edit)

        async with self.garbage.untouched():
            return wire.VolumeCommitted(_version(await self._change(asset, record, "rm", caller, remove)))

    async def roll_back(self, caller: Caller, record: wire.VolumeRollback) -> wire.VolumeCommitted:
        """See `VolumeRollback`."""
        asset = await self._used(caller, "VolumeRollback", record.volume_id)
        _check_commit("VolumeRollback", record.commit_id, "")
        async with self.garbage.untouched():
            earlier = await self._version("VolumeRollback", asset, record.version)

            def roll_back(nodes: Nodes, root: str) -> Changed:
                counts = change_counts(nodes, root, earlier.root)
                return Changed(earlier.root, {}, *counts, earlier.entry_count, earlier.size)

            cause = f"rollback to {earlier.number}"
            return wire.VolumeCommitted(_version(await self._change(asset, record, cause, caller, roll_back)))

    # Looks

    async def stat(self, caller: Caller, record: wire.VolumeStat) -> wire.VolumeStatted:
        """See `VolumeStat`."""
        asset = await self._used(caller, "VolumeStat", record.volume_id)
        version = await self._version("VolumeStat", asset, record.version)
        path = _path("VolumeStat", record.path)
        entry = await self._look(lambda nodes: _found("VolumeStat", nodes, version, path))
        return wire.VolumeStatted(volume_changes.shown(path, entry), version.number)

    async def list_some(self, caller: Caller, record: wire.VolumeList) -> wire.VolumeListing:
        """See `VolumeList`."""
        asset = await self._used(caller, "VolumeList", record.volume_id)
        version = await self._version("VolumeList", asset, record.version)
        path, after = _path("VolumeList", record.path), _path("VolumeList", record.after)
        if after and parts_of(after)[: len(parts_of(path))] != parts_of(path):
            raise PlatformError(INVALID, "VolumeList: the page before ended somewhere else")
        limit = max(0, min(record.limit, PAGE_RECORDS_MAX + 1))

        def page(nodes: Nodes) -> list[tuple[str, Entry]]:
            top = _found("VolumeList", nodes, version, path)
            if top.kind != DIRECTORY:
                return [] if after else [(path, top)]
            return list(islice(walk(nodes, top, path, is_deep=record.is_deep, after=after), limit))

        found = await self._look(page)
        listed = (volume_changes.shown(*one, has_blocks=record.has_blocks) for one in found)
        entries, is_cut = first_page(self._codec, listed)
        return wire.VolumeListing(entries, version.number, is_cut)

    async def tree(self, caller: Caller, record: wire.VolumeTreeGet) -> wire.VolumeTree:
        """See `VolumeTreeGet`."""
        asset = await self._used(caller, "VolumeTreeGet", record.volume_id)
        version = await self._version("VolumeTreeGet", asset, record.version)
        after = _path("VolumeTreeGet", record.after)

        def page(nodes: Nodes) -> list[tuple[str, Entry]]:
            found = walk(nodes, top_of(nodes, version.root), "", is_deep=True, after=after)
            return list(islice(found, PAGE_RECORDS_MAX + 1))

        entries = await self._look(page)
        found = (volume_changes.change_of(*one) for one in entries)
        return wire.VolumeTree(*first_page(self._codec, found))

    async def blocks(self, caller: Caller, record: wire.VolumeBlocksGet) -> wire.VolumeBlocks:
        """See `VolumeBlocksGet`."""
        asset = await self._used(caller, "VolumeBlocksGet", record.volume_id)
        version = await self._version("VolumeBlocksGet", asset, record.version)
        path = _path("VolumeBlocksGet", record.path)

        def look(nodes: Nodes) -> tuple[Entry, tuple[str, ...]]:
            entry = _found("VolumeBlocksGet", nodes, version, path)
            return entry, blocks_of(nodes, entry)

        entry, blocks = await self._look(look)
        if entry.kind != FILE:
            kind = volume_changes.NAMES[entry.kind]
            raise PlatformError(CONFLICT, f"VolumeBlocksGet: {path[:200]!r} is a {kind}, and no file")
        first = max(0, record.first)
        some = blocks[first : first + BLOCKS_MAX]
        is_cut = first + len(some) < len(blocks)
        return wire.VolumeBlocks(entry.size, some, entry.offset, version.number, entry.mode, entry.mtime_ns, is_cut)

    async def history(self, caller: Caller, record: wire.VolumeHistoryGet) -> wire.VolumeHistory:
        """See `VolumeHistoryGet`."""
        asset = await self._used(caller, "VolumeHistory", record.volume_id)
        limit = max(0, min(record.limit, PAGE_RECORDS_MAX + 1))
        found = await self._store.history(asset.asset_id, limit, record.before)
        return wire.VolumeHistory(*first_page(self._codec, map(_version, found)))

    async def version(self, caller: Caller, record: wire.VolumeVersionGet) -> wire.VolumeVersion:
        """See `VolumeVersionGet`."""
        asset = await self._used(caller, "VolumeVersionGet", record.volume_id)
        if record.at is None:
            return _version(await self._version("VolumeVersionGet", asset, record.version))
        found = await self._store.at(asset.asset_id, record.at)
        if found is not None:
            return _version(found)
        if record.at < asset.created_at or (await self._store.head(asset.asset_id)).number:
            message = f"no version of volume {asset.name or asset.asset_id} that old is kept"
            raise PlatformError(NOT_FOUND, f"VolumeVersionGet: {message}; `squall volume history` shows those that are")
        return wire.VolumeVersion(0)

    async def differences(self, caller: Caller, record: wire.VolumeDiff) -> wire.VolumeDifferences:
        """See `VolumeDiff`."""
        asset = await self._used(caller, "VolumeDiff", record.volume_id)
        before = await self._version("VolumeDiff", asset, record.before)
        after = await self._version("VolumeDiff", asset, record.after)
        passed = max(0, record.passed)

        def look(nodes: Nodes) -> list[wire.VolumeDifference]:
            changes = diff(nodes, before.root, after.root)
            return [_difference(one.path, one.before, one.after) for one in _page(changes, passed)]

        found = await self._look(look)
        paths, is_cut = first_page(self._codec, found)
        return wire.VolumeDifferences(paths, after.number, is_cut)

    # What stays

    async def put_retention(self, caller: Caller, record: wire.VolumeRetentionPut) -> wire.VolumeRetention:
        """See `VolumeRetentionPut`."""
        asset = await self._used(caller, "VolumeRetentionPut", record.volume_id)
        if record.retention is None:
            return await self._store.get_retention(asset.asset_id) or retention.DEFAULT
        wrong = retention.problem(record.retention)
        if wrong:
            raise PlatformError(INVALID, f"VolumeRetentionPut: {wrong}")
        await self._store.put_retention(asset.asset_id, record.retention)
        return record.retention

    async def usage(self, caller: Caller, record: wire.VolumeUsageGet) -> wire.VolumeUsage:
        """See `VolumeUsageGet`."""
        asset = await self._used(caller, "VolumeUsageGet", record.volume_id)
        return await self.garbage.usage(asset.asset_id)

    async def collect(self, caller: Caller, record: wire.VolumeGc) -> wire.VolumeCollected:
        """See `VolumeGc`."""
        if not record.volume_id:
            return await self.garbage.collect(await self.garbage.volume_ids(), is_trial=record.is_trial)
        asset = await self._used(caller, "VolumeGc", record.volume_id)
        return await self.garbage.collect([asset.asset_id], is_trial=record.is_trial)

    async def tick(self) -> None:
        """Forget what need not stay, now and then."""
        try:
            gone = await self.garbage.collect(await self.garbage.volume_ids())
        except PlatformError as error:
            _log.warning("versions of volumes that need not stay are left for now: %s", error)
        else:
            if gone.version_count:
                _log.info("%d versions of volumes went, and %d bytes", gone.version_count, gone.freed_bytes)

    # Common

    async def version_of(self, volume_id: str, number: int | None) -> wire.VolumeVersion:
        """A version of a volume, the newest for None.

        Raises:
            PlatformError: `not_found`.
        """
        asset = await self._used(Caller(), "ContainerStart", volume_id)
        return _version(await self._version("ContainerStart", asset, number))

    async def _used(self, caller: Caller, method: str, volume_id: str) -> StoredAsset:
        return await self._assets.used(caller, method, VOLUME, volume_id)

    async def _version(self, method: str, asset: StoredAsset, number: int | None) -> StoredVolumeVersion:
        if number is None:
            return await self._store.head(asset.asset_id)
        if number == 0:
            return StoredVolumeVersion(asset.asset_id)
        version = await self._store.get(asset.asset_id, number)
        if version is None:
            head = (await self._store.head(asset.asset_id)).number
            what = f"volume {asset.name or asset.asset_id} has no version {number}"
            why = f"the newest is {head}" if number > head else "it is not kept any more"
            raise PlatformError(NOT_FOUND, f"{method}: {what}: {why}; `squall volume history` shows those there are")
        return version

    async def _look(self, work: Callable[[Nodes], R]) -> R:
        return await self._store.look(work)


def _page(changes: Iterator[R], passed: int) -> Iterator[R]:
    return islice(changes, passed, passed + PAGE_RECORDS_MAX + 1)


def _remove(editor: TreeEditor, nodes: Nodes, root: str, path: str, *, is_deep: bool) -> None:
    top = _found("VolumeRemove", nodes, StoredVolumeVersion("", root=root), path)
    if top.kind == DIRECTORY and not is_deep:
        message = f"{path[:200]!r} is a directory; remove it with recursive=True (-r)"
        raise PlatformError(CONFLICT, f"VolumeRemove: {message}")
    if parts_of(path):
        editor.remove(path)
        return
    for below, _ in walk(nodes, top, "", is_deep=False):
        editor.remove(below)


def _left_out(changed: Changed) -> str:
    """What the history says of what is not in a version."""
    said = []
    if changed.left_out_count:
        said.append(f"{changed.left_out_count:,} paths were left out: they would have been too long")
    if changed.in_way_count:
        said.append(f"{changed.in_way_count:,} files were left out: others have directories of their names")
    return f" ({'; '.join(said)})" if said else ""


def _changed(change: Callable[[Nodes, str], Changed], root: str, nodes: Nodes) -> Changed:
    return change(nodes, root)


def _blocks_of(changes: list[wire.VolumeChange]) -> dict[str, None]:
    return dict.fromkeys(block for change in changes for block in change.blocks if block != wire.HOLE)


def _share(caller: Caller, environment: str) -> Share:
    client_id = caller.client.client_id if caller.client is not None else ""
    return Share(environment, caller.scope_app_id or client_id)


def _who(caller: Caller, user: str) -> str:
    """Code in a container is shown as that, whatever it says of its user."""
    return caller.client.container_id if caller.scope_app_id and caller.client is not None else user


def _check_commit(method: str, commit_id: str, cause: str) -> None:
    if not is_id(commit_id, "rq"):
        raise PlatformError(INVALID, f"{method}: {commit_id[:80]!r} is no id of a commit")
    if len(cause) > CAUSE_CHARS_MAX:
        raise PlatformError(INVALID, f"{method}: a cause has {CAUSE_CHARS_MAX} characters at most")


def _path(method: str, text: str) -> str:
    """A path of a request's, without what means nothing in it.

    Raises:
        PlatformError: `invalid`.
    """
    try:
        return "/".join(parts_of(wire.from_wire(text)))
    except PathError as error:
        raise PlatformError(INVALID, f"{method}: {error}") from None


def _found(method: str, nodes: Nodes, version: StoredVolumeVersion, path: str) -> Entry:
    entry = find(nodes, version.root, path)
    if entry is None:
        where = f"version {version.number} of the volume" if version.number else "the volume"
        raise PlatformError(NOT_FOUND, f"{method}: there is no {path[:200]!r} in {where}")
    return entry


def _version(stored: StoredVolumeVersion) -> wire.VolumeVersion:
    return wire.VolumeVersion(
        stored.number,
        stored.created_at,
        stored.cause,
        stored.created_by,
        stored.entry_count,
        stored.size,
        stored.put_count,
        stored.removed_count,
        stored.root,
    )


def _difference(path: str, before: Entry | None, after: Entry | None) -> wire.VolumeDifference:
    return wire.VolumeDifference(
        volume_changes.shown(path, before) if before is not None else None,
        volume_changes.shown(path, after) if after is not None else None,
    )
