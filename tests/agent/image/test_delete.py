"""Which layers go with single images, and that none goes that somebody else has or holds."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from squall.agent.image import garbage
from squall.agent.image.layer import chain
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.progress import BuiltImage
from squall.protocol import image_steps
from squall.protocol.image_catalog import NodeGc, NodeImageDelete
from tests.agent.image.shop import RUN, Shop, make_spec, open_shop
from tests.agent.image.test_garbage import OTHER, names

pytestmark = pytest.mark.long


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        yield opened


def delete(
    shop: Shop, there: tuple[BuiltImage, ...], *wanted: BuiltImage, needed: BuiltImage | None = None,
    holds: LayerHolds | None = None, is_dry_run: bool = False, in_s: float = 60.0,
) -> NodeGc:  # fmt: skip
    """As if some time after everything that was done."""
    users: dict[str, tuple[str, ...]] = {needed.image_id: ("app hello (ap-1)",)} if needed is not None else {}
    request = NodeImageDelete(tuple(one.image_id for one in wanted), is_dry_run, users)
    images = garbage.Images({one.image_id: one for one in there}, frozenset(one.image_id for one in there))
    return garbage.delete(holds or LayerHolds(shop.store), "nd-00000001", images, request, time.time() + in_s)


async def test_layers_that_another_image_has_stay_and_layers_of_no_image_too(shop: Shop) -> None:
    unwanted, other = await shop.build(RUN, OTHER), await shop.build(OTHER)
    forgotten = await shop.build(image_steps.run_commands(("forgotten",)))

    done = delete(shop, (unwanted, other), unwanted)

    assert names(shop.store.list()) == {*other.config.layers, *forgotten.config.layers}
    assert done.gone_image_ids == (unwanted.image_id,)
    assert {use.layer_id for use in done.layers} == set(unwanted.config.layers)
    assert done.freed_bytes == sum(use.size_bytes for use in done.layers if use.is_removed) > 0
    assert shop.builder.find(make_spec(OTHER)) == other
    assert shop.builder.find(make_spec(RUN, OTHER)) is None


async def test_image_whose_layers_another_has_all_is_gone_and_frees_nothing(shop: Shop) -> None:
    plain, with_variable = await shop.build(RUN), await shop.build(RUN, image_steps.env({"A": "b"}))

    done = delete(shop, (plain, with_variable), plain)

    assert (done.gone_image_ids, done.freed_bytes) == ((plain.image_id,), 0)
    assert shop.builder.find(make_spec(RUN, image_steps.env({"A": "b"}))) == with_variable


async def test_images_that_share_layers_take_them_along_when_both_go(shop: Shop) -> None:
    first, second = await shop.build(RUN, OTHER), await shop.build(OTHER)

    done = delete(shop, (first, second), first, second)

    assert done.gone_image_ids == tuple(sorted((first.image_id, second.image_id)))
    assert shop.store.list() == ()


async def test_deep_image_goes_with_what_stands_for_its_layers(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "DEPTH_MAX", 3)
    monkeypatch.setattr(chain, "GROUP", 2)
    deep = await shop.build(*(image_steps.run_commands((f"step {number}",)) for number in range(5)))

    done = delete(shop, (deep,), deep)

    assert done.gone_image_ids == (deep.image_id,)
    assert shop.store.list() == ()


async def test_image_of_which_one_layer_is_held_stays_whole(shop: Shop) -> None:
    holds = LayerHolds(shop.store)
    held, free = await shop.build(RUN, OTHER), await shop.build(OTHER)
    hold = holds.begin("shell in it")
    assert hold.add(held.config.layers[1])

    kept = delete(shop, (held, free), held, free, holds=holds)
    is_whole = shop.builder.find(make_spec(RUN, OTHER)) == held
    hold.release()
    gone = delete(shop, (held,), held, holds=holds)

    assert is_whole
    assert kept.gone_image_ids == (free.image_id,)
    assert {user for use in kept.layers for user in use.users} == {"shell in it"}
    assert gone.gone_image_ids == (held.image_id,)


async def test_image_that_came_to_be_needed_stays(shop: Shop) -> None:
    built = await shop.build(RUN)

    done = delete(shop, (built,), built, needed=built)

    assert (done.gone_image_ids, done.freed_bytes) == ((), 0)
    assert shop.builder.find(make_spec(RUN)) == built


async def test_layers_that_were_used_since_it_was_asked_for_stay_and_a_dry_run_says_when_they_are_old_enough(
    shop: Shop,
) -> None:
    built = await shop.build(RUN)

    dry = delete(shop, (built,), built, is_dry_run=True, in_s=0.0)
    lately = delete(shop, (built,), built, in_s=0.0)
    rest_s = garbage.rest_s(dry, time.time())
    after = delete(shop, (built,), built, in_s=rest_s)

    assert dry.gone_image_ids == (built.image_id,)
    assert (lately.gone_image_ids, lately.freed_bytes) == ((), 0)
    assert 0.0 < rest_s < 2 * garbage.MARGIN_S
    assert after.gone_image_ids == (built.image_id,)
    assert garbage.rest_s(dry, time.time() + 60.0) == garbage.rest_s(NodeGc("nd-00000001"), time.time()) == 0.0


async def test_image_that_is_not_here_is_gone(shop: Shop) -> None:
    built = await shop.build(RUN)

    done = delete(shop, (), built)

    assert done == NodeGc("nd-00000001", gone_image_ids=(built.image_id,))
    assert names(shop.store.list()) == set(built.config.layers)
