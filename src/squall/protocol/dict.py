"""Dicts: keys and values on the server, for all programs of an environment. The server reads neither.

A key is the bytes that its client makes of it: two keys are the same when these are. Methods that change something have
the id of their request; asked again with the same, they change nothing more, and the answer is the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from squall.protocol.records import field, record

KEY_BYTES_MAX = 2**16
VALUE_BYTES_MAX = 100 * 2**20
UPDATE_ENTRIES_MAX = 10_000
"""Of one update; what of it goes in one request is there all at once, or not at all."""
UPDATE_BYTES = 16 * 2**20
"""Of keys and values in one request, unless one entry alone is larger."""
COUNT_MAX = 100_000
"""Nobody counts further."""
DONE_MAX = 1_000
"""Requests that are said to be answered by one other."""

Entry = tuple[bytes, bytes, str]
"""A key, its value, and the blob that the value is in, if it is in one."""


@record
class DictEntries:
    """Where the keys and values of a body are: each key is followed by its value, which is empty if it is in a blob."""

    key_sizes: tuple[int, ...]
    value_sizes: tuple[int, ...]
    blobs: dict[str, str] = field(default_factory=dict)
    """By number of the entry, the SHA-256 of its value."""


def pack(entries: Iterable[Entry]) -> tuple[DictEntries, bytes]:
    """Entries for the wire."""
    keys: list[int] = []
    values: list[int] = []
    blobs: dict[str, str] = {}
    parts: list[bytes] = []
    for key, value, blob_sha256 in entries:
        if blob_sha256:
            blobs[str(len(keys))] = blob_sha256
        keys.append(len(key))
        values.append(len(value))
        parts += (key, value)
    return DictEntries(tuple(keys), tuple(values), blobs), b"".join(parts)


def unpack(entries: DictEntries, body: bytes) -> list[Entry]:
    """The entries of a body.

    Raises:
        ValueError: what is said of it does not fit.
    """
    sizes = [*entries.key_sizes, *entries.value_sizes]
    if len(entries.key_sizes) != len(entries.value_sizes) or any(size < 0 for size in sizes):
        raise ValueError("each key has one value, and no size is below 0")
    if sum(sizes) != len(body):
        raise ValueError(f"sizes of keys and values do not add up to {len(body)} bytes")
    found: list[Entry] = []
    offset = 0
    for number, (key_size, value_size) in enumerate(zip(entries.key_sizes, entries.value_sizes, strict=True)):
        end = offset + key_size
        blob_sha256 = entries.blobs.get(str(number), "")
        found.append((body[offset:end], body[end : end + value_size], blob_sha256))
        offset = end + value_size
    if any(value and blob_sha256 for _, value, blob_sha256 in found):
        raise ValueError("a value is in the body or in a blob")
    return found


@record
class DictPut:
    """Set entries, all of them or none; keys and values are in the body.

    Errors: `not_found`, here and below where there is no such dict; `conflict` when a blob that is named is not in the
    store (any more).
    """

    dict_id: str
    request_id: str
    entries: DictEntries
    skip_if_exists: bool = False
    """Of one entry: if the dict has that key, it stays as it is."""


@record
class DictPutDone:
    """The answer."""

    is_put: bool = True
    """False: the key was there, and was to be left then."""


@record
class DictGet:
    """The value of the key in the body."""

    dict_id: str


@record
class DictValue:
    """The answer; the value is in the body, or in a blob."""

    is_there: bool
    blob_sha256: str = ""


@record
class DictPop:
    """Take the entry out whose key is in the body; the answer is as of `DictGet`."""

    dict_id: str
    request_id: str
    done: tuple[str, ...] = ()
    """Requests of the same client to this dict whose answers have come: they will not be asked again."""


@record
class DictContains:
    """Whether there is an entry of the key in the body."""

    dict_id: str


@record
class DictContained:
    """The answer."""

    is_there: bool


@record
class DictClear:
    """Take all entries out."""

    dict_id: str
    request_id: str


@record
class DictCountGet:
    """How many entries there are."""

    dict_id: str


@record
class DictCount:
    """The answer, `COUNT_MAX` at most."""

    count: int


@record
class DictRead:
    """Some entries, in the order of the hashes of their keys.

    Whoever reads page by page finds each entry once that is there all the time, and may find those that come or go.
    """

    dict_id: str
    after: str = ""
    """Those after the entry whose key has this SHA-256, in hexadecimal digits."""
    limit: int = 1_000
    has_values: bool = True
    """Without, only keys come."""


@record
class DictPage:
    """The answer: keys and values are in the body."""

    entries: DictEntries
    after: str = ""
    """For the question for the next page; empty when nothing was left to read."""
