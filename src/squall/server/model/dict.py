"""What is remembered of dicts, and the contract of whatever remembers it. Invariants as in `model/store.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from squall.protocol.hashing import sha256_hex


class EntryKey(NamedTuple):
    """Which entry: of which dict, and the SHA-256 of its key."""

    dict_id: str
    key_hash: bytes


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry: its value, or the blob that holds it."""

    key: bytes
    value: bytes = b""
    blob_sha256: str = ""
    used_at: float = 0.0
    """When it was written, or noted to be read, last."""

    @property
    def key_hash(self) -> bytes:
        """The SHA-256 of its key."""
        return hash_of(self.key)


def hash_of(key: bytes) -> bytes:
    """The SHA-256 of a key."""
    return bytes.fromhex(sha256_hex(key))


@dataclass(frozen=True, slots=True)
class DictWrite:
    """Entries to be set, all of them or none."""

    dict_id: str
    request_id: str
    entries: tuple[StoredEntry, ...]
    is_new_only: bool = False
    """Of one entry: leave what is there."""


@dataclass(frozen=True, slots=True)
class Taking:
    """One entry to be taken out."""

    dict_id: str
    request_id: str
    key_hash: bytes
    now: float
    done: tuple[str, ...] = ()
    """Requests whose answers need not be remembered any more."""


class DictStore(Protocol):
    """What is in dicts. Raises as `Store`; what is put into a dict that there is not (any more), or taken out of it, is
    `not_found`."""

    async def put(self, write: DictWrite) -> bool:
        """Set entries; whether they are set now by this request, or were before by it: False only where one was to be
        new and another request has put it."""

    async def get(self, key: EntryKey) -> StoredEntry | None:
        """One entry."""

    async def pop(self, taking: Taking) -> StoredEntry | None:
        """Take an entry out. What was taken is remembered under the id of the request, and taken no second time."""

    async def clear(self, dict_id: str, request_id: str, now: float) -> None:
        """Take all out; nothing the second time that this request comes."""

    async def count(self, dict_id: str, limit: int) -> int:
        """How many entries there are, counted up to the limit."""

    async def page(
        self, dict_id: str, after: bytes, limit: int, bytes_max: int, *, has_values: bool
    ) -> tuple[StoredEntry, ...]:
        """Entries by the hashes of their keys, those after one.

        They end with the one that makes keys and values `bytes_max` or more; of those in blobs the value is empty.
        """

    async def use(self, used: Mapping[EntryKey, float]) -> None:
        """Note when entries were read; those that are not there are passed over."""

    async def expire(self, before: float, limit: int) -> tuple[EntryKey, ...]:
        """Forget entries that were used last before that time, so many at most; which."""

    async def forget_answers(self, before: float) -> None:
        """Forget what was taken out before that time."""
