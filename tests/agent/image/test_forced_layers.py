"""What forced builds of one run share, on the fake runtime; tests/kernel/test_registry.py has the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from squall.protocol import image_steps
from squall.runtime.removal import remove_tree
from tests.agent.image.shop import RUN, Shop, open_shop


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        yield opened


async def test_images_of_one_run_share_what_is_forced_and_the_next_run_makes_it_again(shop: Shop) -> None:
    forced, more = replace(RUN, force_build=True), image_steps.run_commands(("more",))
    await shop.build(RUN, more)

    one, other = await asyncio.gather(
        shop.build(forced, more, run_id="first"),
        shop.build(forced, more, image_steps.env({"A": "b"}), run_id="first"),
    )
    third = await shop.build(forced, run_id="first")
    again = await shop.build(forced, more, run_id="second")
    alone = await shop.build(forced, more)

    assert one.layers == other.layers
    assert third.layers == one.layers[:2]
    assert len({image.layers[number] for image in (one, again, alone) for number in (1, 2)}) == 6
    assert len(shop.specs) == 8


async def test_layer_of_a_run_that_was_removed_is_made_again(shop: Shop) -> None:
    forced = replace(RUN, force_build=True)
    built = await shop.build(forced, run_id="first")
    remove_tree(str(Path(built.layers[1]).parent))

    again = await shop.build(forced, run_id="first")

    assert again.layers[1] != built.layers[1]
    assert Path(again.layers[1]).is_dir()
