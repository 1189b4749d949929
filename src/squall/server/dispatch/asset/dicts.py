"""Dicts: what is in them, asked by their users, and how long it is kept.

An entry expires some days after it was put, read, or asked for last; that it was read is noted once an hour. What the
clock says is believed as slowly as of everything that is kept for a while (`AgeClock`), and for the first hour of a
server nothing expires at all.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import TYPE_CHECKING, TypeVar

from squall.protocol.asset import DICT
from squall.protocol.dict import (
    COUNT_MAX,
    DONE_MAX,
    KEY_BYTES_MAX,
    UPDATE_ENTRIES_MAX,
    VALUE_BYTES_MAX,
    DictClear,
    DictContained,
    DictContains,
    DictCount,
    DictCountGet,
    DictGet,
    DictPage,
    DictPop,
    DictPut,
    DictPutDone,
    DictRead,
    DictValue,
    pack,
    unpack,
)
from squall.protocol.empty import Empty
from squall.protocol.errors import CONFLICT, INVALID, NOT_FOUND, PlatformError
from squall.protocol.frames import INLINE_BYTES_MAX
from squall.protocol.ids import is_id
from squall.protocol.pages import PAGE_RECORDS_MAX
from squall.protocol.task_set import going_on
from squall.server.dispatch.asset.dict_cache import DictCache
from squall.server.dispatch.clock import AgeClock
from squall.server.model.dict import DictWrite, EntryKey, StoredEntry, Taking, hash_of

if TYPE_CHECKING:
    from squall.protocol.task_set import TaskSet
    from squall.server.dispatch.asset.assets import Assets
    from squall.server.dispatch.client.callers import Caller
    from squall.server.model.blobs import BlobStore
    from squall.server.model.clock import Clock
    from squall.server.model.store import Store

R = TypeVar("R")

KEPT_S = 7 * 24 * 3_600.0
"""How long an entry is kept that nobody uses."""
NOTED_EVERY_S = 3_600.0
"""How often it is noted that an entry was read."""
NOTED_MAX = 10_000
"""Entries that were read and are not noted yet."""
WAITED_S = 3_600.0
"""After its start a server lets nothing expire: a clock that is wrong can be set right meanwhile."""
EXPIRED_AT_ONCE = 1_000
ANSWERS_KEPT_S = 600.0
"""How long a client may take to ask again what it has asked already."""
PAGE_BYTES = 4 * 2**20


class Dicts:
    """All of them. Changes go through the store; what was used last is here too."""

    def __init__(self, *, assets: Assets, store: Store, blobs: BlobStore, clock: Clock, tasks: TaskSet) -> None:
        self._assets = assets
        self._store = store.dicts
        self._blobs = blobs
        self._clock = clock
        self._age = AgeClock(clock)
        self._tasks = tasks
        self._began_at = clock.monotonic()
        self._is_tidying = False
        self._used: dict[EntryKey, float] = {}
        self.cache = DictCache()
        assets.on_deleted.append(self.cache.deleted)

    # Methods

    async def put(self, caller: Caller, record: DictPut, body: bytes) -> tuple[DictPutDone, bytes]:
        """See `DictPut`."""
        await self._used_by(caller, "DictPut", record.dict_id)
        _check_request("DictPut", record.request_id)
        entries = self._entries_of(record, body)
        for entry in entries:
            await self._check_blob(entry)
        write = DictWrite(record.dict_id, record.request_id, entries, record.skip_if_exists)
        return DictPutDone(await self._whole(self._put(write))), b""

    async def get(self, caller: Caller, record: DictGet, body: bytes) -> tuple[DictValue, bytes]:
        """See `DictGet`."""
        await self._used_by(caller, "DictGet", record.dict_id)
        return _answer(await self._find(_key("DictGet", record.dict_id, body)))

    async def contains(self, caller: Caller, record: DictContains, body: bytes) -> tuple[DictContained, bytes]:
        """See `DictContains`."""
        await self._used_by(caller, "DictContains", record.dict_id)
        entry = await self._find(_key("DictContains", record.dict_id, body))
        return DictContained(entry is not None), b""

    async def pop(self, caller: Caller, record: DictPop, body: bytes) -> tuple[DictValue, bytes]:
        """See `DictPop`."""
        await self._used_by(caller, "DictPop", record.dict_id)
        _check_request("DictPop", record.request_id)
        if len(record.done) > DONE_MAX:
            raise PlatformError(INVALID, f"DictPop: {len(record.done)} requests are done, at most {DONE_MAX} may be")
        key = _key("DictPop", record.dict_id, body)
        taking = Taking(record.dict_id, record.request_id, key.key_hash, self._age.now(), record.done)
        return _answer(await self._whole(self._pop(key, taking)))

    async def clear(self, caller: Caller, record: DictClear, body: bytes) -> tuple[Empty, bytes]:
        """See `DictClear`."""
        await self._used_by(caller, "DictClear", record.dict_id)
        _check_request("DictClear", record.request_id)
        await self._whole(self._clear(record))
        return Empty(), b""

    async def count(self, caller: Caller, record: DictCountGet, body: bytes) -> tuple[DictCount, bytes]:
        """See `DictCountGet`."""
        await self._used_by(caller, "DictCountGet", record.dict_id)
        return DictCount(await self._store.count(record.dict_id, COUNT_MAX)), b""

    async def read(self, caller: Caller, record: DictRead, body: bytes) -> tuple[DictPage, bytes]:
        """See `DictRead`."""
        await self._used_by(caller, "DictRead", record.dict_id)
        if not re.match(r"([0-9a-f]{64})?\Z", record.after):
            raise PlatformError(INVALID, f"DictRead: {record.after[:80]!r} is no SHA-256")
        if record.limit < 1:
            raise PlatformError(INVALID, f"DictRead: limit={record.limit} must be from 1 up")
        limit = min(record.limit, PAGE_RECORDS_MAX)
        after = bytes.fromhex(record.after)
        page = await self._store.page(record.dict_id, after, limit, PAGE_BYTES, has_values=record.has_values)
        entries, found = pack((entry.key, entry.value, entry.blob_sha256) for entry in page)
        # Whether there are more is not known of a page that is full of bytes.
        following = page[-1].key_hash.hex() if page else ""
        return DictPage(entries, following), found

    # What is in them

    async def _used_by(self, caller: Caller, method: str, dict_id: str) -> None:
        await self._assets.used(caller, method, DICT, dict_id)

    def _entries_of(self, record: DictPut, body: bytes) -> tuple[StoredEntry, ...]:
        try:
            found = unpack(record.entries, body)
        except ValueError as error:
            raise PlatformError(INVALID, f"DictPut: {error}") from error
        if not found or len(found) > UPDATE_ENTRIES_MAX:
            raise PlatformError(INVALID, f"DictPut: {len(found)} entries, 1 to {UPDATE_ENTRIES_MAX} may be")
        if record.skip_if_exists and len(found) != 1:
            raise PlatformError(INVALID, f"DictPut: skip_if_exists is for one entry, and these are {len(found)}")
        now = self._age.now()
        for key, value, _ in found:
            _check_size("DictPut", key)
            if len(value) > INLINE_BYTES_MAX:
                raise PlatformError(INVALID, f"DictPut: a value of {len(value)} bytes goes to the blob store first")
        return tuple(StoredEntry(key, value, blob_sha256, now) for key, value, blob_sha256 in found)

    async def _check_blob(self, entry: StoredEntry) -> None:
        if not entry.blob_sha256:
            return
        try:
            size_bytes, _ = await self._blobs.get_chunk(entry.blob_sha256, 0, 0)
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
            message = f"the value's blob {entry.blob_sha256[:16]}… is not in the store (any more); put it again"
            raise PlatformError(CONFLICT, f"DictPut: {message}") from error
        if size_bytes > VALUE_BYTES_MAX:
            message = f"the value has {size_bytes >> 20} MiB, at most {VALUE_BYTES_MAX >> 20} it may have"
            raise PlatformError(INVALID, f"DictPut: {message}")

    async def _whole(self, change: Coroutine[object, object, R]) -> R:
        """A change that goes on when whoever asked is gone: the store carries it out, and the cache must hear of it."""
        result: R = await asyncio.shield(self._tasks.start(change))
        return result

    async def _put(self, write: DictWrite) -> bool:
        keys = [EntryKey(write.dict_id, entry.key_hash) for entry in write.entries]
        try:
            is_put = await self._store.put(write)
        except BaseException:
            for key in keys:
                self.cache.unknown(key)
            raise
        for key, entry in zip(keys, write.entries, strict=True):
            # One that was put before by the same request may have been changed by others since.
            if write.is_new_only:
                self.cache.unknown(key)
            else:
                self.cache.written(key, entry)
        return is_put

    async def _pop(self, key: EntryKey, taking: Taking) -> StoredEntry | None:
        try:
            return await self._store.pop(taking)
        finally:
            self.cache.unknown(key)

    async def _clear(self, record: DictClear) -> None:
        try:
            await self._store.clear(record.dict_id, record.request_id, self._age.now())
        finally:
            self.cache.cleared(record.dict_id)
            self._assets.purge_soon()

    async def _find(self, key: EntryKey) -> StoredEntry | None:
        is_known, entry = self.cache.find(key)
        if not is_known:
            reading = self.cache.begin(key)
            try:
                entry = await self._store.get(key)
                self.cache.read(reading, entry)
            finally:
                self.cache.end(reading)
        if entry is not None:
            self._note(key, entry)
        return entry

    def _note(self, key: EntryKey, entry: StoredEntry) -> None:
        now = self._age.now()
        if now - entry.used_at < NOTED_EVERY_S or key in self._used:
            return
        self._used[key] = now
        self.cache.used(key, entry, now)
        if len(self._used) >= NOTED_MAX:
            self.tidy_soon()

    # What is old

    def tidy_soon(self) -> None:
        """Note what was read, and forget what is old."""
        if not self._is_tidying:
            self._is_tidying = True
            self._tasks.start(self._tidy())

    async def _tidy(self) -> None:
        try:
            with going_on("old entries of dicts are kept for now"):
                await self._note_all()
                now = self._age.now()
                await self._store.forget_answers(now - ANSWERS_KEPT_S)
                if self._clock.monotonic() - self._began_at >= WAITED_S:
                    await self._expire(now - KEPT_S)
        finally:
            self._is_tidying = False

    async def _note_all(self) -> None:
        used, self._used = self._used, {}
        if used:
            await self._store.use(used)

    async def _expire(self, before: float) -> None:
        while gone := await self._store.expire(before, EXPIRED_AT_ONCE):
            self.cache.expired(gone)
            await self._note_all()


def _check_request(method: str, request_id: str) -> None:
    if not is_id(request_id, "rq"):
        raise PlatformError(INVALID, f"{method}: {request_id[:80]!r} is no id of a request")


def _check_size(method: str, key: bytes) -> None:
    if len(key) > KEY_BYTES_MAX:
        raise PlatformError(INVALID, f"{method}: a key has {len(key)} bytes, at most {KEY_BYTES_MAX} it may have")


def _key(method: str, dict_id: str, key: bytes) -> EntryKey:
    _check_size(method, key)
    return EntryKey(dict_id, hash_of(key))


def _answer(entry: StoredEntry | None) -> tuple[DictValue, bytes]:
    return (DictValue(False), b"") if entry is None else (DictValue(True, entry.blob_sha256), entry.value)
