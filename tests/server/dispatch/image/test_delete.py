"""Single images are removed where nothing needs them, and whoever needs one is named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from squall.protocol.app import AppStop
from squall.protocol.errors import CONFLICT, INVALID, NOT_FOUND, PlatformError
from squall.protocol.image import ImageSpec, image_id
from squall.protocol.image_catalog import (
    ImageDelete,
    ImageDeleteDone,
    ImageList,
    ImageListing,
    ImageName,
    ImageNameList,
    ImageNameListing,
    ImagePublish,
    LayerUse,
    NodeGc,
    NodeImageDelete,
)
from squall.protocol.image_steps import copy_from, from_image, run_commands
from squall.protocol.request import Request
from squall.server.dispatch.image import delete as image_delete
from tests.server.dispatch.image.test_catalog import IMAGE_ID, SPEC, ask, build
from tests.server.doubles import Stage, staged

OTHER = ImageSpec((*SPEC.steps, run_commands(("more",))))
OTHER_ID = image_id(OTHER)


class Removing:
    """What the stage's node was asked to remove; it does what it is asked, but for what it holds."""

    def __init__(self, stage: Stage) -> None:
        self.requests: list[NodeImageDelete] = []
        self.held: list[tuple[str, ...]] = []
        """Who holds the image at each look; nobody at those behind."""
        self.node_id = stage.node.node_id
        self._answer: Callable[[Request], Awaitable[tuple[Any, bytes] | None]] = stage.node.answer
        stage.node.answer = self.answer  # type: ignore[method-assign]

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        if request.method != "NodeImageDelete":
            return await self._answer(request)
        asked = request.record(NodeImageDelete)
        self.requests.append(asked)
        users = self.held.pop(0) if self.held else ()
        layer = LayerUse("ly-2", 7, 1.0, 1.0, not users, asked.image_ids, users)
        return NodeGc(self.node_id, (layer,), 0 if users else 7, () if users else asked.image_ids), b""

    @property
    def removed(self) -> list[tuple[str, ...]]:
        return [asked.image_ids for asked in self.requests if not asked.is_dry_run]


async def delete(stage: Stage, *images: str, is_dry_run: bool = False) -> ImageDeleteDone:
    done: ImageDeleteDone = await ask(stage, "ImageDelete", ImageDelete(images, "", is_dry_run), ImageDeleteDone)
    return done


async def publish(stage: Stage, *names: str, wanted: str = IMAGE_ID) -> None:
    for name in names:
        await ask(stage, "ImagePublish", ImagePublish(wanted, name), ImageName)


async def known(stage: Stage) -> list[str]:
    """Ids of images, and names."""
    images = (await ask(stage, "ImageList", ImageList(), ImageListing)).images
    names = (await ask(stage, "ImageNameList", ImageNameList(), ImageNameListing)).names
    return [*sorted(one.image_id for one in images), *(one.name for one in names)]


async def refused(stage: Stage, node: Removing, *images: str) -> PlatformError:
    """The refusal; nothing is gone."""
    before = await known(stage)
    with pytest.raises(PlatformError) as caught:
        await delete(stage, *images)
    assert await known(stage) == before
    assert node.removed == []
    return caught.value


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_delete, "LOOK_AGAIN_S", 0.0)


@pytest.mark.parametrize("text", [IMAGE_ID, IMAGE_ID[:9]])
async def test_image_that_nothing_needs_is_removed_and_forgotten_and_is_not_there_the_second_time(text: str) -> None:
    async with staged() as stage:
        node = Removing(stage)
        await build(stage)

        done = await delete(stage, text)

        assert (done.names, done.image_ids, done.kept, done.named) == ((), (IMAGE_ID,), {}, {})
        assert done.nodes[0].freed_bytes == 7
        assert node.requests == [NodeImageDelete((IMAGE_ID,), is_dry_run=True), NodeImageDelete((IMAGE_ID,))]
        assert IMAGE_ID in stage.plane.fleet.nodes[node.node_id].missing_image_ids
        assert await known(stage) == []
        again = await refused(stage, Removing(stage), text)
        assert again.code == NOT_FOUND
        assert f"no image {text} is known here; `squall image list` shows" in again.message


async def test_last_name_takes_its_image_along_and_one_of_several_does_not() -> None:
    async with staged() as stage:
        node = Removing(stage)
        await build(stage)
        await publish(stage, "web:1", "web:2", "other")

        first = await delete(stage, "web:1")
        rest = await known(stage)
        last = await delete(stage, "web:2", "other", "web:2")

        assert (first.names, first.image_ids) == (("web:1",), ())
        assert first.named == {IMAGE_ID: ("other:latest", "web:2")}
        assert rest == [IMAGE_ID, "other:latest", "web:2"]
        assert (last.names, last.image_ids) == (("web:2", "other:latest"), (IMAGE_ID,))
        assert node.removed == [(IMAGE_ID,)]
        assert await known(stage) == []


async def test_published_image_is_refused_by_its_id_unless_its_names_are_given_too() -> None:
    async with staged() as stage:
        node = Removing(stage)
        await build(stage)
        await publish(stage, "web:1")

        error = await refused(stage, node, IMAGE_ID)
        done = await delete(stage, IMAGE_ID, "web:1")

        assert error.code == CONFLICT
        assert f"{IMAGE_ID} is published as web:1; remove it by its name, or take that away" in error.message
        assert (done.names, done.image_ids) == (("web:1",), (IMAGE_ID,))


