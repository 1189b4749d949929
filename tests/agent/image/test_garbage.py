"""Which layers of a node go, and that no build loses one it has found."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from squall.agent.image import garbage
from squall.agent.image.block.partial import PartialLayer, remove_left
from squall.agent.image.block.put import Putter
from squall.agent.image.builder import ImageBuilder
from squall.agent.image.layer import chain
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.lock import try_lock
from squall.agent.image.layer.store import Layer, LayerStore
from squall.agent.image.making import BuildFailed
from squall.agent.image.progress import BuiltImage
from squall.agent.known_images import KnownImages
from squall.protocol import image_steps
from squall.protocol.image import BuildEvent, ImageConfig, ImageSpec, ImageStep, image_id
from squall.protocol.image_catalog import NodeGc, NodeImageGc
from squall.runtime.spec import ContainerSpec
from tests.agent.image.block.stores import make_layer, store_in
from tests.agent.image.shop import RUN, Shop, make_spec, open_shop

pytestmark = pytest.mark.long

OTHER = image_steps.run_commands(("make another",))
DAY_S = 24 * 3600.0


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        yield opened


def collect(
    shop: Shop, *built: BuiltImage, needed: dict[str, tuple[str, ...]] | None = None, holds: LayerHolds | None = None,
    older_than_s: float = 0.0, is_dry_run: bool = False, in_s: float = 60.0,
) -> NodeGc:  # fmt: skip
    """As if some time after everything that was done."""
    images = garbage.Images({one.image_id: one for one in built})
    request = NodeImageGc(older_than_s, is_dry_run, needed or {})
    return garbage.collect(holds or LayerHolds(shop.store), "nd-00000001", images, request, time.time() + in_s)


def names(layers: tuple[Layer, ...]) -> set[str]:
    return {layer.layer_id for layer in layers}


async def test_needed_image_stays_whole_and_the_rest_goes(shop: Shop) -> None:
    kept, unwanted = await shop.build(RUN, OTHER), await shop.build(OTHER)

    done = collect(shop, kept, unwanted, needed={kept.image_id: ("app hello (ap-1)", "name web:latest")})

    assert names(shop.store.list()) == set(kept.config.layers)
    (gone,) = [use for use in done.layers if use.is_removed]
    assert gone.layer_id == unwanted.config.layers[-1]
    assert done.gone_image_ids == (unwanted.image_id,)
    assert done.freed_bytes == gone.size_bytes > 0
    assert {use.users for use in done.layers if not use.is_removed} == {("app hello (ap-1)", "name web:latest")}
    base = next(use for use in done.layers if use.layer_id == kept.config.layers[0])
    assert set(base.image_ids) == {kept.image_id, unwanted.image_id}
    assert shop.builder.find(make_spec(RUN, OTHER)) == kept
    assert shop.builder.find(make_spec(OTHER)) is None


async def test_needed_deep_image_keeps_what_it_is_made_of_and_what_it_stands_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "DEPTH_MAX", 3)
    monkeypatch.setattr(chain, "GROUP", 2)
    steps = [image_steps.run_commands((f"step {number}",)) for number in range(5)]
    deep = await shop.build(*steps)
    assert (len(deep.config.layers), len(deep.layers)) == (6, 4)

    done = collect(shop, deep, needed={deep.image_id: ("app hello (ap-1)",)})

    assert done.freed_bytes == 0
    assert shop.builder.find(make_spec(*steps)) == deep
    assert collect(shop, deep).gone_image_ids == (deep.image_id,)
    assert shop.store.list() == ()


async def test_what_was_used_lately_stays_unless_all_is_to_go(shop: Shop) -> None:
    built = await shop.build(RUN)

    lately = collect(shop, built, older_than_s=DAY_S, in_s=DAY_S - 60.0)
    after = collect(shop, built, older_than_s=DAY_S, in_s=DAY_S + 60.0)

    assert (lately.freed_bytes, lately.gone_image_ids) == (0, ())
    assert after.gone_image_ids == (built.image_id,)
    assert shop.store.list() == ()


async def test_dry_run_tells_and_removes_nothing(shop: Shop) -> None:
    built = await shop.build(RUN)

    dry = collect(shop, built, is_dry_run=True)
    is_whole = shop.builder.find(make_spec(RUN)) == built

    assert is_whole
    assert collect(shop, built) == dry
    assert dry.freed_bytes > 0


async def test_images_that_can_be_fetched_again_are_not_gone(shop: Shop) -> None:
    built = await shop.build(RUN)
    images = garbage.Images({built.image_id: built}, frozenset({built.image_id}))

    done = garbage.collect(LayerHolds(shop.store), "nd-00000001", images, NodeImageGc(0.0), time.time() + 60.0)

    assert done.freed_bytes > 0
    assert done.gone_image_ids == ()


async def test_image_that_another_begins_with_stays_findable(shop: Shop) -> None:
    known = KnownImages(shop.data_dir, shop.builder)
    known.prepare()
    below = await known.build(make_spec(RUN), lambda event: None)
    middle = await known.build(ImageSpec((image_steps.from_image(below.image_id), OTHER)), lambda event: None)
    above = await known.build(ImageSpec((image_steps.from_image(middle.image_id), RUN)), lambda event: None)
    whole = known.survey()

    # As if only something that the two below have of their own had gone.
    known.forget({below.image_id, middle.image_id})

    assert set(whole.whole) == {below.image_id, middle.image_id, above.image_id}
    assert known.find(above.image_id) == above
    known.forget({above.image_id, below.image_id, middle.image_id})
    assert known.survey().whole == {}


async def test_layers_that_a_build_has_found_stay_while_it_goes_on(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        holds: LayerHolds = shop.builder._holds
        await shop.build(RUN)
        is_running, may_end = asyncio.Event(), asyncio.Event()

        async def wait(spec: ContainerSpec) -> int:
            is_running.set()
            await may_end.wait()
            return await shop.write_a_file(spec)

        shop.step = wait
        building = asyncio.ensure_future(shop.build(RUN, OTHER))
        await is_running.wait()

        done = await asyncio.to_thread(collect, shop, holds=holds)
        assert done.freed_bytes == 0
        may_end.set()
        built = await building

        assert {use.users for use in done.layers} == {(f"build of {image_id(make_spec(RUN, OTHER))}",)}
        assert all(map(os.path.exists, built.layers))
        assert collect(shop, built, holds=holds).gone_image_ids == (built.image_id,)


async def test_layer_removed_between_finding_and_using_it_is_built_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await shop.build(RUN)
    find = shop.store.find
    lost = first.config.layers[1]

    def find_and_lose(key: str, below: str = "") -> Layer | None:
        found = find(key, below)
        if found is not None and found.layer_id == lost:
            monkeypatch.setattr(shop.store, "find", find)
            assert shop.store.remove(lost)
        return found

    monkeypatch.setattr(shop.store, "find", find_and_lose)
    events: list[BuildEvent] = []

    built = await shop.build(RUN, OTHER, events=events)

    assert [(event.kind, event.step) for event in events if event.kind in ("cached", "done")] == [
        ("cached", 1),
        ("done", 2),
        ("done", 3),
    ]
    assert all(map(os.path.exists, built.layers))


async def test_layer_of_a_built_image_removed_while_that_is_found_is_built_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await shop.build(RUN, OTHER)
    look = shop.store.look
    lost = first.config.layers[1]

    def look_and_lose(layer_id: str) -> Layer | None:
        found = look(layer_id)
        if layer_id == lost:
            shop.store.remove(lost)
        return found

    monkeypatch.setattr(shop.store, "look", look_and_lose)

    built = await shop.build(RUN, OTHER)

    assert len(shop.specs) == 4, "what stood on the lost layer does not stand on its successor"
    assert built.layers[0] == first.layers[0]
    assert all(map(os.path.exists, built.layers))


async def test_layer_removed_right_after_it_was_made_fails_the_build_and_is_never_half_used(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = shop.store.commit

    def commit_and_lose(*args: object, **named: object) -> Layer:
        made = commit(*args, **named)  # type: ignore[arg-type]
        assert shop.store.remove(made.layer_id)
        return made

    monkeypatch.setattr(shop.store, "commit", commit_and_lose)

    with pytest.raises(Exception, match="was removed while it was to be used; build again"):
        await shop.build(RUN)

    monkeypatch.undo()
    assert (await shop.build(RUN)).layers


def fetch_parts(tmp_path: Path, layers: LayerStore) -> PartialLayer:
    """The first parts of a layer, from a store that another node has put it into."""
    there = LayerStore(tmp_path / "there", is_packed=True)
    store = store_in(tmp_path / "store")
    Putter(store).put_image("im-" + "1" * 32, ImageConfig(), [make_layer(there)])
    (digest,) = store.get_image("im-" + "1" * 32).layers
    partial = PartialLayer(digest, store.get_layer(digest), store, layers)
    partial.ensure(0, 4)
    return partial


async def test_parts_of_a_layer_go_when_nobody_has_fetched_more_of_it_lately(shop: Shop, tmp_path: Path) -> None:
    partial = fetch_parts(tmp_path, shop.store)
    fetching = collect(shop)
    partial.close()

    lately = collect(shop, older_than_s=DAY_S, in_s=DAY_S - 60.0)
    dry = collect(shop, is_dry_run=True)
    is_there = (shop.store.incoming_dir / partial.layer_id).exists()
    after = collect(shop, older_than_s=DAY_S, in_s=DAY_S + 60.0)

    uses = [use for done in (fetching, lately, dry, after) for use in done.layers if use.layer_id == partial.layer_id]
    assert [use.is_removed for use in uses] == [False, False, True, True]
    assert [use.users for use in uses] == [("a fetch that is under way",), (), (), ()]
    assert is_there
    assert 2**20 <= uses[-1].size_bytes < 2**21
    assert after.freed_bytes >= uses[-1].size_bytes
    assert after.gone_image_ids == ()
    assert (os.listdir(shop.store.incoming_dir), os.listdir(shop.data_dir / "layers/.scratch")) == ([], [])


async def test_parts_that_are_removed_as_somebody_goes_on_with_them_are_fetched_again(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch_parts(tmp_path, shop.store)
    first.close()

    def removed_first(descriptor: int) -> bool:
        monkeypatch.setattr("squall.agent.image.block.partial.try_lock", try_lock)
        assert remove_left(shop.store, first.layer_id, time.time() + 60.0)
        return try_lock(descriptor)

    monkeypatch.setattr("squall.agent.image.block.partial.try_lock", removed_first)
    again = fetch_parts(tmp_path, shop.store)

    assert again.fetched_bytes == 2**20
    for run in again.runs():
        again.ensure(*run)
    assert shop.store.look(again.keep().layer_id)
    again.close()


async def test_builds_and_removals_at_the_same_time_leave_every_image_whole(shop: Shop) -> None:
    holds: LayerHolds = shop.builder._holds
    is_over = asyncio.Event()
    removals = 0

    async def remove() -> None:
        nonlocal removals
        while not is_over.is_set():
            done = await asyncio.to_thread(collect, shop, holds=holds, in_s=0.0)
            removals += sum(use.is_removed for use in done.layers)
            for layer in shop.store.list():
                # Old at once, or nothing would be removed in the time of a test.
                os.utime(Path(layer.path).parent / "manifest.json", (1, 1))

    removing = asyncio.ensure_future(remove())
    steps: list[tuple[ImageStep, ...]] = [(RUN,), (RUN, OTHER), (OTHER,), (OTHER, RUN)]
    for number in range(24):
        hold = holds.begin("test")
        try:
            built = await _build_again(shop.builder, *steps[number % 4])
            if built is not None and hold.add_paths(built.layers):
                assert all(map(os.path.exists, built.layers))
        finally:
            hold.release()
    is_over.set()
    await removing

    assert removals


async def _build_again(builder: ImageBuilder, *steps: ImageStep) -> BuiltImage | None:
    """None where a layer was lost right after it was made, or the base, of which this machine has no other."""
    try:
        return await asyncio.wait_for(builder.build(make_spec(*steps), lambda event: None), 20)
    except BuildFailed as error:
        is_expected = "build again" in error.message or "base image" in error.message
        if not is_expected:
            raise
        return None
