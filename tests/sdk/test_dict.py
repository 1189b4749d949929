"""Dicts as programs use them, with a real server."""

from __future__ import annotations

import asyncio
import enum
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import squall
from squall.exception import (
    AlreadyExistsError,
    AsyncUsageWarning,
    DeserializationError,
    InvalidError,
    NotFoundError,
    RequestSizeError,
    SerializationError,
)
from squall.protocol.dict import UPDATE_BYTES
from squall.sdk import dict as dict_module
from squall.sdk._plain_key import encode_key
from squall.types import DictInfo
from tests.sdk.real_server import RealServer


@pytest.fixture
def cache(real_server: RealServer) -> squall.Dict:
    return squall.Dict.from_name("cache", create_if_missing=True)


class Colour(enum.Enum):
    RED = 1


KEYS = ["k", "", b"k", 1, 1.5, True, None, ("a", 1), (), (("x", None), b"y"), "ä\ud800", 2**80, Colour.RED, [1, 2]]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_an_entry_is_found_under_a_key_of_any_kind(cache: squall.Dict, key: Any) -> None:
    assert cache.get(key) is None
    assert cache.put(key, {"a": [1, (2, None)]}) is True

    assert cache.get(key) == {"a": [1, (2, None)]}
    assert cache.contains(key)
    assert list(cache.keys()) == [key]


def test_a_dict_is_used_by_operators(cache: squall.Dict) -> None:
    cache["a"] = 1
    cache["b"] = None

    assert (cache["a"], cache["b"]) == (1, None)
    assert "a" in cache
    assert "c" not in cache
    del cache["a"]
    with pytest.raises(KeyError, match="a"):
        cache["a"]
    with pytest.raises(KeyError, match="a"):
        del cache["a"]
    with pytest.raises(TypeError, match="keys"):
        iter(cache)
    assert not hasattr(cache, "__len__")


def test_an_entry_is_taken_out_with_its_value(cache: squall.Dict) -> None:
    cache["a"] = 1

    assert cache.pop("a") == 1
    assert cache.pop("a", None) is None
    with pytest.raises(KeyError, match="a"):
        cache.pop("a")
    assert cache.get("a", "none") == "none"


def test_a_lock_is_got_by_one(cache: squall.Dict) -> None:
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda number: cache.put("lock", number, skip_if_exists=True), range(40)))

    assert sum(got) == 1
    assert cache["lock"] == got.index(True)


def test_many_entries_are_set_counted_read_and_cleared(cache: squall.Dict) -> None:
    cache.update({number: str(number) for number in range(3_000)}, name="value")
    cache.update()

    assert cache.len() == 3_001
    assert set(cache.keys()) == {*range(3_000), "name"}
    assert dict(cache.items())[7] == "7"
    assert sorted(cache.values()) == sorted([*map(str, range(3_000)), "value"])
    cache.clear()
    assert (cache.len(), list(cache.items())) == (0, [])


def test_all_of_it_can_be_awaited(real_server: RealServer) -> None:
    async def use() -> None:
        async with squall.Dict.ephemeral() as cache:
            await cache.put.aio("a", 1)
            await cache.update.aio({"b": 2})
            assert await cache.get.aio("a") == 1
            assert await cache.contains.aio("b")
            assert await cache.pop.aio("a") == 1
            assert await cache.len.aio() == 1
            assert [pair async for pair in cache.items.aio()] == [("b", 2)]
            assert [key async for key in cache.keys.aio()] == ["b"]
            assert [value async for value in cache.values.aio()] == [2]
            await cache.clear.aio()
            assert (await cache.info.aio()).name is None
            with pytest.warns(AsyncUsageWarning):
                cache["c"] = 3

    asyncio.run(use())


