"""One suite for every store: what is in dicts."""

from __future__ import annotations

import asyncio

import pytest

from squall.protocol.asset import DICT
from squall.protocol.errors import CONFLICT, PlatformError
from squall.protocol.ids import new_id
from squall.server.model.asset import StoredAsset
from squall.server.model.dict import DictWrite, EntryKey, StoredEntry, Taking, hash_of
from squall.server.model.store import Store


@pytest.fixture
async def dicts(store: Store) -> Store:
    """A store with two empty dicts."""
    for number in (1, 2):
        await store.assets.put(StoredAsset(f"di-{number}", DICT, f"cache-{number}", "", float(number)))
    return store


def write(
    key: bytes, value: bytes = b"", request_id: str = "rq-1", *, dict_id: str = "di-1", at: float = 1.0, blob: str = ""
) -> DictWrite:
    return DictWrite(dict_id, request_id, (StoredEntry(key, value, blob, at),))


def lock(key: bytes, request_id: str) -> DictWrite:
    return DictWrite("di-1", request_id, (StoredEntry(key, b"mine"),), is_new_only=True)


def at_key(key: bytes, dict_id: str = "di-1") -> EntryKey:
    return EntryKey(dict_id, hash_of(key))


def taking(key: bytes, request_id: str, *done: str, at: float = 1.0) -> Taking:
    return Taking("di-1", request_id, hash_of(key), at, done)


async def value_of(store: Store, key: bytes, dict_id: str = "di-1") -> bytes | None:
    entry = await store.dicts.get(at_key(key, dict_id))
    return None if entry is None else entry.value


async def test_an_entry_is_found_under_its_key_in_its_dict(dicts: Store) -> None:
    assert await dicts.dicts.put(write(b"k", b"v"))
    assert await dicts.dicts.put(write(b"", b"", dict_id="di-2", at=2.0, blob="ab"))

    assert await dicts.dicts.get(at_key(b"k")) == StoredEntry(b"k", b"v", "", 1.0)
    assert await dicts.dicts.get(at_key(b"", "di-2")) == StoredEntry(b"", b"", "ab", 2.0)
    assert await value_of(dicts, b"k", "di-2") is None


async def test_a_later_value_takes_the_place_of_an_earlier_one(dicts: Store) -> None:
    await dicts.dicts.put(write(b"k", b"old", blob="ab"))
    await dicts.dicts.put(write(b"k", b"new", at=2.0))

    assert await dicts.dicts.get(at_key(b"k")) == StoredEntry(b"k", b"new", "", 2.0)


async def test_writes_that_come_together_are_carried_out_in_their_order(dicts: Store) -> None:
    await asyncio.gather(*(dicts.dicts.put(write(b"k", b"%d" % number, f"rq-{number}")) for number in range(50)))

    assert await value_of(dicts, b"k") == b"49"


async def test_of_many_who_want_a_lock_one_gets_it_and_gets_it_when_it_asks_again(dicts: Store) -> None:
    got = await asyncio.gather(*(dicts.dicts.put(lock(b"k", f"rq-{number}")) for number in range(30)))

    assert got == [True] + [False] * 29
    assert await dicts.dicts.put(lock(b"k", "rq-0"))
    assert not await dicts.dicts.put(lock(b"k", "rq-1"))
    await dicts.dicts.pop(taking(b"k", "rq-pop"))
    assert await dicts.dicts.put(lock(b"k", "rq-1"))
    assert not await dicts.dicts.put(lock(b"k", "rq-0"))


async def test_entries_of_one_write_come_together(dicts: Store) -> None:
    many = tuple(StoredEntry(b"%d" % number, b"v") for number in range(2_000))

    assert await dicts.dicts.put(DictWrite("di-1", "rq-1", many))

    assert await dicts.dicts.count("di-1", 10_000) == 2_000
    assert await dicts.dicts.count("di-1", 1_500) == 1_500
    assert await dicts.dicts.count("di-2", 10) == 0


async def test_a_request_that_was_for_something_else_takes_nothing_out(dicts: Store) -> None:
    await dicts.dicts.clear("di-1", "rq-1", 1.0)
    await dicts.dicts.put(write(b"k", b"v"))

    with pytest.raises(PlatformError, match="was for something else") as refused:
        await dicts.dicts.pop(taking(b"k", "rq-1"))

    assert refused.value.code == CONFLICT
    assert await value_of(dicts, b"k") == b"v"


