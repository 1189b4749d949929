"""An image that could not be built is known by its steps, and by nobody taken for a built one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from squall.agent.image import garbage
from squall.agent.image.block.lazy import LazyLayers
from squall.agent.image.block.manifest import LayerManifest
from squall.agent.image.block.partial import PartialLayer
from squall.agent.image.block.store import BlockStore, open_store
from squall.agent.image.block.stored import StoredImages
from squall.agent.image.definitions import UNBUILT_MAX, UNBUILT_S, Definitions
from squall.agent.image.layer import chain
from squall.agent.image.layer.holds import Hold, LayerHolds
from squall.agent.image.layer.merged import merged
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.making import BuildFailed
from squall.agent.image.progress import BuiltImage
from squall.agent.known_images import KnownImages
from squall.protocol import image_steps
from squall.protocol.errors import NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.image import BuildEvent, ImageInvalid, ImageSpec, ImageStep, image_id
from squall.protocol.image_catalog import NodeGc, NodeImageDelete, NodeImageGc
from squall.protocol.image_store import DAY_S, NodeStoreGc
from squall.runtime.spec import ContainerSpec
from tests.agent.image.block.stores import HASTY, store_in
from tests.agent.image.shop import RUN, Shop, make_spec, open_shop
from tests.agent.parts import until


def ignore(event: BuildEvent) -> None:
    """What happens is not in question."""


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        yield opened


def images_of(shop: Shop, stored: StoredImages | None = None) -> KnownImages:
    known = KnownImages(shop.data_dir, shop.builder, stored)
    known.prepare()
    return known


async def fail(known: KnownImages, shop: Shop, *steps: ImageStep) -> str:
    """Build an image whose last step ends badly."""

    async def step(spec: ContainerSpec) -> int:
        await shop.write_a_file(spec)
        return 1 if "fail" in " ".join(spec.argv) else 0

    shop.step = step
    spec = make_spec(*steps, image_steps.run_commands(("fail",)))
    with pytest.raises(BuildFailed):
        await known.build(spec, ignore, {"0": {"TOKEN": "word", "KEY": "other"}})
    return image_id(spec)


async def test_failed_image_is_known_by_its_steps_and_is_not_built(shop: Shop) -> None:
    known = images_of(shop)

    failed = await fail(known, shop, RUN)

    # By the next agent as well, which knows nothing but the files.
    for images in (known, images_of(shop)):
        definition = images.definition(failed)
        assert definition is not None
        assert image_id(definition) == failed
        assert images.secret_names(failed) == {"0": ("KEY", "TOKEN")}
        assert images.find(failed) is None
        assert await images.get(failed, shop.holds.begin("test")) is None
        assert failed not in images.survey().whole


@contextmanager
def held(holds: LayerHolds) -> Iterator[Hold]:
    hold = holds.begin("test")
    try:
        yield hold
    finally:
        hold.release()


@dataclass
class StoringNode:
    """A node of several that have one store."""

    shop: Shop
    stored: StoredImages
    known: KnownImages

    async def build_and_put(self, spec: ImageSpec) -> BuiltImage:
        built = await self.known.build(spec, ignore)
        await until(lambda: self.stored.was_put(built.image_id, built.config.layers), 20)
        return built

    def collect(self, *needed: str) -> NodeGc:
        """As the agent does when no other image is needed."""
        survey, now = self.known.survey(), time.time() + 60.0
        request = NodeImageGc(0.0, needed=dict.fromkeys(needed, ("app hello (ap-1)",)))
        done = garbage.collect(self.shop.holds, "nd-1", survey, request, now)
        self.known.forget(done.gone_image_ids)
        return done


@asynccontextmanager
async def storing_node(data_dir: Path, store: BlockStore, lazy: LazyLayers | None = None) -> AsyncIterator[StoringNode]:
    data_dir.mkdir(exist_ok=True)
    async with StoredImages(store, LayerHolds(LayerStore(data_dir, is_packed=True)), data_dir, lazy) as stored:

        def fetched(name: str) -> BuiltImage | None:
            return stored.find_here(name, is_used=False)

        async with open_shop(data_dir, is_packed=True, fetched=fetched) as shop:
            stored.holds = shop.holds
            yield StoringNode(shop, stored, images_of(shop, stored))


async def write_anew(spec: ContainerSpec) -> int:
    upper = Path(spec.state_dir, "rw/upper")
    upper.mkdir(parents=True)
    (upper / "anew").write_text("x")
    return 0


def taking_from(taken: str) -> tuple[ImageSpec, ...]:
    """Definitions that begin with an image, or copy out of it."""
    return (
        ImageSpec((image_steps.from_image(taken), image_steps.run_commands(("more",)))),
        make_spec(image_steps.copy_from(taken, ("/file-1",), "/srv/file")),
    )


@pytest.mark.long
async def test_what_takes_from_an_image_of_another_node_is_built_and_put_like_any_other(tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    async with storing_node(tmp_path / "first", store) as first:
        below = await first.build_and_put(make_spec(RUN))
        below_layers = [Path(path).read_bytes() for path in below.layers]
    async with storing_node(tmp_path / "second", store) as second:
        on_top, copied = [await second.build_and_put(spec) for spec in taking_from(below.image_id)]

        assert [Path(path).read_bytes() for path in on_top.layers[:-1]] == below_layers
        with merged(copied.layers) as tree:
            assert tree.find("/srv/file")
        assert second.known.find(on_top.image_id) == on_top
        survey = second.known.survey()
        assert {below.image_id, on_top.image_id, copied.image_id} == set(survey.whole)
    # Whoever gets these needs nothing of the one that they were built on.
    async with storing_node(tmp_path / "third", store) as third:
        for built in (on_top, copied):
            found = await third.known.get(built.image_id, third.shop.holds.begin("test"))
            assert found is not None
            assert [Path(path).read_bytes() for path in found.layers] == [
                Path(path).read_bytes() for path in built.layers
            ]


@pytest.mark.long
@pytest.mark.parametrize("moment", ["while it comes", "before it is read"])
async def test_no_removal_takes_what_a_build_has_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    store = store_in(tmp_path / "store")
    async with storing_node(tmp_path / "first", store) as first:
        below = await first.build_and_put(make_spec(RUN))
    users: list[set[str]] = []
    async with storing_node(tmp_path / "second", store) as second:

        def collect() -> None:
            users.append({user for use in second.collect().layers for user in use.users})

        get_layer, build = BlockStore.get_layer, second.shop.builder.build

        def get_layer_late(self: BlockStore, digest: str) -> LayerManifest:
            collect()
            return get_layer(self, digest)

        async def build_late(*arguments: Any) -> BuiltImage:
            collect()
            return await build(*arguments)

        if moment == "while it comes":
            monkeypatch.setattr(BlockStore, "get_layer", get_layer_late)
        else:
            monkeypatch.setattr(second.shop.builder, "build", build_late)
        spec = taking_from(below.image_id)[0]

        built = await second.known.build(spec, ignore)

        assert all(map(os.path.exists, built.layers))
        who = f"fetch of {below.image_id}" if moment == "while it comes" else f"build of {image_id(spec)}"
        assert users[-1] == {who}
        # Nothing is held for longer than that.
        assert (second.collect().freed_bytes > 0, second.shop.store.list()) == (True, ())


@pytest.mark.long
async def test_no_removal_takes_what_a_start_has_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(tmp_path / "store")
    async with storing_node(tmp_path / "first", store) as first:
        built = await first.build_and_put(make_spec(RUN))
    async with storing_node(tmp_path / "second", store) as second:
        holds = second.shop.holds
        add_paths = Hold.add_paths

        def add_late(hold: Hold, paths: Iterable[str]) -> bool:
            second.collect()
            return add_paths(hold, paths)

        monkeypatch.setattr(Hold, "add_paths", add_late)
        hold, other = holds.begin("container ct-1"), holds.begin("container ct-2")

        found, same = await asyncio.gather(
            second.known.get(built.image_id, hold), second.known.get(built.image_id, other)
        )

        second.collect()
        assert found is not None
        assert found == same
        assert all(map(os.path.exists, found.layers))
        hold.release()
        assert second.collect().freed_bytes == 0
        other.release()
        assert second.collect().freed_bytes > 0


@pytest.mark.long
async def test_deep_image_of_another_node_is_merged_as_where_it_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "DEPTH_MAX", 3)
    monkeypatch.setattr(chain, "GROUP", 2)
    store = store_in(tmp_path / "store")
    async with storing_node(tmp_path / "first", store) as first:
        steps = [image_steps.run_commands((f"step {number}",)) for number in range(5)]
        built = await first.build_and_put(make_spec(*steps))
        assert (len(built.config.layers), len(built.layers)) == (6, 4)
        with merged(built.layers) as tree:
            wanted = [place.names for place in tree.entries(tree.resolve("/")[0])]
    # One that has to serve layers which are not whole: to merge them, all of each is read.
    lazy = cast(LazyLayers, object())
    async with storing_node(tmp_path / "second", store, lazy) as second:
        with held(second.shop.holds) as hold:
            found = await second.known.get(built.image_id, hold)

            assert found is not None
            assert (len(found.config.layers), len(found.layers)) == (6, 4)
            with merged(found.layers) as tree:
                assert [place.names for place in tree.entries(tree.resolve("/")[0])] == wanted
            assert (second.collect(built.image_id).freed_bytes > 0, second.known.find(built.image_id)) == (True, found)
    # The next agent finds it, and merges again what is lost of that.
    async with storing_node(tmp_path / "second", open_store("http://127.0.0.1:1", HASTY), lazy) as second:
        assert second.known.find(built.image_id) == found
        lost = second.shop.store.id_at(found.layers[1])
        assert lost is not None
        assert lost not in found.config.layers
        second.shop.store.remove(lost)
        with held(second.shop.holds) as hold:
            again = await second.known.get(built.image_id, hold)
            assert again is not None
            assert len(again.layers) == 4
            assert all(map(os.path.exists, again.layers))


@pytest.mark.long
async def test_image_that_is_served_while_it_comes_is_told_as_here(tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    async with storing_node(tmp_path / "first", store) as first:
        built = await first.build_and_put(make_spec(RUN))
    async with storing_node(tmp_path / "second", store, cast(LazyLayers, object())) as second:
        digests = second.stored._learn(built.image_id).layers
        told = []
        for digest in digests:
            told.append(tuple(second.known.here()))
            PartialLayer(digest, store.get_layer(digest), store, second.shop.store).close()

        assert told == [()] * len(digests), "not before some of each layer is here"
        assert tuple(second.known.here()) == (built.image_id,)
    # Where nobody serves it, it has to be fetched whole first.
    async with storing_node(tmp_path / "second", store) as second:
        assert tuple(second.known.here()) == ()


@pytest.mark.long
async def test_forced_layers_are_put_by_the_next_agent_when_theirs_was_killed_before(tmp_path: Path) -> None:
    spec, store = make_spec(RUN), store_in(tmp_path / "store")
    async with storing_node(tmp_path / "node", store) as node:
        old = await node.build_and_put(spec)
        # As if it was killed at once.
        node.stored.put_soon = lambda built: None  # type: ignore[method-assign]
        new = await node.known.build(make_spec(replace(RUN, force_build=True)), ignore)
        assert (old.image_id, old.config.layers != new.config.layers) == (new.image_id, True)
        # What the store has of it is not what would be lost.
        assert new.image_id not in node.known.survey().elsewhere

    async with storing_node(tmp_path / "node", store) as node:
        node.known.put_rest()
        await until(lambda: node.stored.was_put(new.image_id, new.config.layers), 20)
        assert new.image_id in node.known.survey().elsewhere

        asked: list[str] = []
        node.stored.put_soon = lambda built: asked.append(built.image_id)  # type: ignore[method-assign]
        node.known.put_rest()
        assert asked == []


@pytest.mark.long
async def test_what_takes_from_an_image_that_is_only_in_the_store_any_more_is_built(tmp_path: Path) -> None:
    async with storing_node(tmp_path / "node", store_in(tmp_path / "store")) as node:
        below = await node.build_and_put(make_spec(RUN))
        # Twice: what is looked at by a removal is not used by that.
        assert (node.collect().freed_bytes > 0, node.shop.store.list()) == (True, ())
        built = await node.known.build(taking_from(below.image_id)[0], ignore)

        assert all(map(os.path.exists, built.layers))
        assert (node.collect().freed_bytes > 0, node.shop.store.list()) == (True, ())


@pytest.mark.long
async def test_image_that_was_removed_is_not_known_here_until_it_is_fetched_again(tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    async with storing_node(tmp_path / "first", store) as first:
        built = await first.build_and_put(make_spec(RUN))
    async with storing_node(tmp_path / "second", store) as second:
        with held(second.shop.holds) as hold:
            here = await second.known.get(built.image_id, hold)
        assert here is not None
        request = NodeImageDelete((built.image_id,))

        done = garbage.delete(second.shop.holds, "nd-1", second.known.survey(), request, time.time() + 60.0)
        second.known.forget(done.gone_image_ids)

        assert done.gone_image_ids == (built.image_id,)
        assert not any(map(os.path.exists, here.layers))
        assert (second.stored.fetched_ids(), second.known.find(built.image_id)) == ((), None)
        with held(second.shop.holds) as hold:
            assert await second.known.get(built.image_id, hold)


async def test_what_takes_from_an_image_that_cannot_be_had_now_says_so(tmp_path: Path) -> None:
    async with storing_node(tmp_path / "node", open_store("http://127.0.0.1:1", HASTY)) as node:
        missing = "im-" + "1" * 32
        for spec in taking_from(missing):
            with pytest.raises(PlatformError, match=f"cannot use image {missing}: .* http://127") as caught:
                await node.known.build(spec, ignore)
            assert caught.value.code == "unavailable"


@pytest.mark.long
@pytest.mark.parametrize("is_killed", [False, True])
async def test_image_that_was_fetched_and_is_built_anew_is_the_new_one_from_then_on(
    tmp_path: Path, is_killed: bool
) -> None:
    store = store_in(tmp_path / "store")
    async with storing_node(tmp_path / "first", store) as first:
        old = await first.build_and_put(make_spec(RUN))
    async with storing_node(tmp_path / "second", store) as second:
        with held(second.shop.holds) as hold:
            assert await second.known.get(old.image_id, hold)
        second.shop.step = write_anew
        if is_killed:
            # As if it was at once.
            second.stored.put_soon = lambda built: None  # type: ignore[method-assign]
        new = await second.known.build(make_spec(replace(RUN, force_build=True)), ignore)
        assert new.image_id == old.image_id
        # What the store has of it is not what would be lost.
        assert not is_killed or new.image_id not in second.known.survey().elsewhere
    async with storing_node(tmp_path / "second", store) as second:
        second.known.put_rest()
        await until(lambda: second.stored.was_put(new.image_id, new.config.layers), 20)
        assert new.image_id in second.known.survey().elsewhere
        assert (second.collect().freed_bytes > 0, second.shop.store.list()) == (True, ())
        with held(second.shop.holds) as hold:
            found = await second.known.get(new.image_id, hold)
            assert found is not None
            with merged(found.layers) as tree:
                assert tree.find("/anew")


@pytest.mark.long
@pytest.mark.parametrize("is_built_here", [False, True])
async def test_image_that_another_node_builds_anew_is_the_new_one_here_from_when_it_is_put(
    tmp_path: Path, is_built_here: bool
) -> None:
    store = store_in(tmp_path / "store")
    async with storing_node(tmp_path / "one", store) as one, storing_node(tmp_path / "two", store) as two:
        old = await one.build_and_put(make_spec(RUN))
        if is_built_here:
            # As when the store had not answered, and with another that begins with it.
            for spec in (make_spec(RUN), taking_from(old.image_id)[0]):
                built = await two.known._build(spec, ignore, None, "")
                await until(partial(two.stored.was_put, built.image_id, built.config.layers), 20)
        with held(two.shop.holds) as hold:
            before = await two.known.get(old.image_id, hold)
        assert before is not None
        put: list[str] = []
        one.shop.step, one.stored.on_put = write_anew, put.append

        new = await one.known.build(make_spec(replace(RUN, force_build=True)), ignore)
        await until(lambda: put == [new.image_id], 20)
        await two.known.put_by_another(new.image_id)

        with held(two.shop.holds) as hold:
            after = await two.known.get(new.image_id, hold)
        assert after is not None
        assert after.config.layers != before.config.layers
        with merged(after.layers) as tree:
            assert tree.find("/anew")
        # What is the same stays.
        await two.known.put_by_another(new.image_id)
        assert two.known.find(new.image_id) == after


@pytest.mark.long
async def test_what_a_node_has_still_to_put_itself_is_not_given_up_for_what_another_has_put(tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    async with storing_node(tmp_path / "one", store) as one:
        await one.build_and_put(make_spec(RUN))
    async with storing_node(tmp_path / "two", store) as two:
        two.shop.step = write_anew
        built = await two.known.build(make_spec(replace(RUN, force_build=True)), ignore)
        two.stored._to_put[built.image_id] = built

        await two.known.put_by_another(built.image_id)

        found = two.known.find(built.image_id)
        assert found is not None
        assert found.config.layers == built.config.layers


async def test_image_that_the_store_does_not_tell_stays_what_it_is(shop: Shop, tmp_path: Path) -> None:
    built = await images_of(shop).build(make_spec(RUN), ignore)
    store = open_store("http://127.0.0.1:1", HASTY)
    async with StoredImages(store, shop.holds, shop.data_dir) as stored:
        known = images_of(shop, stored)

        await known.put_by_another(built.image_id)

        assert known.find(built.image_id) is not None


@dataclass
class Damaged:
    """A node whose kernel mounts no packed layers, and so unpacks them as they are looked at; one cannot be."""

    known: KnownImages
    holds: LayerHolds
    bad: BuiltImage
    good: BuiltImage


@pytest.fixture
async def damaged(tmp_path: Path) -> AsyncIterator[Damaged]:
    store = store_in(tmp_path / "store")
    async with storing_node(tmp_path / "first", store) as first:
        specs = [make_spec(RUN), make_spec(image_steps.run_commands(("more",)))]
        names = sorted([(await first.build_and_put(spec)).image_id for spec in specs])
    async with storing_node(tmp_path / "second", store) as second:
        with held(second.shop.holds) as hold:
            fetched = [await second.known.get(name, hold) for name in names]
        bad, good = (one for one in fetched if one is not None)
        # The first that is looked at.
        Path(bad.layers[-1]).write_bytes(b"damaged")
        unpacking = LayerHolds(LayerStore(second.shop.data_dir, is_packed=False))
        async with StoredImages(store, unpacking, second.shop.data_dir) as stored:
            assert stored.fetched_ids() == (bad.image_id, good.image_id)
            yield Damaged(images_of(second.shop, stored), unpacking, bad, good)


@pytest.mark.long
async def test_damaged_image_keeps_no_other_from_being_told(damaged: Damaged) -> None:
    assert tuple(damaged.known.here()) == (damaged.good.image_id,)


@pytest.mark.long
@pytest.mark.parametrize("is_needed", [False, True])
async def test_damaged_image_is_told_apart_and_goes_with_its_layers_unless_it_is_needed(
    damaged: Damaged, caplog: pytest.LogCaptureFixture, is_needed: bool
) -> None:
    bad, good = damaged.bad, damaged.good

    survey = damaged.known.survey()

    assert (set(survey.whole), set(survey.damaged)) == ({good.image_id}, {bad.image_id})
    assert (
        f"image {bad.image_id} counts as one that is not whole: cannot use layer {bad.config.layers[-1]}" in caplog.text
    )
    names = [one.image_id for one in (good, bad)[: 1 + is_needed]]
    request = NodeImageGc(0.0, needed=dict.fromkeys(names, ("app hello (ap-1)",)))
    garbage.collect(damaged.holds, "nd-1", survey, request, time.time() + 60.0)
    left = {layer.layer_id for layer in damaged.holds.store.list()}
    assert left == {*good.config.layers, *(bad.config.layers if is_needed else ())}


async def test_values_of_secrets_are_in_no_file(shop: Shop) -> None:
    await fail(images_of(shop), shop)

    for path in (shop.data_dir / "images").iterdir():
        assert "word" not in path.read_text()


async def test_failed_image_is_put_into_no_store(shop: Shop, tmp_path: Path) -> None:
    async with StoredImages(store_in(tmp_path / "store"), shop.holds, shop.data_dir) as stored:
        known = images_of(shop, stored)
        failed = await fail(known, shop, RUN)
        spec = make_spec(RUN)
        await known.build(spec, ignore)

        asked: list[str] = []
        stored.put_soon = lambda built: asked.append(built.image_id)  # type: ignore[method-assign]
        known.put_rest()

    assert failed not in asked


async def test_image_begins_with_no_failed_one(shop: Shop) -> None:
    known = images_of(shop)
    failed = await fail(known, shop, RUN)

    with pytest.raises(BuildFailed, match=f"needs image {failed}, which is not on this node"):
        await known.build(ImageSpec((image_steps.from_image(failed), RUN)), ignore)


async def test_failed_image_that_is_built_in_the_end_is_found(shop: Shop) -> None:
    known = images_of(shop)
    failed = await fail(known, shop, RUN)
    definition = known.definition(failed)
    assert definition is not None
    shop.step = shop.write_a_file

    built = await known.build(definition, ignore)

    assert built.image_id == failed
    assert images_of(shop).find(failed) is not None


async def test_impossible_definition_is_not_kept(shop: Shop) -> None:
    known = images_of(shop)

    with pytest.raises(ImageInvalid):
        await known.build(ImageSpec(()), ignore)

    assert Definitions(shop.data_dir).ids() == ()


async def test_failed_images_are_forgotten_when_nobody_tries_them_again(shop: Shop) -> None:
    known, definitions = images_of(shop), Definitions(shop.data_dir)
    built = await known.build(make_spec(RUN), ignore)
    old, new = await fail(known, shop, RUN), await fail(known, shop)
    for name in (old, built.image_id):
        os.utime(shop.data_dir / "images" / f"{name}.json", (1_000, 1_000))
    os.utime(shop.data_dir / "images" / f"{new}.json", (2_000, 2_000))

    known.forget_unbuilt(known.survey(), 1_001 + UNBUILT_S)

    assert set(definitions.ids()) == {built.image_id, new}


async def test_no_more_failed_images_are_kept_than_a_limit(tmp_path: Path) -> None:
    definitions = Definitions(tmp_path)
    definitions.prepare()
    specs = [make_spec(image_steps.run_commands((f"step {number}",))) for number in range(UNBUILT_MAX + 2)]
    for number, spec in enumerate(specs):
        definitions.save(spec)
        os.utime(tmp_path / "images" / f"{image_id(spec)}.json", (number, number))

    definitions.forget_unbuilt((), float(len(specs)))

    assert set(definitions.ids()) == {image_id(spec) for spec in specs[2:]}


async def test_image_that_leads_in_circles_is_none_that_is_there(shop: Shop) -> None:
    async def link_to_itself(spec: ContainerSpec) -> int:
        upper = Path(spec.state_dir, "rw/upper/etc")
        upper.mkdir(parents=True)
        (upper / "passwd").symlink_to("passwd")
        return 0

    known = images_of(shop)
    shop.step = link_to_itself

    with pytest.raises(BuildFailed):
        await known.build(make_spec(RUN, image_steps.user("someone")), ignore)

    assert known.survey().whole == {}


@pytest.mark.long
async def test_image_that_is_needed_is_noted_and_put_again_when_the_store_has_lost_it(tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    note = tmp_path / "store/used"
    async with storing_node(tmp_path / "first", store) as first:
        built = await first.build_and_put(make_spec(RUN))
        manifest = tmp_path / "store/images" / built.image_id
        unknown = "im-" + "0" * 32

        await first.known.note_used((built.image_id, unknown))
        noted = os.listdir(note)
        os.utime(note / built.image_id, (1, 1))
        await first.known.note_used((built.image_id,))
        is_noted_anew = (note / built.image_id).stat().st_mtime > 1
        manifest.unlink()
        await first.known.note_used((built.image_id, unknown))
        await until(manifest.exists, 20)

        assert noted == [built.image_id]
        assert is_noted_anew


@pytest.mark.long
async def test_garbage_of_the_store_goes_when_the_server_says_so(tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    long_ago = time.time() - 40 * DAY_S
    lines: list[str] = []
    async with storing_node(tmp_path / "first", store) as first:
        built = await first.build_and_put(make_spec(RUN))
        (block, *_) = [path for path in (tmp_path / "store/blocks").rglob("*") if path.is_file()]
        (block.parent / ("0" * 64)).write_bytes(b"orphan")
        for path in (tmp_path / "store").rglob("*"):
            os.utime(path, (long_ago, long_ago))

        kept = await first.known.remove_stored(NodeStoreGc(30 * DAY_S, needed=(built.image_id,)), lines.append)
        gone = await first.known.remove_stored(NodeStoreGc(30 * DAY_S), lines.append)

    assert (kept.kind, kept.store, kept.images.count, kept.images.removed) == ("done", store.name, 1, 0)
    assert (kept.blocks.removed, kept.blocks.removed_bytes) == (1, 6)
    assert gone.removed_image_ids == (built.image_id,)
    assert f"looking at the images of {store.name}" in lines


async def test_node_without_a_store_says_so(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        known = KnownImages(tmp_path, shop.builder)

        await known.note_used(("im-1",))
        with pytest.raises(PlatformError, match="this node has no store of layers; set SQUALL_LAYER_URL") as refused:
            await known.remove_stored(NodeStoreGc(30 * DAY_S), lambda line: None)

    assert refused.value.code == NOT_FOUND


@pytest.mark.long
async def test_store_that_fails_is_unavailable(tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    async with storing_node(tmp_path / "first", store) as first:
        built = await first.build_and_put(make_spec(RUN))
        (tmp_path / "store/images" / built.image_id).write_bytes(b"damaged")
        said = r"cannot remove garbage from the store of layers: cannot fetch the manifest of image im-\S+: file://.*"

        with pytest.raises(PlatformError, match=said) as refused:
            await first.known.remove_stored(NodeStoreGc(30 * DAY_S, needed=(built.image_id,)), lambda line: None)

    assert refused.value.code == UNAVAILABLE
