"""What is taken back at the end of a step is taken back whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from squall.agent.image.ending import to_the_end
from squall.runtime.fake import FakeRuntime
from tests.agent.image.shop import NOTHING, RUN, open_shop
from tests.agent.parts import until


@pytest.mark.long
async def test_a_build_that_is_given_up_while_its_container_is_removed_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, may_go, remove = asyncio.Event(), asyncio.Event(), FakeRuntime.remove

    async def late(self: FakeRuntime, container_id: str) -> None:
        reached.set()
        await may_go.wait()
        await remove(self, container_id)

    async with open_shop(tmp_path) as shop:
        monkeypatch.setattr(FakeRuntime, "remove", late)
        building = asyncio.ensure_future(shop.build(RUN))
        await asyncio.wait_for(reached.wait(), 20)

        building.cancel()
        await asyncio.wait([building])
        held = set(shop.network.held)
        may_go.set()

        with contextlib.suppress(TimeoutError):
            await until(lambda: shop.leftovers() == NOTHING)
        assert shop.leftovers() == NOTHING
        assert held, "its slot was somebody else's before the container was gone"


async def test_it_is_all_done_before_the_cancellation_goes_on() -> None:
    may_go, done = asyncio.Event(), []

    async def work() -> None:
        await may_go.wait()
        done.append("one")
        await asyncio.sleep(0)
        done.append("two")

    ending = asyncio.ensure_future(to_the_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        ending.cancel()
    may_go.set()

    with pytest.raises(asyncio.CancelledError):
        await ending
    assert done == ["one", "two"]


async def test_what_fails_is_raised() -> None:
    async def work() -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        await to_the_end(work())