async def test_what_is_taken_out_is_gone_and_told_again_to_who_took_it(dicts: Store) -> None:
    await dicts.dicts.put(write(b"k", b"v", blob=""))

    taken = await dicts.dicts.pop(taking(b"k", "rq-1"))
    assert taken is not None
    assert taken.value == b"v"
    assert await value_of(dicts, b"k") is None

    await dicts.dicts.put(write(b"k", b"next"))
    again = await dicts.dicts.pop(taking(b"k", "rq-1"))
    assert again is not None
    assert again.value == b"v"
    assert await value_of(dicts, b"k") == b"next"


async def test_answers_are_forgotten_when_they_have_come_or_are_old(dicts: Store) -> None:
    for number in (1, 2, 3):
        await dicts.dicts.put(write(b"k", b"%d" % number))
        await dicts.dicts.pop(taking(b"k", f"rq-{number}", *(["rq-1"] if number == 2 else []), at=float(number)))
    await dicts.dicts.forget_answers(3.0)

    assert [await dicts.dicts.pop(taking(b"k", f"rq-{number}")) is None for number in (1, 2, 3)] == [True, True, False]


async def test_nothing_is_taken_where_nothing_is(dicts: Store) -> None:
    assert await dicts.dicts.pop(taking(b"k", "rq-1")) is None
    await dicts.dicts.put(write(b"k", b"v"))

    assert await dicts.dicts.pop(taking(b"k", "rq-1")) is not None


async def test_clearing_takes_all_out_once(dicts: Store) -> None:
    await dicts.dicts.put(write(b"k", b"v"))
    await dicts.dicts.put(write(b"k", b"v", dict_id="di-2"))

    await dicts.dicts.clear("di-1", "rq-clear", 1.0)
    assert await value_of(dicts, b"k") is None
    await dicts.dicts.put(write(b"k", b"next"))
    await dicts.dicts.clear("di-1", "rq-clear", 2.0)

    assert await value_of(dicts, b"k") == b"next"
    assert await value_of(dicts, b"k", "di-2") == b"v"


async def test_what_was_cleared_out_goes_some_at_a_time_and_nothing_that_came_since(dicts: Store) -> None:
    for number in range(7):
        await dicts.dicts.put(write(b"%d" % number))
    await dicts.dicts.clear("di-1", "rq-clear", 1.0)
    await dicts.dicts.put(write(b"0", b"next"))
    await dicts.dicts.put(write(b"k", b"v", dict_id="di-2"))

    async def check() -> None:
        assert await dicts.dicts.count("di-1", 100) == 1
        assert [one.value for one in await dicts.dicts.page("di-1", b"", 9, 900, has_values=True)] == [b"next"]
        assert await value_of(dicts, b"1") is None
        assert await dicts.dicts.put(lock(b"1", "rq-lock"))
        assert await dicts.dicts.pop(taking(b"1", new_id("rq"))) is not None

    await check()
    while await dicts.assets.purge(2):
        await check()
    await dicts.dicts.clear("di-1", "rq-clear", 2.0)
    await check()
    await dicts.dicts.clear("di-1", "rq-again", 3.0)
    await dicts.dicts.put(write(b"0", b"next"))
    while await dicts.assets.purge(2):
        pass
    await check()
    assert await value_of(dicts, b"k", "di-2") == b"v"


async def test_a_dict_is_cleared_again_and_deleted_before_anything_is_purged(dicts: Store) -> None:
    for number in range(3):
        await dicts.dicts.put(write(b"k", b"v", blob=f"blob-{number}"))
        # Also under an id that was forgotten meanwhile.
        await dicts.dicts.clear("di-1", "rq-clear", 1.0)
        await dicts.dicts.forget_answers(5.0)
    await dicts.dicts.put(write(b"k", b"v", blob="last"))
    assert await dicts.dicts.count("di-1", 100) == 1
    await dicts.assets.delete(frozenset(["di-1"]))
    while await dicts.assets.purge(1):
        pass

    assert await dicts.dicts.count("di-1", 100) == 0
    assert not {"blob-0", "blob-1", "blob-2", "last"} & set(await dicts.live_blobs())


