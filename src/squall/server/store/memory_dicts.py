"""What is in dicts, in memory, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from squall.protocol.errors import CONFLICT, NOT_FOUND, PlatformError
from squall.server.model.dict import DictWrite, EntryKey, StoredEntry, Taking
from squall.server.store.memory_assets import MemoryAssets


class MemoryDicts:
    """See `DictStore`."""

    def __init__(self, assets: MemoryAssets) -> None:
        self._assets = assets
        assets.on_purge.append(self._purge)
        self._entries: dict[str, dict[bytes, tuple[StoredEntry, str]]] = {}
        """Of each dict by the hash of their keys, with the request that put them."""
        self._answers: dict[tuple[str, str], tuple[StoredEntry | None, float]] = {}

    async def _of(self, dict_id: str) -> dict[bytes, tuple[StoredEntry, str]]:
        if await self._assets.get(dict_id) is None:
            raise PlatformError(NOT_FOUND, f"there is no {dict_id}; it was deleted")
        return self._entries.setdefault(dict_id, {})

    async def put(self, write: DictWrite) -> bool:
        """See `DictStore`."""
        entries = await self._of(write.dict_id)
        if write.is_new_only and write.entries[0].key_hash in entries:
            return entries[write.entries[0].key_hash][1] == write.request_id
        entries.update({entry.key_hash: (entry, write.request_id) for entry in write.entries})
        return True

    async def get(self, key: EntryKey) -> StoredEntry | None:
        """See `DictStore`."""
        found = self._entries.get(key.dict_id, {}).get(key.key_hash)
        return found[0] if found is not None else None

    async def pop(self, taking: Taking) -> StoredEntry | None:
        """See `DictStore`."""
        entries, asked = await self._of(taking.dict_id), (taking.dict_id, taking.request_id)
        if asked in self._answers:
            before = self._answers[asked][0]
            if before is None:
                what = f"DictPop: request {taking.request_id} was for something else; use a new one"
                raise PlatformError(CONFLICT, what)
            return before
        for request_id in taking.done:
            self._answers.pop((taking.dict_id, request_id), None)
        found = entries.pop(taking.key_hash, None)
        if found is None:
            return None
        self._answers[asked] = found[0], taking.now
        return found[0]

    async def clear(self, dict_id: str, request_id: str, now: float) -> None:
        """See `DictStore`."""
        entries = await self._of(dict_id)
        if (dict_id, request_id) not in self._answers:
            entries.clear()
            self._answers[dict_id, request_id] = None, now

    async def count(self, dict_id: str, limit: int) -> int:
        """See `DictStore`."""
        return min(limit, len(self._entries.get(dict_id, ())))

    async def page(
        self, dict_id: str, after: bytes, limit: int, bytes_max: int, *, has_values: bool
    ) -> tuple[StoredEntry, ...]:
        """See `DictStore`."""
        page: list[StoredEntry] = []
        for key_hash, (entry, _) in sorted(self._entries.get(dict_id, {}).items(), key=lambda item: item[0]):
            if key_hash > after and len(page) < limit and bytes_max > 0:
                page.append(entry if has_values else replace(entry, value=b""))
                bytes_max -= len(entry.key) + len(page[-1].value)
        return tuple(page)

    async def use(self, used: Mapping[EntryKey, float]) -> None:
        """See `DictStore`."""
        for key, at in used.items():
            entries = self._entries.get(key.dict_id, {})
            if key.key_hash in entries:
                entry, put_id = entries[key.key_hash]
                entries[key.key_hash] = replace(entry, used_at=at), put_id

    async def expire(self, before: float, limit: int) -> tuple[EntryKey, ...]:
        """See `DictStore`."""
        old = [
            EntryKey(dict_id, key_hash)
            for dict_id, entries in self._entries.items()
            for key_hash, (entry, _) in entries.items()
            if entry.used_at < before
        ][:limit]
        for key in old:
            del self._entries[key.dict_id][key.key_hash]
        return tuple(old)

    async def forget_answers(self, before: float) -> None:
        """See `DictStore`."""
        self._answers = {asked: one for asked, one in self._answers.items() if one[1] >= before}

    def live_blobs(self) -> set[str]:
        """Those that an entry names, or what was taken out."""
        named = {entry.blob_sha256 for entries in self._entries.values() for entry, _ in entries.values()}
        return named | {entry.blob_sha256 for entry, _ in self._answers.values() if entry is not None}

    def _purge(self, asset_id: str) -> None:
        self._entries.pop(asset_id, None)
        self._answers = {asked: one for asked, one in self._answers.items() if asked[0] != asset_id}
