"""Which layers an image stands on: those it was built on, through forced builds, lost layers and restarts."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent.image.layer import store as layers
from squall.agent.image.layer.store import Layer
from squall.agent.image.progress import BuiltImage
from squall.protocol import image_steps
from squall.protocol.image import ImageSpec, ImageStep
from squall.runtime.spec import ContainerSpec
from tests.agent.image.shop import NOTHING, RUN, Shop, make_spec, open_shop
from tests.agent.parts import until

OTHER = image_steps.run_commands(("more",))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        yield opened


async def test_no_layer_is_laid_on_one_that_it_was_not_built_on(shop: Shop) -> None:
    first = await shop.build(RUN, OTHER)

    forced = await shop.build(replace(RUN, force_build=True))
    later = await shop.build(RUN, OTHER, image_steps.run_commands(("later",)))

    assert later.layers[:2] == forced.layers
    assert later.layers[2] != first.layers[2]
    assert len(shop.specs) == 5
    # Both lines of layers stay, and neither is built again for the other's sake.
    assert await shop.build(RUN, OTHER) == first
    assert await shop.build(RUN) == forced
    assert len((await shop.build(RUN, OTHER, image_steps.run_commands(("latest",)))).layers) == 4
    assert len(shop.specs) == 6


async def test_built_image_keeps_its_layers_when_one_of_its_steps_is_built_anew_for_another(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        first = await shop.build(RUN, OTHER)
        await shop.build(replace(RUN, force_build=True))

        assert shop.builder.find(make_spec(RUN, OTHER)) == first

    async with open_shop(tmp_path) as after:
        assert after.builder.find(make_spec(RUN, OTHER)) == first
        after.store.remove(first.config.layers[2])
        assert after.builder.find(make_spec(RUN, OTHER)) is None
        built = await after.build(RUN, OTHER)
        assert after.builder.find(make_spec(RUN, OTHER)) == built
        assert not set(built.layers[1:]) & set(first.layers)


async def test_what_stands_on_a_lost_layer_is_built_again_with_it(shop: Shop) -> None:
    first = await shop.build(RUN, OTHER)
    shop.store.remove(first.config.layers[1])

    found = shop.builder.find(make_spec(RUN, OTHER))
    built = await shop.build(RUN, OTHER)

    assert found is None
    assert len(shop.specs) == 4
    assert not set(built.config.layers[1:]) & set(first.config.layers), "no id stands for two contents"


@pytest.mark.long
async def test_files_are_taken_anew_from_an_image_that_was_built_anew(shop: Shop) -> None:
    async def keep_count(spec: ContainerSpec) -> int:
        upper = Path(spec.state_dir, "rw/upper")
        upper.mkdir(parents=True)
        (upper / "file").write_text(str(len(shop.specs)))
        return 0

    shop.step = keep_count
    source = await shop.keep(RUN)
    taken = image_steps.copy_from(source.image_id, ("/file",), "/taken")
    begins = image_steps.from_image(source.image_id)
    old = [await shop.build(taken), await build_on(shop, begins, OTHER)]

    anew = await shop.build(replace(RUN, force_build=True))
    new = [await shop.build(taken, image_steps.env({"A": "b"})), await build_on(shop, begins, OTHER, OTHER)]

    assert (Path(old[0].layers[1], "taken").read_text(), Path(new[0].layers[1], "taken").read_text()) == ("1", "3")
    assert new[1].layers[:2] == anew.layers
    assert new[1].layers[2] != old[1].layers[2]
    assert (await shop.build(taken)).layers == old[0].layers


async def build_on(shop: Shop, *steps: ImageStep) -> BuiltImage:
    return await asyncio.wait_for(shop.builder.build(ImageSpec(steps), lambda event: None), 20)


async def test_build_that_is_stopped_while_its_layer_is_written_out_leaves_a_whole_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, sync = threading.Event(), threading.Event(), layers._sync_file_system

    def wait(path: Path) -> None:
        begun.set()
        assert may_end.wait(20)
        sync(path)

    monkeypatch.setattr(layers, "_sync_file_system", wait)
    building = asyncio.ensure_future(shop.build(RUN))
    assert await asyncio.to_thread(begun.wait, 20)

    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    # Long enough for whoever would delete what is being written out.
    await asyncio.sleep(0.1)
    may_end.set()
    await until(lambda: shop.leftovers() == NOTHING)

    built = await shop.build(RUN)
    assert os.listdir(built.layers[1]) == ["file-1"]
    assert {layer.layer_id for layer in shop.store.list()} == set(built.config.layers)


async def test_builds_look_into_the_store_beside_the_event_loop(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    source = await shop.keep(RUN)
    threads: set[int] = set()
    find, look = shop.store.find, shop.store.look

    def find_noted(key: str, below: str = "") -> Layer | None:
        threads.add(threading.get_ident())
        return find(key, below)

    def look_noted(layer_id: str) -> Layer | None:
        threads.add(threading.get_ident())
        return look(layer_id)

    monkeypatch.setattr(shop.store, "find", find_noted)
    monkeypatch.setattr(shop.store, "look", look_noted)

    # A layer may have to be unpacked first, and that takes as long as it is large.
    await shop.build(RUN)
    await shop.build(image_steps.copy_from(source.image_id, ("/file-1",), "/x"), OTHER)

    assert threads
    assert threading.get_ident() not in threads
