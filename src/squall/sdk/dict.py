"""Dicts: keys and values that all programs and containers of an environment share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from squall.exception import (
    ConflictError,
    DeserializationError,
    Error,
    NotFoundError,
    RequestSizeError,
    SerializationError,
)
from squall.protocol.asset import DICT
from squall.protocol.dict import (
    KEY_BYTES_MAX,
    UPDATE_BYTES,
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
    Entry,
    pack,
    unpack,
)
from squall.protocol.empty import Empty
from squall.protocol.frames import INLINE_BYTES_MAX
from squall.protocol.ids import new_id
from squall.sdk import _blob
from squall.sdk._asset import Asset, client_of, held, time_of
from squall.sdk._asset_objects import EmptyObjects
from squall.sdk._facade import BlockingCall, blocking, blocking_iterator, blocking_static_context
from squall.sdk._pieces import size_of
from squall.sdk._plain_key import encode_key
from squall.sdk._serialization import deserialize, serialize_pieces
from squall.sdk._value_text import value_text

if TYPE_CHECKING:
    from squall.sdk._client import Client
    from squall.sdk._pending import Pending
    from squall.sdk.types import DictInfo

TRIES_MAX = 3
"""Of what names a blob that somebody takes away at the same time."""


class _Missing:
    """In the place of a default that was not given."""

    def __repr__(self) -> str:
        return "..."


_MISSING = _Missing()


class Dict(Asset):
    """A dictionary on the server. Keys and values are pickled: what comes out is a copy of what was put.

    Each change outlives the server, and is seen by everybody, when its call returns. An entry that nobody puts or reads
    for 7 days goes.
    """

    _kind = DICT

    objects: ClassVar[EmptyObjects[Dict]] = EmptyObjects()
    """Makes, lists and deletes dicts."""

    @staticmethod
    def from_name(
        name: str,
        *,
        environment_name: str | None = None,
        create_if_missing: bool = False,
        client: Client | None = None,
    ) -> Dict:
        """The dict of that name; with `create_if_missing` its first use makes it, if there is none."""
        return Dict._named(name, environment_name, client, is_created=create_if_missing)

    @staticmethod
    def from_id(dict_id: str, client: Client | None = None) -> Dict:
        """The dict of that id."""
        return Dict._of_id(dict_id, client)

    @blocking_static_context
    async def ephemeral(
        *, client: Client | None = None, environment_name: str | None = None
    ) -> AsyncGenerator[Dict, None]:
        """A dict without a name, for as long as the block runs; other processes use it by its handle."""
        async with held(Dict, environment_name, client) as made:
            yield made

    @blocking
    async def info(self) -> DictInfo:
        """Its name, when it was made, and by whom."""
        from squall.sdk.types import DictInfo  # cold start: seldom asked for

        known = await self._known()
        return DictInfo(known.name or None, time_of(known.created_at), known.created_by or None)

    # One entry

    @blocking
    async def get(self, key: Any, default: Any | None = None) -> Any:
        """The value of a key, or the default."""
        return await self._get(key, default)

    async def _get(self, key: Any, default: Any) -> Any:
        encoded = self._key(key)
        record = DictGet(await self._resolved())
        for attempt in range(TRIES_MAX):
            found, body = await client_of(self._client).request_with_body("DictGet", record, DictValue, encoded)
            if not found.is_there:
                return default
            try:
                return await self._value(key, body, found.blob_sha256)
            except NotFoundError:
                # Somebody has put another value since, and this one is gone.
                if attempt == TRIES_MAX - 1:
                    raise
        raise AssertionError("every attempt returns or raises")

    @blocking
    async def contains(self, key: Any) -> bool:
        """Whether there is an entry of that key."""
        return await self._contains(key)

    async def _contains(self, key: Any) -> bool:
        record = DictContains(await self._resolved())
        found, _ = await client_of(self._client).request_with_body(
            "DictContains", record, DictContained, self._key(key)
        )
        return found.is_there

    @blocking
    async def put(self, key: Any, value: Any, *, skip_if_exists: bool = False) -> bool:
        """Set the value of a key.

        With `skip_if_exists` a key that is there keeps its value, and False is returned: of many who try at the same
        time exactly one gets True, which makes a lock of a key.

        Raises:
            RequestSizeError: the value has more than 100 MiB, or the key more than 64 KiB.
            SerializationError: key or value cannot be pickled.
        """
        return await self._put(key, value, skip_if_exists=skip_if_exists)

    async def _put(self, key: Any, value: Any, *, skip_if_exists: bool = False) -> bool:
        request_id = new_id("rq")
        for attempt in range(TRIES_MAX):
            entry = await self._entry(key, value)
            try:
                return await self._send(request_id, [entry], skip_if_exists=skip_if_exists)
            except ConflictError:
                # The value's blob was there, named by nothing, and was just removed.
                if attempt == TRIES_MAX - 1:
                    raise
        raise AssertionError("every attempt returns or raises")

    @blocking
    async def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """Take an entry out and return its value, or the default.

        Raises:
            KeyError: there is no such key, and no default.
            DeserializationError: the value cannot be read here; it is there again, unless somebody has put another one.
        """
        request_id, encoded = new_id("rq"), self._key(key)
        found, body = await self._take(request_id, encoded)
        if not found.is_there:
            if default is _MISSING:
                raise KeyError(key)
            return default
        try:
            return await self._value(key, body, found.blob_sha256)
        except BaseException as error:
            back = self._give_back((encoded, body, found.blob_sha256))
            if isinstance(error, Exception):
                with suppress(Error):
                    await back
            raise
        finally:
            self._done.append(request_id)

    async def _take(self, request_id: str, encoded: bytes) -> tuple[DictValue, bytes]:
        record = DictPop(await self._resolved(), request_id, self._take_done())
        return await client_of(self._client).request_with_body("DictPop", record, DictValue, encoded)

    def _give_back(self, entry: Entry) -> Pending[Any]:
        packed, body = pack([entry])
        record = DictPut(self._asset_id, new_id("rq"), packed, skip_if_exists=True)
        return client_of(self._client).ask("DictPut", record, body)

    # Many entries

    @blocking
    async def update(self, /, other: Mapping[Any, Any] | None = None, **kwargs: Any) -> None:
        """Set several entries; those that have 16 MiB or less together are there all at once.

        Raises:
            RequestSizeError: these are more than 10,000 entries, or one is too large.
            SerializationError: a key or a value cannot be pickled.
        """
        given = {**dict(other or {}), **kwargs}
        if len(given) > UPDATE_ENTRIES_MAX:
            many = f"{len(given):,} entries at once, and {UPDATE_ENTRIES_MAX:,} are the most; update in several parts"
            raise RequestSizeError(f"cannot update {self._words}: these are {many}")
        entries: list[Entry] = []
        left = UPDATE_BYTES
        for key, value in given.items():
            entry = await self._entry(key, value)
            size_bytes = len(entry[0]) + len(entry[1])
            if entries and size_bytes > left:
                await self._send(new_id("rq"), entries)
                entries, left = [], UPDATE_BYTES
            entries.append(entry)
            left -= size_bytes
        if entries:
            await self._send(new_id("rq"), entries)

    @blocking
    async def clear(self) -> None:
        """Take all entries out."""
        record = DictClear(await self._resolved(), new_id("rq"))
        await client_of(self._client).request("DictClear", record, Empty)

    @blocking
    async def len(self) -> int:
        """How many entries there are, counted up to 100,000. The server counts each time."""
        record = DictCountGet(await self._resolved())
        return (await client_of(self._client).request("DictCountGet", record, DictCount)).count

    @blocking_iterator
    async def keys(self) -> AsyncGenerator[Any, None]:
        """All keys, in no order. Those that come or go meanwhile may be among them or not."""
        async for key, _, _ in self._read(has_values=False):
            yield self._read_key(key)

    @blocking_iterator
    async def values(self) -> AsyncGenerator[Any, None]:
        """All values, as `keys`."""
        async for _, value in self._pairs():
            yield value

    @blocking_iterator
    async def items(self) -> AsyncGenerator[tuple[Any, Any], None]:
        """All keys with their values, as `keys`."""
        async for pair in self._pairs():
            yield pair

    async def _pairs(self) -> AsyncGenerator[tuple[Any, Any], None]:
        async for encoded, body, blob_sha256 in self._read(has_values=True):
            key = self._read_key(encoded)
            try:
                yield key, await self._value(key, body, blob_sha256)
            except NotFoundError:
                continue  # somebody has just put another value, or none

    async def _read(self, *, has_values: bool) -> AsyncGenerator[Entry, None]:
        after = ""
        while True:
            record = DictRead(await self._resolved(), after, has_values=has_values)
            page, body = await client_of(self._client).request_with_body("DictRead", record, DictPage)
            for entry in unpack(page.entries, body):
                yield entry
            if not page.after:
                return
            after = page.after

    # Operators

    def __getitem__(self, key: Any) -> Any:
        """The value of a key, or KeyError."""
        return BlockingCall(self._item, "get")(key)

    async def _item(self, key: Any) -> Any:
        value = await self._get(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        """As `put`."""
        BlockingCall(self._put, "put")(key, value)

    def __delitem__(self, key: Any) -> None:
        """Take an entry out, or KeyError."""
        BlockingCall(self._delete, "pop")(key)

    async def _delete(self, key: Any) -> None:
        request_id = new_id("rq")
        found, _ = await self._take(request_id, self._key(key))
        self._done.append(request_id)
        if not found.is_there:
            raise KeyError(key)

    def __contains__(self, key: Any) -> bool:
        """As `contains`."""
        return BlockingCall(self._contains, "contains")(key)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a squall.Dict cannot be iterated itself; write .keys(), .values() or .items()")

    # On the way

    @property
    def _words(self) -> str:
        return f"dict {self._name or self._asset_id}"

    def _key(self, key: Any) -> bytes:
        try:
            encoded = encode_key(key)
        except SerializationError as error:
            raise SerializationError(f"{value_text(key)} cannot be a key of {self._words}: {error}") from error
        if len(encoded) > KEY_BYTES_MAX:
            size = f"it has {len(encoded):,} bytes, and {KEY_BYTES_MAX:,} are the most; a hash of it could be the key"
            raise RequestSizeError(f"{value_text(key)} cannot be a key of {self._words}: {size}")
        return encoded

    async def _entry(self, key: Any, value: Any) -> Entry:
        encoded = self._key(key)
        try:
            pieces = serialize_pieces(value, (value,))
        except SerializationError as error:
            raise SerializationError(f"cannot put {value_text(key)} into {self._words}: {error}") from error
        size_bytes = size_of(pieces)
        if size_bytes > VALUE_BYTES_MAX:
            size = f"the value has {size_bytes / 2**20:.1f} MiB, and {VALUE_BYTES_MAX >> 20} are the most"
            raise RequestSizeError(f"cannot put {value_text(key)} into {self._words}: {size}; put it in parts")
        if size_bytes <= INLINE_BYTES_MAX:
            return encoded, b"".join(pieces), ""
        return encoded, b"", await _blob.put(client_of(self._client), pieces)

    async def _send(self, request_id: str, entries: list[Entry], *, skip_if_exists: bool = False) -> bool:
        packed, body = pack(entries)
        record = DictPut(await self._resolved(), request_id, packed, skip_if_exists)
        return (await client_of(self._client).request("DictPut", record, DictPutDone, body)).is_put

    async def _value(self, key: Any, body: bytes, blob_sha256: str) -> Any:
        data: Any = await _blob.get(client_of(self._client), blob_sha256) if blob_sha256 else body
        try:
            return deserialize(data)
        except DeserializationError as error:
            raise DeserializationError(f"{self._words}, key {value_text(key)}: {error}") from error.__cause__

    def _read_key(self, encoded: bytes) -> Any:
        try:
            return deserialize(encoded)
        except DeserializationError as error:
            raise DeserializationError(f"{self._words}, a key: {error}") from error.__cause__