@pytest.mark.parametrize("text", [IMAGE_ID, "web:1"])
async def test_image_of_an_app_and_its_container_is_refused_until_it_is_stopped(text: str) -> None:
    async with staged() as stage:
        node = Removing(stage)
        await build(stage)
        if text == "web:1":
            await publish(stage, text)
        function = await stage.client.function(image_id=IMAGE_ID, min_containers=1)
        await stage.done(stage.client.call(function.function_id, 2), 1)

        error = await refused(stage, node, text)

        container_id = stage.node.started[0].container_id
        assert error.code == CONFLICT
        users = f"image {IMAGE_ID} is used by app hello ({function.app_id}), container {container_id}"
        assert f"{users}; end these first, with `squall app stop` or `squall container stop`" in error.message
        assert ("`squall image names delete web:1`" in error.message) == (text == "web:1")
        await stage.plane.answer("AppStop", AppStop(function.app_id))
        await stage.until(lambda: not stage.plane.fleet.containers)
        assert (await delete(stage, text)).image_ids == (IMAGE_ID,)


async def test_image_that_another_begins_with_goes_with_it_or_not_at_all() -> None:
    async with staged() as stage:
        node = Removing(stage)
        above, copying = (
            ImageSpec((from_image(IMAGE_ID), run_commands(("more",)))),
            ImageSpec((*SPEC.steps, copy_from(IMAGE_ID, ("/a",), "/b"))),
        )
        for spec in (SPEC, above, copying):
            await build(stage, spec=spec)

        error = await refused(stage, node, IMAGE_ID)
        done = await delete(stage, image_id(above), IMAGE_ID)

        assert f"image {image_id(above)} begins with {IMAGE_ID}; remove that one with it, or first" in error.message
        assert done.image_ids == (image_id(above), IMAGE_ID)
        assert await known(stage) == [image_id(copying)]


async def test_one_that_cannot_go_keeps_the_others() -> None:
    async with staged() as stage:
        node = Removing(stage)
        await build(stage)
        await build(stage, spec=OTHER)
        await publish(stage, "web:1", wanted=OTHER_ID)

        missing = await refused(stage, node, "web:1", IMAGE_ID, "nobody")
        ambiguous = await refused(stage, node, "web:1", "im-")
        wrong = await refused(stage, node, "UPPER/:")

        assert missing.code == NOT_FOUND
        assert "no image is published as nobody:latest; `squall image names list`" in missing.message
        assert ambiguous.code == NOT_FOUND
        assert wrong.code == INVALID


async def test_beginning_of_several_ids_is_refused_with_these() -> None:
    async with staged() as stage:
        node = Removing(stage)
        stored = []
        for spec in (SPEC, OTHER):
            await build(stage, spec=spec)
            stored.append(await stage.store.get_image(image_id(spec)))
        for number, one in enumerate(stored, start=1):
            await stage.store.put_image(replace(one, image_id=f"im-0123{number}"))

        error = await refused(stage, node, "im-0123")

        assert error.code == INVALID
        assert "2 ids begin with im-0123: im-01231, im-01232; write more of the one you mean" in error.message


async def test_what_a_node_holds_for_a_moment_is_waited_for_and_what_it_goes_on_holding_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with staged() as stage:
        node = Removing(stage)
        await build(stage)
        await publish(stage, "web:1")
        node.held = [("shell in web:1",)] * image_delete.LOOKS_MAX

        error = await refused(stage, node, "web:1")
        node.held = [("first look at it",)] * 3
        done = await delete(stage, "web:1")

        assert error.code == CONFLICT
        assert f"image {IMAGE_ID} is used by shell in web:1; end that, or try again when it is over" in error.message
        assert done.image_ids == (IMAGE_ID,)


async def test_image_that_came_to_be_needed_meanwhile_stays_known() -> None:
    async with staged() as stage:
        node = Removing(stage)
        await build(stage)
        await publish(stage, "web:1")
        node.held = [(), ("build of im-1",)]

        done = await delete(stage, "web:1")

        assert (done.names, done.image_ids, done.kept) == (("web:1",), (), {IMAGE_ID: ("build of im-1",)})
        assert await known(stage) == [IMAGE_ID]


async def test_node_that_cannot_keeps_the_image_known_and_is_named() -> None:
    async with staged() as stage:
        await build(stage)

        done = await delete(stage, IMAGE_ID)

        assert done.kept == {IMAGE_ID: (f"node {stage.node.node_id}: NodeImageDelete",)}
        assert await known(stage) == [IMAGE_ID]


async def test_node_that_is_away_is_named_and_its_copy_is_one_that_nobody_knows() -> None:
    async with staged() as stage:
        Removing(stage)
        await build(stage)
        assert stage.node.peer is not None
        await stage.node.peer.close()
        await stage.until(lambda: stage.plane.fleet.nodes[stage.node.node_id].peer is None)

        done = await delete(stage, IMAGE_ID)

        assert (done.image_ids, done.away_node_ids) == ((IMAGE_ID,), (stage.node.node_id,))
        assert await known(stage) == []


async def test_dry_run_says_what_would_go_and_removes_nothing() -> None:
    async with staged() as stage:
        node = Removing(stage)
        await build(stage)
        await publish(stage, "web:1")

        done = await delete(stage, "web:1", is_dry_run=True)

        assert (done.names, done.image_ids, done.nodes[0].freed_bytes) == (("web:1",), (IMAGE_ID,), 7)
        assert node.removed == []
        assert await known(stage) == [IMAGE_ID, "web:1"]