async def test_entries_of_a_dict_that_was_cleared_expire_and_are_used_as_others(dicts: Store) -> None:
    await dicts.dicts.put(write(b"old", at=1.0))
    await dicts.dicts.clear("di-1", "rq-clear", 1.0)
    for number in range(3):
        await dicts.dicts.put(write(b"%d" % number, at=2.0))
    await dicts.dicts.use({at_key(b"0"): 10.0})

    gone = await dicts.dicts.expire(4.0, 100)

    assert {at_key(b"1"), at_key(b"2")} <= set(gone)
    assert {one.dict_id for one in gone} == {"di-1"}
    assert await dicts.dicts.count("di-1", 100) == 1


async def test_entries_are_read_page_by_page_within_a_size(dicts: Store) -> None:
    keys = [b"%d" % number for number in range(10)]
    for key in keys:
        await dicts.dicts.put(write(key, b"x" * 100))

    first = await dicts.dicts.page("di-1", b"", 100, 250, has_values=True)
    second = await dicts.dicts.page("di-1", first[-1].key_hash, 2, 10_000, has_values=True)
    rest = await dicts.dicts.page("di-1", second[-1].key_hash, 100, 10_000, has_values=False)

    assert [len(first), len(second), len(rest)] == [3, 2, 5]
    found = [*first, *second, *rest]
    assert sorted(entry.key for entry in found) == keys
    assert [entry.key_hash for entry in found] == sorted(entry.key_hash for entry in found)
    assert {entry.value for entry in (*first, *second)} == {b"x" * 100}
    assert {entry.value for entry in rest} == {b""}
    assert await dicts.dicts.page("di-1", rest[-1].key_hash, 100, 10_000, has_values=True) == ()


async def test_entries_that_nobody_used_for_long_expire_some_at_a_time(dicts: Store) -> None:
    for number in range(6):
        await dicts.dicts.put(write(b"%d" % number, at=float(number)))
    await dicts.dicts.use({at_key(b"0"): 10.0, at_key(b"missing"): 10.0})

    gone = [*await dicts.dicts.expire(4.0, 2), *await dicts.dicts.expire(4.0, 100)]

    assert sorted(gone) == sorted(at_key(b"%d" % number) for number in (1, 2, 3))
    assert await dicts.dicts.expire(4.0, 100) == ()
    assert await dicts.dicts.count("di-1", 100) == 3


async def test_nothing_is_put_into_a_dict_that_is_deleted(dicts: Store) -> None:
    deleting = dicts.assets.delete(frozenset(["di-1"]))
    _, *refused = await asyncio.gather(
        deleting,
        dicts.dicts.put(write(b"k")),
        dicts.dicts.put(lock(b"k", "rq-1")),
        dicts.dicts.pop(taking(b"k", "rq-1")),
        dicts.dicts.clear("di-1", "rq-1", 1.0),
        return_exceptions=True,
    )
    assert await dicts.dicts.put(write(b"k", dict_id="di-2"))

    assert [one.code for one in refused if isinstance(one, PlatformError)] == ["not_found"] * 4
    assert await dicts.dicts.get(at_key(b"k")) is None


async def test_what_was_in_a_deleted_dict_is_purged(dicts: Store) -> None:
    for number in range(5):
        await dicts.dicts.put(write(b"%d" % number))
    await dicts.dicts.put(write(b"k", dict_id="di-2"))
    await dicts.dicts.pop(taking(b"0", "rq-1"))
    await dicts.assets.delete(frozenset(["di-1"]))

    while await dicts.assets.purge(2):
        pass

    assert await dicts.dicts.count("di-1", 10) == 0
    assert await dicts.dicts.count("di-2", 10) == 1


async def test_blobs_of_entries_and_of_what_was_taken_out_are_named(dicts: Store) -> None:
    await dicts.dicts.put(write(b"k", blob="aa"))
    await dicts.dicts.put(write(b"l", blob="bb"))
    await dicts.dicts.pop(taking(b"l", "rq-1"))

    assert await dicts.live_blobs() >= {"aa", "bb"}
    await dicts.dicts.put(write(b"k", b"small"))
    await dicts.dicts.forget_answers(100.0)
    assert not await dicts.live_blobs() & {"aa", "bb"}