def test_large_values_come_back_whole(cache: squall.Dict) -> None:
    for size in (2**20 - 100, 2**20 + 1, 5 * 2**20):
        cache[size] = os.urandom(16) + b"x" * size

    assert all(len(cache[size]) == size + 16 for size in cache.keys())  # noqa: SIM118 - not a dictionary
    assert sorted(map(len, cache.values())) == [2**20 - 84, 2**20 + 17, 5 * 2**20 + 16]
    assert len(cache.pop(5 * 2**20)) == 5 * 2**20 + 16


def test_what_is_too_large_is_refused_with_words(cache: squall.Dict, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestSizeError, match=r"cannot be a key of dict cache: it has 65,\d+ bytes, and 65,536"):
        cache["x" * 2**16] = 1
    with pytest.raises(RequestSizeError, match="these are 10,001 entries at once, and 10,000"):
        cache.update(dict.fromkeys(range(10001)))
    monkeypatch.setattr(dict_module, "VALUE_BYTES_MAX", 3 * 2**20)
    with pytest.raises(RequestSizeError, match=r"cannot put 'k' into dict cache: the value has 3.0 MiB, and 3"):
        cache["k"] = b"x" * (3 * 2**20)
    assert cache.len() == 0


def test_what_cannot_be_pickled_is_named(cache: squall.Dict) -> None:
    with pytest.raises(SerializationError, match="cannot put 'k' into dict cache: cannot pickle lock"):
        cache["k"] = threading.Lock()
    with pytest.raises(SerializationError, match="cannot be a key of dict cache"):
        cache.get(threading.Lock())


class Vanishing:
    """A class that whoever reads does not have."""


