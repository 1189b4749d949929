"""One suite for every store: versions of deployed apps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from squall.protocol.app import DEPLOYED, STOPPED
from squall.protocol.deployment import RECREATE, Commit
from squall.protocol.errors import PlatformError
from squall.protocol.function import Definition, FunctionSpec
from squall.protocol.mount import MountFile, MountManifest, MountRef
from squall.server.model.store import Store, StoredApp
from squall.server.model.version import StoredVersion, needs_of

APP = StoredApp("ap-1", "greeter", DEPLOYED, 100.0)


def make_function(name: str, **fields: Any) -> FunctionSpec:
    return FunctionSpec(f"fu-{name}", "ap-1", name, Definition("file", "hello", name), "im-1", **fields)


def make_version(number: int, *functions: FunctionSpec, **fields: Any) -> StoredVersion:
    images, mounts, blobs = needs_of(functions)
    made = StoredVersion("ap-1", number, 100.0 + number, function_count=len(functions), image_ids=images)
    return replace(made, mount_ids=mounts, blob_sha256s=blobs, **fields)


async def publish(
    store: Store, number: int, *functions: FunctionSpec, gone: tuple[str, ...] = (), keep: int = 9
) -> None:
    await store.publish_version(APP, make_version(number, *functions), functions, frozenset(gone), keep)


async def numbers(store: Store) -> list[int]:
    return [one.version for one in await store.list_versions("ap-1")]


async def test_version_is_read_back_as_it_was_published(store: Store) -> None:
    functions = (make_function("a", env={"A": "1"}, version=1), make_function("b", version=1))
    version = make_version(
        1, *functions, deploy_id="once", strategy=RECREATE, tag="first", client_version="0.1.0", deployed_by="ada",
        commit=Commit("abc", "main", is_dirty=True), restored_version=0,
    )  # fmt: skip

    await store.publish_version(APP, version, functions, frozenset(), 9)

    assert await store.get_app("ap-1") == APP
    assert await store.list_functions("ap-1") == functions
    assert await store.list_versions("ap-1") == (version,)
    assert await store.list_version_functions("ap-1", 1) == functions


async def test_later_version_takes_the_place_of_the_functions_and_keeps_the_earlier_one(store: Store) -> None:
    one, two = make_function("a", env={"A": "1"}), make_function("b")
    await publish(store, 1, one, two)

    await publish(store, 2, replace(one, env={"A": "2"}), make_function("c"), gone=("fu-b",))

    assert [spec.name for spec in await store.list_functions("ap-1")] == ["a", "c"]
    assert (await store.get_function("fu-a")).env == {"A": "2"}
    assert await store.list_version_functions("ap-1", 1) == (one, two)
    assert await numbers(store) == [2, 1]


async def test_version_is_published_as_a_whole_or_not_at_all(store: Store) -> None:
    await publish(store, 1, make_function("a"))
    wrong = replace(make_function("a"), function_id="fu-other")

    with pytest.raises(PlatformError, match="another name") as refused:
        await publish(store, 2, make_function("b"), wrong)
    with pytest.raises(PlatformError, match="version 1 already") as repeated:
        await publish(store, 1, make_function("b"), gone=("fu-a",))

    assert (refused.value.code, repeated.value.code) == ("conflict", "conflict")
    assert [spec.name for spec in await store.list_functions("ap-1")] == ["a"]
    assert await numbers(store) == [1]


async def test_app_comes_with_its_first_version_or_not_at_all(store: Store) -> None:
    wrong = replace(make_function("a"), app_id="ap-none")

    with pytest.raises(PlatformError, match="ap-none"):
        await publish(store, 1, wrong)

    with pytest.raises(PlatformError, match="ap-1"):
        await store.get_app("ap-1")
    assert await numbers(store) == []


async def test_old_versions_are_forgotten_but_those_that_functions_are_held_to(store: Store) -> None:
    await publish(store, 1, make_function("a"))
    held = replace(make_function("held"), version=1, variant_of="fu-a", is_pinned=True)
    await store.put_functions((held,))
    for number in range(2, 7):
        await publish(store, number, make_function("a"), keep=2)

    assert await numbers(store) == [6, 5, 1]
    with pytest.raises(PlatformError, match="version 4") as caught:
        await store.list_version_functions("ap-1", 4)
    assert caught.value.code == "not_found"
    assert await store.list_version_functions("ap-1", 1) == (make_function("a"),)


async def test_what_kept_versions_name_stays_until_their_app_stops(store: Store) -> None:
    sha256 = "ab" * 32
    manifest = MountManifest((MountFile("a.py", "cd" * 32, 3),))
    mount_id = await store.put_mount(manifest, 1.0)
    old = replace(
        make_function("a", mounts=(MountRef(mount_id, "/root"),)),
        definition=Definition("serialized", blob_sha256=sha256),
    )
    await publish(store, 1, old)
    await publish(store, 2, make_function("a"))

    assert await store.prune_mounts(10.0) == 0
    assert sha256 in await store.live_blobs()

    await store.set_app_state("ap-1", STOPPED)
    assert await store.prune_mounts(10.0) == 1
    assert sha256 not in await store.live_blobs()


async def test_what_is_deployed_is_found_before_a_newer_run(store: Store) -> None:
    await publish(store, 1, make_function("a"))
    await store.put_app(StoredApp("ap-2", "greeter", created_at=900.0))

    assert await store.find_app("greeter") == APP


async def test_versions_of_an_app_that_has_stopped_are_listed_and_no_more(store: Store) -> None:
    await publish(store, 1, make_function("a"))
    await publish(store, 2, make_function("a"))

    await store.set_app_state("ap-1", STOPPED)

    assert await numbers(store) == [2, 1]
    with pytest.raises(PlatformError, match="version 2") as caught:
        await store.list_version_functions("ap-1", 2)
    assert caught.value.code == "not_found"


@pytest.mark.long
async def test_ten_thousand_functions_are_one_version_and_so_is_what_changes_of_them(store: Store) -> None:
    functions = tuple(make_function(f"f{number:05}") for number in range(10_000))
    await publish(store, 1, *functions)

    changed = replace(functions[7], env={"A": "2"}, version=2)
    await publish(store, 2, changed, *functions[8:], gone=tuple(one.function_id for one in functions[:7]))

    assert await store.list_version_functions("ap-1", 1) == functions
    assert sorted(await store.list_functions("ap-1"), key=lambda one: one.name) == [changed, *functions[8:]]
