"""One suite for every store: variants of functions."""

from __future__ import annotations

from dataclasses import replace

from squall.protocol.app import DEPLOYED, STOPPED
from squall.protocol.call import SPAWN, SUCCEEDED
from squall.protocol.function import Batching, Definition, FunctionOptions, FunctionSpec, Resources, Scaling
from squall.server.model.store import Store, StoredApp, StoredCall, StoredInput, StoredOutput
from squall.server.model.variant import StoredVariant
from squall.server.model.version import StoredVersion

ONE = StoredVariant("fu-one", "fu-base", "ap-1", '{"size":1}', used_at=100.0)
TWO = StoredVariant(
    "fu-two", "fu-base", "ap-1", "", FunctionOptions({"A": "1"}, Resources(500), batching=Batching(3, 10)), 2, 200.0
)


async def kept(store: Store) -> set[str]:
    return {one.function_id for one in await store.get_variants(frozenset({"fu-one", "fu-two"}))}


async def test_variants_are_read_back_as_they_were_put(store: Store) -> None:
    await store.put_variant(ONE)
    await store.put_variant(TWO)

    found = await store.get_variants(frozenset({"fu-one", "fu-two", "fu-three"}))

    assert sorted(found, key=lambda one: one.used_at) == [ONE, TWO]


async def test_putting_again_notes_that_it_is_used(store: Store) -> None:
    await store.put_variant(ONE)

    await store.put_variant(replace(ONE, used_at=300.0))

    assert await store.get_variants(frozenset({"fu-one"})) == (replace(ONE, used_at=300.0),)


async def test_unused_variants_are_forgotten_and_used_ones_are_not(store: Store) -> None:
    await store.put_variant(ONE)
    await store.put_variant(TWO)
    await store.put_app(StoredApp("ap-1", "greeter", DEPLOYED, 100.0))
    for one in (ONE, TWO):
        await store.set_scaling("ap-1", one.function_id, Scaling(min_containers=2))
    await store.use_variants(frozenset({"fu-one", "fu-three"}), 500.0)

    assert await store.forget_variants(400.0) == 1

    assert await kept(store) == {"fu-one"}
    assert set(await store.list_scaling("ap-1")) == {"fu-one"}


async def test_a_variant_with_unfinished_calls_is_never_forgotten(store: Store) -> None:
    await store.put_variant(ONE)
    await store.put_call(StoredCall("fc-1", "fu-one", "ap-1", SPAWN, 50.0), (StoredInput("fc-1", 0, b"x"),))

    assert await store.forget_variants(400.0) == 0
    await store.put_outputs((StoredOutput("fc-1", 0, SUCCEEDED, b"y", finished_at=60.0),))

    assert await store.forget_variants(400.0) == 1
    assert await kept(store) == set()


async def test_many_are_forgotten_at_once(store: Store) -> None:
    for number in range(1_100):
        await store.put_variant(replace(ONE, function_id=f"fu-{number}"))

    assert await store.forget_variants(400.0) == 1_100


async def test_a_version_that_a_variant_is_held_to_is_kept(store: Store) -> None:
    app = StoredApp("ap-1", "greeter", DEPLOYED, 100.0)
    function = FunctionSpec("fu-base", "ap-1", "f", Definition("file", "hello", "f"), "im-1")
    await store.publish_version(app, StoredVersion("ap-1", 1, 1.0), (function,), frozenset(), 1)
    await store.publish_version(app, StoredVersion("ap-1", 2, 2.0), (function,), frozenset(), 1)
    await store.put_variant(TWO)

    for number in (3, 4):
        await store.publish_version(app, StoredVersion("ap-1", number, 3.0), (function,), frozenset(), 1)

    assert [one.version for one in await store.list_versions("ap-1")] == [4, 2]


async def test_variants_go_with_a_child_that_is_forgotten(store: Store) -> None:
    await store.put_app(StoredApp("ap-0", "root", DEPLOYED, 1.0))
    await store.put_app(StoredApp("ap-1", "child", STOPPED, 2.0, 3.0, ancestors=("ap-0",)))
    await store.put_variant(ONE)

    await store.forget_children("ap-0", 0)

    assert await kept(store) == set()


async def test_variants_of_an_app_are_counted_with_those_of_its_children(store: Store) -> None:
    await store.put_app(StoredApp("ap-0", "root", DEPLOYED, 1.0))
    await store.put_app(StoredApp("ap-1", "child", STOPPED, 2.0, 3.0, ancestors=("ap-0",)))
    for function_id, app_id in (("fu-1", "ap-0"), ("fu-2", "ap-1"), ("fu-3", "ap-2")):
        await store.put_variant(replace(ONE, function_id=function_id, app_id=app_id))

    assert [await store.count_variants_below(app_id) for app_id in ("ap-0", "ap-2", "ap-3")] == [2, 1, 0]
