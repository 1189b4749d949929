"""One suite for every store: versions of volumes, and what they share."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from squall.protocol.asset import VOLUME
from squall.protocol.errors import PlatformError
from squall.protocol.volume import VolumeRetention
from squall.server.model.asset import StoredAsset
from squall.server.model.store import Store
from squall.server.model.volume import MemoryNodes, NewNode, Nodes, StoredVolumeVersion


async def make_volume(store: Store, volume_id: str = "vo-1") -> None:
    await store.assets.put(StoredAsset(volume_id, VOLUME, volume_id))


def node_of(data: bytes, *blocks: str) -> tuple[str, dict[str, NewNode]]:
    name = MemoryNodes().put(data)
    return name, {name: NewNode(data, frozenset(blocks))}


def version(number: int, root: str = "", volume_id: str = "vo-1", at: float = 0.0) -> StoredVolumeVersion:
    return StoredVolumeVersion(
        volume_id, number, root, f"rq-{volume_id}-{number}", at or float(number), "put", "ann", 3, 9
    )


async def failure_code(awaitable: object) -> str:
    with pytest.raises(PlatformError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.code


async def test_a_volume_begins_empty_at_number_zero(store: Store) -> None:
    await make_volume(store)

    assert await store.volumes.head("vo-1") == StoredVolumeVersion("vo-1")
    assert await store.volumes.get("vo-1", 0) is None
    assert await store.volumes.history("vo-1", 10) == ()


async def test_versions_follow_each_other_and_are_found_by_number_time_and_commit(store: Store) -> None:
    await make_volume(store)
    made = [version(number) for number in (1, 2, 3)]
    for one in made:
        assert await store.volumes.add(one, {}) == one

    assert await store.volumes.head("vo-1") == made[2]
    assert await store.volumes.get("vo-1", 2) == made[1]
    assert await store.volumes.at("vo-1", 2.5) == made[1]
    assert await store.volumes.at("vo-1", 0.5) is None
    assert await store.volumes.committed("vo-1", "rq-vo-1-1") == made[0]
    assert await store.volumes.committed("vo-1", "rq-other") is None
    assert await store.volumes.history("vo-1", 2) == (made[2], made[1])
    assert await store.volumes.history("vo-1", 9, before=2) == (made[0],)


async def test_a_commit_that_is_repeated_makes_one_version(store: Store) -> None:
    await make_volume(store)
    first = await store.volumes.add(version(1), {})

    assert await store.volumes.add(version(1), {}) == first
    assert await store.volumes.history("vo-1", 9) == (first,)


async def test_of_two_next_versions_one_is_kept_and_the_other_a_conflict(store: Store) -> None:
    await make_volume(store)
    rivals = [StoredVolumeVersion("vo-1", 1, commit_id=f"rq-{number}") for number in range(8)]

    results = await asyncio.gather(*(store.volumes.add(one, {}) for one in rivals), return_exceptions=True)

    kept = [one for one in results if isinstance(one, StoredVolumeVersion)]
    codes = [one.code for one in results if isinstance(one, PlatformError)]
    assert (len(kept), codes) == (1, ["conflict"] * 7)
    assert await failure_code(store.volumes.add(version(3), {})) == "conflict"


async def test_nothing_is_added_to_a_deleted_volume(store: Store) -> None:
    await make_volume(store)
    await store.volumes.add(version(1), {})
    await store.assets.delete(frozenset(["vo-1"]))

    assert await failure_code(store.volumes.add(version(2), {})) == "not_found"


async def test_nodes_come_with_the_version_that_brings_them_and_with_no_other(store: Store) -> None:
    await make_volume(store)
    name, nodes = node_of(b"some directory", "a" * 64)
    other, others = node_of(b"another", "b" * 64)
    await store.volumes.add(version(1, name), nodes)

    assert await failure_code(store.volumes.add(replace(version(1, other), commit_id="rq-x"), others)) == "conflict"

    def look(found: Nodes) -> bytes:
        with pytest.raises(KeyError):
            found.get(other)
        return found.get(name)

    assert await store.volumes.look(look) == b"some directory"
    assert await store.live_blobs() == {"a" * 64}


async def test_a_version_whose_root_is_not_there_is_refused(store: Store) -> None:
    await make_volume(store)
    name, nodes = node_of(b"gone", "a" * 64)
    await store.volumes.add(version(1, name), nodes)
    await store.volumes.add(version(2), {})
    await store.volumes.forget("vo-1", frozenset([1]))
    await store.volumes.remove_nodes(frozenset([name]))

    assert await failure_code(store.volumes.add(version(3, name), {})) == "not_found"
    assert (await store.volumes.head("vo-1")).number == 2
    assert (await store.volumes.add(version(3, name), nodes)).root == name


async def test_a_node_of_many_versions_is_kept_once_and_its_blocks_are_named_until_the_last_goes(store: Store) -> None:
    for volume_id in ("vo-1", "vo-2"):
        await make_volume(store, volume_id)
    name, nodes = node_of(b"shared", "a" * 64, "b" * 64)
    other, others = node_of(b"other", "b" * 64)
    await store.volumes.add(version(1, name, "vo-1"), nodes)
    await store.volumes.add(version(1, name, "vo-2"), nodes)
    await store.volumes.add(version(2, other, "vo-1"), others)

    assert await store.volumes.nodes() == {name, other}
    assert await store.volumes.forget("vo-1", frozenset([1, 2])) == 1, "the newest stays"
    assert await store.volumes.roots() == {("vo-1", 2): other, ("vo-2", 1): name}
    assert await store.volumes.remove_nodes(frozenset([name])) == {"a" * 64}
    assert await store.live_blobs() == {"b" * 64}
    assert await store.volumes.remove_nodes(frozenset([other, name, "c" * 64])) == {"b" * 64}
    assert await store.volumes.nodes() == frozenset()


async def test_a_node_that_comes_again_is_as_it_was(store: Store) -> None:
    await make_volume(store)
    name, nodes = node_of(b"again", "a" * 64)
    await store.volumes.add(version(1, name), nodes)
    await store.volumes.add(version(2, name), nodes)

    assert await store.volumes.nodes() == {name}
    assert await store.live_blobs() == {"a" * 64}


async def test_versions_of_a_deleted_volume_are_purged(store: Store) -> None:
    await make_volume(store)
    name, nodes = node_of(b"gone")
    await store.volumes.add(version(1, name), nodes)
    await store.volumes.put_retention("vo-1", VolumeRetention(3, 1.0))
    await store.assets.delete(frozenset(["vo-1"]))
    while await store.assets.purge(100):
        pass

    assert await store.volumes.history("vo-1", 9) == ()
    assert await store.volumes.get_retention("vo-1") is None
    assert await store.volumes.roots() == {}


async def test_what_was_said_of_retention_is_kept(store: Store) -> None:
    await make_volume(store)
    assert await store.volumes.get_retention("vo-1") is None

    for retention in (VolumeRetention(3, 1.5), VolumeRetention(7, 2.0)):
        await store.volumes.put_retention("vo-1", retention)
        assert await store.volumes.get_retention("vo-1") == retention