def test_a_value_whose_class_is_not_here_is_named_and_leaves_the_others(
    cache: squall.Dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache["k"] = Vanishing()
    cache["l"] = 1
    monkeypatch.delattr(sys.modules[__name__], "Vanishing")

    with pytest.raises(DeserializationError, match="dict cache, key 'k': cannot read a value"):
        cache.get("k")
    assert cache["l"] == 1
    assert set(cache.keys()) == {"k", "l"}
    with pytest.raises(DeserializationError, match="dict cache, key 'k': cannot read a value"):
        cache.pop("k")
    assert set(cache.keys()) == {"k", "l"}
    del cache["k"], cache["l"]
    assert list(cache.keys()) == []


def test_what_is_popped_for_somebody_who_is_interrupted_is_put_back(
    cache: squall.Dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache["k"] = large = os.urandom(2 * 2**20)

    def interrupt(client: object, sha256: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("squall.sdk._blob.get", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cache.pop("k")

    # Whoever is interrupted waits for nothing.
    deadline = time.monotonic() + 10
    while (found := cache.get("k")) is None:
        assert time.monotonic() < deadline, "it is lost"
    assert found == large


def test_a_newer_value_stays_where_what_was_popped_is_put_back(
    cache: squall.Dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache["k"] = Vanishing()
    put, others = cache._give_back, squall.Dict.from_name("cache")

    def late(entry: Any) -> Any:
        others["k"] = "newer"
        return put(entry)

    monkeypatch.setattr(cache, "_give_back", late)
    with monkeypatch.context() as context:
        context.delattr(sys.modules[__name__], "Vanishing")
        with pytest.raises(DeserializationError):
            cache.pop("k")

    assert cache["k"] == "newer"


def test_plain_keys_are_the_same_bytes_however_they_came_about() -> None:
    text = "".join(["a", "b"])

    assert encode_key((text, text)) == encode_key(("ab", "".join(["a", "b"])))
    # As it is in databases: every version of Python makes the same.
    assert encode_key("k").hex() == "80049504000000000000008c016b2e"
    assert encode_key(("k", 1, None, b"", 1.5, True)).hex() == (
        "8004951500000000000000288c016b4b014e4300473ff800000000000088742e"
    )
    assert encode_key(1) != encode_key(True) != encode_key(1.0)
    assert pickle.loads(encode_key(("k", 1, None, b"", 1.5, True))) == ("k", 1, None, b"", 1.5, True)


def test_a_name_that_is_not_there_is_told_at_the_first_use(real_server: RealServer) -> None:
    missing = squall.Dict.from_name("nothing")

    with pytest.raises(NotFoundError, match="there is no dict 'nothing'"):
        missing.get("k")
    with pytest.raises(InvalidError, match="cannot be made directly"):
        squall.Dict()


def test_dicts_are_made_listed_and_deleted_by_name(real_server: RealServer) -> None:
    squall.Dict.objects.create("one")
    squall.Dict.objects.create("one", allow_existing=True)
    squall.Dict.objects.create("two")

    with pytest.raises(AlreadyExistsError):
        squall.Dict.objects.create("one")
    assert [one.name for one in squall.Dict.objects.list()] == ["two", "one"]
    assert [one.name for one in squall.Dict.objects.list(max_objects=1)] == ["two"]
    squall.Dict.objects.delete("one")
    squall.Dict.objects.delete("one", allow_missing=True)
    with pytest.raises(NotFoundError):
        squall.Dict.objects.delete("one")
    assert [one.name for one in squall.Dict.objects.list()] == ["two"]


def test_a_dict_tells_about_itself_and_is_found_by_its_id(cache: squall.Dict) -> None:
    info = cache.info()

    assert isinstance(info, DictInfo)
    assert (info.name, bool(info.created_by), info.created_at.tzinfo is not None) == ("cache", True, True)
    cache["k"] = 1
    assert squall.Dict.from_id(cache.object_id)["k"] == 1
    assert pickle.loads(pickle.dumps(cache))["k"] == 1


def test_an_ephemeral_dict_is_gone_after_its_block(real_server: RealServer) -> None:
    with squall.Dict.ephemeral() as cache:
        cache["k"] = 1
        handle = pickle.loads(pickle.dumps(cache))
        assert handle["k"] == 1

    with pytest.raises(NotFoundError, match="it was deleted"):
        handle.get("k")
    assert squall.Dict.objects.list() == []


@pytest.mark.long
def test_nothing_is_lost_or_done_twice_over_restarts_of_the_server(real_server: RealServer, cache: squall.Dict) -> None:
    stop = threading.Event()

    def use(user: int) -> list[int]:
        taken = []
        for number in range(10_000):
            key = (user, number)
            assert cache.put(key, number, skip_if_exists=True)
            assert cache.get(key) == number
            taken.append(cache.pop(key))
            if stop.is_set():
                return taken
        return taken

    with ThreadPoolExecutor(4) as threads:
        users = [threads.submit(use, number) for number in range(4)]
        for turn in range(4):
            for _ in range(50):
                assert cache.get("nothing") is None
            (real_server.restart if turn % 2 else real_server.break_connections)()
        stop.set()
        results = [user.result() for user in users]

    assert all(taken == list(range(len(taken))) for taken in results)
    assert cache.len() == 0


def test_a_program_of_another_process_sees_it_at_once(cache: squall.Dict) -> None:
    cache["k", 1] = {"from": "here"}
    program = "import squall; d = squall.Dict.from_name('cache'); print(d['k', 1]); d['there'] = (1, 2)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.stderr) == ("{'from': 'here'}\n", "")
    assert cache["there"] == (1, 2)


def test_large_updates_that_cross_are_one_after_the_other(real_server: RealServer) -> None:
    mine = squall.Dict.from_name("crossing", create_if_missing=True)
    count, piece = 17, 1_000_000 - 2_000
    assert (count - 1) * piece < UPDATE_BYTES < count * piece, "as much as one request takes"
    keys = [f"key-{number}" for number in range(count - 1)]

    def update(text: str) -> None:
        for _ in range(3):
            mine.update(dict.fromkeys(keys, text * piece))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(update, "ab"))

    assert len({mine[key] for key in keys}) == 1, "of an update that one request takes, all is there or nothing"
