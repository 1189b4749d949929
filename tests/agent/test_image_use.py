"""An agent removes no layer that its containers or builds stand on, also those of the agent before it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from squall.agent.image.block.stored import StoredImages
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.store import Layer, LayerStore
from squall.agent.image.making import Secrets
from squall.agent.image.progress import BuiltImage
from squall.protocol.empty import Empty
from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.protocol.image import BuildEvent, ImageConfig, ImageSpec, image_id
from squall.protocol.image_catalog import NodeGc, NodeImageDelete, NodeImageGc
from squall.protocol.image_store import DAY_S, NodeImagesUsed, NodeStoreGc, StoreGcEvent
from tests.agent.image.block.stores import store_in
from tests.agent.image.layer.test_store import KEY
from tests.agent.parts import BuiltImages, until
from tests.agent.world import SPEC, World

pytestmark = pytest.mark.long


class StoredLayers(BuiltImages):
    """Images of one layer of the node's store, which is made again when it is missing."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.store = LayerStore(data_dir)
        self.python_path = "/usr/bin/python3"
        self.make()

    def make(self) -> Layer:
        with self.store.scratch() as scratch:
            (scratch.path / "fs/usr/bin").mkdir(parents=True)
            return self.store.commit(scratch, scratch.path / "fs", KEY, {}, replaces=False)

    async def build(
        self, spec: ImageSpec, on_event: Callable[[BuildEvent], None], secrets: Secrets | None = None, run_id: str = ""
    ) -> BuiltImage:
        self.make()
        found = self.find(spec)
        assert found is not None
        return found

    def find(self, spec: ImageSpec) -> BuiltImage | None:
        layer = self.store.find(KEY)
        if layer is None:
            return None
        config = ImageConfig(python_path=self.python_path, python_version="3.11.2", layers=(layer.layer_id,))
        return BuiltImage(image_id(spec), (layer.path,), config)


@pytest.fixture
async def world(make_data_dir: Callable[[], Path]) -> AsyncIterator[World]:
    data_dir = make_data_dir()
    made = World(data_dir, data_dir)
    made.images = StoredLayers(data_dir)
    made.now = time.time() + 3600.0
    yield made
    await made.machine.close()


async def collect(world: World, **needed: tuple[str, ...]) -> NodeGc:
    request = NodeImageGc(0.0, needed={image_id(SPEC): users for users in needed.values()})
    return await world.server.peer.request("NodeImageGc", request, NodeGc)


async def collect_idle(world: World, **needed: tuple[str, ...]) -> NodeGc:
    """Once what compiles the library for the image's Python has let go."""
    for _ in range(1_000):
        done = await collect(world, **needed)
        if not any(user.startswith("first look") for use in done.layers for user in use.users):
            return done
        await asyncio.sleep(0.02)
    raise AssertionError("the first look at the image does not end")


async def test_layers_stay_while_a_container_runs_and_go_after_it(world: World) -> None:
    async with world.running():
        await world.build()
        started = await world.start()
        kept = await collect_idle(world)
        await world.end(started.container_id)
        freed = await collect_idle(world)

        assert kept.freed_bytes == 0
        assert kept.layers[0].users == (f"container {started.container_id}",)
        assert freed.layers[0].is_removed
        assert freed.gone_image_ids == (image_id(SPEC),)
        with pytest.raises(PlatformError, match="is not on this node; build it") as refused:
            await world.start()
        assert refused.value.code == NOT_FOUND
        await until(lambda: not world.left())  # what is removed goes behind
        await world.build()
        await world.end((await world.start()).container_id)


