"""An image that could not be built is known by its steps, and by nobody taken for a built one."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from squall.agent.image import garbage
from squall.agent.image.block.store import BlockStore, open_store
from squall.agent.image.block.stored import StoredImages
from squall.agent.image.definitions import UNBUILT_MAX, UNBUILT_S, Definitions
from squall.agent.image.layer.merged import merged
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.making import BuildFailed
from squall.agent.image.progress import BuiltImage
from squall.agent.known_images import KnownImages
from squall.protocol import image_steps
from squall.protocol.errors import PlatformError
from squall.protocol.image import BuildEvent, ImageInvalid, ImageSpec, ImageStep, image_id
from squall.protocol.image_catalog import NodeGc, NodeImageGc
from squall.runtime.spec import ContainerSpec
from tests.agent.image.block.stores import HASTY, store_in
from tests.agent.image.test_builder import RUN, Shop, make_spec, open_shop
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
        assert await images.get(failed) is None
        assert failed not in images.survey().layers


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

    def collect(self) -> NodeGc:
        """As the agent does when nothing is needed."""
        survey, now = self.known.survey(), time.time() + 60.0
        done = garbage.collect(self.shop.holds, "nd-1", survey, NodeImageGc(0.0), now)
        self.known.forget(done.gone_image_ids)
        return done


@asynccontextmanager
async def storing_node(data_dir: Path, store: BlockStore) -> AsyncIterator[StoringNode]:
    data_dir.mkdir(exist_ok=True)
    async with StoredImages(store, LayerStore(data_dir, is_packed=True), data_dir) as stored:

        def fetched(name: str) -> BuiltImage | None:
            return stored.find_here(name, is_used=False)

        async with open_shop(data_dir, is_packed=True, fetched=fetched) as shop:
            yield StoringNode(shop, stored, images_of(shop, stored))


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
        assert {below.image_id, on_top.image_id, copied.image_id} == set(survey.layers)
    # Whoever gets these needs nothing of the one that they were built on.
    async with storing_node(tmp_path / "third", store) as third:
        for built in (on_top, copied):
            found = await third.known.get(built.image_id)
            assert found is not None
            assert [Path(path).read_bytes() for path in found.layers] == [
                Path(path).read_bytes() for path in built.layers
            ]


@pytest.mark.long
async def test_what_takes_from_an_image_that_is_only_in_the_store_any_more_is_built(tmp_path: Path) -> None:
    async with storing_node(tmp_path / "node", store_in(tmp_path / "store")) as node:
        below = await node.build_and_put(make_spec(RUN))
        # Twice: what is looked at by a removal is not used by that.
        assert (node.collect().freed_bytes > 0, node.shop.store.list()) == (True, ())
        built = await node.known.build(taking_from(below.image_id)[0], ignore)

        assert all(map(os.path.exists, built.layers))
        assert (node.collect().freed_bytes > 0, node.shop.store.list()) == (True, ())


async def test_what_takes_from_an_image_that_cannot_be_had_now_says_so(tmp_path: Path) -> None:
    async with storing_node(tmp_path / "node", open_store("http://127.0.0.1:1", HASTY)) as node:
        missing = "im-" + "1" * 32
        for spec in taking_from(missing):
            with pytest.raises(PlatformError, match=f"cannot use image {missing}: .* http://127") as caught:
                await node.known.build(spec, ignore)
            assert caught.value.code == "unavailable"


async def test_values_of_secrets_are_in_no_file(shop: Shop) -> None:
    await fail(images_of(shop), shop)

    for path in (shop.data_dir / "images").iterdir():
        assert "word" not in path.read_text()


async def test_failed_image_is_put_into_no_store(shop: Shop, tmp_path: Path) -> None:
    async with StoredImages(store_in(tmp_path / "store"), shop.store, shop.data_dir) as stored:
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

    assert known.survey().layers == {}
