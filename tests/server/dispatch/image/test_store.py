"""What a server tells its nodes to keep in their store of layers, and what it makes of what they removed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from squall.protocol.app import AppStop
from squall.protocol.empty import Empty
from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.protocol.image import BuildEvent, ImageSpec, image_id
from squall.protocol.image_catalog import ImageGet, ImageInfo, ImageName, ImagePublish
from squall.protocol.image_steps import copy_from, debian_slim, from_image, run_commands
from squall.protocol.image_store import DAY_S, ImageStoreGc, NodeImagesUsed, NodeStoreGc, StoreGcEvent, StoreKind
from squall.protocol.request import Request
from squall.server.dispatch.image.store import NOTE_S
from tests.server.dispatch.image.test_catalog import IMAGE_ID, SPEC, build, make_built
from tests.server.doubles import FakeNode, Stage, settle, staged

OTHER = ImageSpec((debian_slim("3.11"), run_commands(("make another",))))


class Storing:
    """What a node was told of its store, and asked to remove from it."""

    def __init__(self, node: FakeNode, *, is_old: bool = False, has_store: bool = True) -> None:
        self.used: list[tuple[str, ...]] = []
        self.removals: list[NodeStoreGc] = []
        self.gone: tuple[str, ...] = ()
        self._is_old = is_old
        self._has_store = has_store
        self._answer: Callable[[Request], Awaitable[tuple[Any, bytes] | None]] = node.answer
        node.answer = self.answer  # type: ignore[method-assign]

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        if request.method == "NodeImagesUsed" and not self._is_old:
            self.used.append(request.record(NodeImagesUsed).image_ids)
            return Empty(), b""
        if request.method == "NodeStoreGc" and not self._is_old:
            self.removals.append(request.record(NodeStoreGc))
            if not self._has_store:
                raise PlatformError(NOT_FOUND, "this node has no store of layers")
            await request.send_item(StoreGcEvent("line", "looking"))
            kind = StoreKind(2, 20, 1, 10)
            await request.send_item(StoreGcEvent("done", store="s3://b", images=kind, removed_image_ids=self.gone))
            return None
        return await self._answer(request)


async def remove(stage: Stage, record: ImageStoreGc | None = None) -> list[StoreGcEvent]:
    assert stage.client.peer is not None
    stream = stage.client.peer.stream("ImageStoreGc", record or ImageStoreGc())
    return [event async for event, _ in stream.items(StoreGcEvent)]


async def is_known(stage: Stage, wanted: str = IMAGE_ID) -> bool:
    try:
        await stage.client.ask("ImageGet", ImageGet(wanted), ImageInfo)
    except PlatformError:
        return False
    return True


async def unused_for_long(stage: Stage) -> None:
    """All images that are known were last used long ago."""
    for image in await stage.store.list_images(100):
        await stage.store.put_image(replace(image, used_at=stage.clock.now() - 40 * DAY_S))


async def test_images_of_apps_names_and_late_use_stay_with_those_that_they_take_from() -> None:
    async with staged() as stage:
        node = Storing(stage.node)
        base = await build(stage)
        copied = await build(stage, spec=OTHER, event=make_built(OTHER))
        above = ImageSpec((from_image(base), copy_from(copied, ("/a",), "/b")))
        app_id = await stage.client.app()
        needed = await build(stage, app_id, above, make_built(above))
        unneeded = ImageSpec((debian_slim("3.12"),))
        gone = await build(stage, spec=unneeded, event=make_built(unneeded))

        await remove(stage)
        await unused_for_long(stage)
        await remove(stage)
        await stage.client.ask("AppStop", AppStop(app_id), Empty)
        await remove(stage)
        await stage.client.ask("ImagePublish", ImagePublish(needed, "web"), ImageName)
        await remove(stage, ImageStoreGc(8 * DAY_S, is_dry_run=True))

        of_app = tuple(sorted((base, copied, needed)))
        assert [one.needed for one in node.removals] == [tuple(sorted((*of_app, gone))), of_app, (), of_app]
        assert [(one.older_than_s, one.is_dry_run) for one in node.removals[2:]] == [
            (30 * DAY_S, False),
            (8 * DAY_S, True),
        ]


async def test_image_of_a_container_stays() -> None:
    async with staged() as stage:
        node = Storing(stage.node)
        await build(stage)
        function = await stage.client.function(image_id=IMAGE_ID, min_containers=1)
        await stage.done(stage.client.call(function.function_id, 2), 1)
        await unused_for_long(stage)

        await remove(stage)

        assert node.removals[0].needed == (IMAGE_ID,)


async def test_what_happens_is_passed_on_and_what_is_nowhere_any_more_is_forgotten() -> None:
    async with staged() as stage:
        node = Storing(stage.node)
        on_a_node = await build(stage, spec=OTHER, event=make_built(OTHER))
        await build(stage)
        stage.plane.fleet.nodes[stage.node.node_id].lacks_image(IMAGE_ID)
        await unused_for_long(stage)
        node.gone = (IMAGE_ID, on_a_node)

        await remove(stage, ImageStoreGc(is_dry_run=True))
        after_dry_run = await is_known(stage)
        line, done = await remove(stage)

        assert after_dry_run
        assert line == StoreGcEvent("line", "looking")
        assert (done.kind, done.store, done.images) == ("done", "s3://b", StoreKind(2, 20, 1, 10))
        assert not await is_known(stage)
        assert await is_known(stage, on_a_node)


@pytest.mark.long
async def test_nodes_are_told_twice_a_day_which_images_are_needed() -> None:
    async with staged() as stage:
        node = Storing(stage.node)
        await build(stage)

        await stage.plane.image_store.tick()
        stage.clock.advance(NOTE_S - 1)
        await stage.plane.image_store.tick()
        await settle()
        assert node.used == [(IMAGE_ID,)]
        stage.clock.advance(1)
        await stage.plane.image_store.tick()
        await settle()

        assert node.used == [(IMAGE_ID,)] * 2


async def test_nothing_is_removed_while_a_node_of_an_earlier_version_is_there() -> None:
    async with staged() as stage:
        node = Storing(stage.node, is_old=True)

        with pytest.raises(
            PlatformError, match=r"node nd-\S+ is of an earlier version of Squall, .*; upgrade it first"
        ):
            await remove(stage)

        assert node.removals == []


async def test_without_a_store_it_says_what_to_set() -> None:
    async with staged() as stage:
        Storing(stage.node, has_store=False)

        with pytest.raises(PlatformError, match="no connected node has a store of layers; set SQUALL_LAYER_URL on the"):
            await remove(stage)


@pytest.mark.parametrize("older_than_s", [0.0, 7 * DAY_S - 1, 1e400])
async def test_time_that_is_too_short_is_refused(older_than_s: float) -> None:
    async with staged() as stage:
        node = Storing(stage.node)

        with pytest.raises(PlatformError, match="is no such time; give at least 7 days"):
            async for _ in stage.plane.image_store.remove_garbage(ImageStoreGc(older_than_s)):
                pass

        assert node.removals == []


def test_ids_of_this_test_are_those_of_its_images() -> None:
    assert image_id(SPEC) == IMAGE_ID
    assert isinstance(make_built(OTHER), BuildEvent)