async def test_image_is_removed_by_its_id_when_its_container_has_ended(world: World) -> None:
    async def delete(*, is_dry_run: bool) -> NodeGc:
        request = NodeImageDelete((image_id(SPEC),), is_dry_run)
        return await world.server.peer.request("NodeImageDelete", request, NodeGc)

    async with world.running():
        await world.build()
        started = await world.start()
        await collect_idle(world)
        kept = await delete(is_dry_run=False)
        await world.end(started.container_id)
        dry = await delete(is_dry_run=True)
        is_there = LayerStore(world.data_dir).find(KEY) is not None
        gone = await delete(is_dry_run=False)

        assert (kept.gone_image_ids, kept.freed_bytes) == ((), 0)
        assert kept.layers[0].users == (f"container {started.container_id}",)
        assert is_there
        assert dry.gone_image_ids == gone.gone_image_ids == (image_id(SPEC),)
        assert gone.freed_bytes == kept.layers[0].size_bytes
        with pytest.raises(PlatformError, match="is not on this node; build it"):
            await world.start()
        await world.build()
        await world.end((await world.start()).container_id)


async def test_layers_of_containers_of_an_earlier_agent_stay_though_the_image_was_built_anew(world: World) -> None:
    async with world.running():
        await world.build()
        started = await world.start()
        old = LayerStore(world.data_dir).find(KEY)
        assert old is not None
        with LayerStore(world.data_dir).scratch() as scratch:
            (scratch.path / "fs").mkdir()
            LayerStore(world.data_dir).commit(scratch, scratch.path / "fs", KEY, {}, replaces=True)

    async with world.running():
        done = await collect(world)

        (kept,) = [use for use in done.layers if not use.is_removed]
        assert (kept.layer_id, kept.users) == (old.layer_id, (f"container {started.container_id}",))
        await world.end(started.container_id)


async def test_what_the_server_says_is_needed_stays(world: World) -> None:
    async with world.running():
        await world.build()
        done = await collect(world, any=("name web:latest",))

        assert done.freed_bytes == 0
        assert "name web:latest" in done.layers[0].users


async def test_image_lost_between_finding_and_holding_it_starts_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running():
        await world.build()
        open_used = LayerStore.open_used

        def lose(store: LayerStore, layer_id: str) -> int | None:
            monkeypatch.setattr(LayerStore, "open_used", open_used)
            assert store.remove(layer_id)
            return open_used(store, layer_id)

        await collect_idle(world, any=("name",))
        monkeypatch.setattr(LayerStore, "open_used", lose)

        with pytest.raises(PlatformError, match="is not on this node; build it"):
            await world.start()

        await until(lambda: not world.left())  # what is removed goes behind
        assert os.listdir(world.data_dir / "layers/.scratch") == []


async def test_image_without_a_python_is_told_and_starts_nothing(world: World) -> None:
    assert isinstance(world.images, StoredLayers)
    world.images.python_path = ""
    async with world.running():
        await world.build()

        with pytest.raises(PlatformError, match=r"has no Python on its PATH; begin with Image\.debian_slim"):
            await world.start()

        await until(lambda: not world.left())  # what is removed goes behind


async def test_node_passes_on_what_is_asked_of_its_store(world: World) -> None:
    async with world.running():
        await world.server.peer.request("NodeImagesUsed", NodeImagesUsed((image_id(SPEC),)), Empty)
        with pytest.raises(PlatformError, match="this node has no store of layers; set SQUALL_LAYER_URL") as refused:
            async for _ in world.server.peer.stream("NodeStoreGc", NodeStoreGc(8 * DAY_S)).items(StoreGcEvent):
                pass

    assert refused.value.code == NOT_FOUND


async def test_progress_in_the_store_comes_before_its_end(world: World, tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    world.stored = StoredImages(store, LayerHolds(LayerStore(world.data_dir, is_packed=True)), world.data_dir)
    async with world.stored, world.running():
        stream = world.server.peer.stream("NodeStoreGc", NodeStoreGc(8 * DAY_S))
        events = [event async for event, _ in stream.items(StoreGcEvent)]

    assert [event.kind for event in events][-2:] == ["line", "done"]
    assert events[0].text == f"looking at the images of {store.name}"
    assert events[-1].store == store.name
