"""What a server tells its nodes to keep, and what it forgets when they have removed the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from squall.protocol.app import AppStop
from squall.protocol.errors import PlatformError
from squall.protocol.image_catalog import (
    ImageGc,
    ImageGcDone,
    ImageGet,
    ImageInfo,
    ImageName,
    ImagePublish,
    LayerUse,
    NodeGc,
    NodeImageGc,
)
from squall.protocol.request import Request
from tests.server.dispatch.image.test_catalog import IMAGE_ID, ask, build
from tests.server.doubles import Stage, settle, staged


class Collecting:
    """What the stage's node was asked to remove; it says that all that is not needed is gone."""

    def __init__(self, stage: Stage) -> None:
        self.requests: list[NodeImageGc] = []
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.node_id = stage.node.node_id
        self._answer: Callable[[Request], Awaitable[tuple[Any, bytes] | None]] = stage.node.answer
        stage.node.answer = self.answer  # type: ignore[method-assign]

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        if request.method != "NodeImageGc":
            return await self._answer(request)
        asked = request.record(NodeImageGc)
        self.requests.append(asked)
        await self.may_end.wait()
        users = asked.needed.get(IMAGE_ID, ())
        layer = LayerUse("ly-2", 7, 1.0, 1.0, not users, (IMAGE_ID,), users)
        return NodeGc(self.node_id, (layer,), 0 if users else 7, () if users else (IMAGE_ID,)), b""


async def collect(stage: Stage, record: ImageGc | None = None) -> ImageGcDone:
    done: ImageGcDone = await ask(stage, "ImageGc", record or ImageGc(0.0), ImageGcDone)
    return done


async def is_known(stage: Stage) -> bool:
    try:
        await ask(stage, "ImageGet", ImageGet(IMAGE_ID), ImageInfo)
    except PlatformError:
        return False
    return True


async def test_image_of_an_app_stays_and_goes_when_it_has_stopped() -> None:
    async with staged() as stage:
        node = Collecting(stage)
        app_id = await stage.client.app()
        await build(stage, app_id)

        kept = await collect(stage, ImageGc(5.0))
        stayed = await is_known(stage)
        await stage.plane.answer("AppStop", AppStop(app_id))
        gone = await collect(stage)

        assert node.requests == [
            NodeImageGc(5.0, needed={IMAGE_ID: (f"app hello ({app_id})",)}),
            NodeImageGc(0.0),
        ]
        assert stayed
        assert kept.nodes[0].layers[0].users == (f"app hello ({app_id})",)
        assert gone.nodes == (
            NodeGc(node.node_id, (LayerUse("ly-2", 7, 1.0, 1.0, True, (IMAGE_ID,)),), 7, (IMAGE_ID,)),
        )
        assert not await is_known(stage)
        assert IMAGE_ID in stage.plane.fleet.nodes[node.node_id].missing_image_ids


async def test_image_of_a_deployed_apps_function_and_a_container_stays() -> None:
    async with staged() as stage:
        node = Collecting(stage)
        await build(stage)
        function = await stage.client.function(image_id=IMAGE_ID, min_containers=1)
        await stage.done(stage.client.call(function.function_id, 2), 1)

        await collect(stage)

        (users,) = node.requests[0].needed.values()
        assert users == (f"app hello ({function.app_id})", f"container {stage.node.started[0].container_id}")


async def test_needed_functions_are_known_to_the_next_server() -> None:
    async with staged() as stage:
        node = Collecting(stage)
        await build(stage)
        app_id = await stage.client.app(state="deployed")
        function = await stage.client.function(image_id=IMAGE_ID)
        await stage.restart()
        await stage.client.connect()

        await collect(stage)

        assert app_id
        assert node.requests[0].needed == {IMAGE_ID: (f"app hello ({function.app_id})",)}


async def test_published_image_stays_until_its_name_is_taken_away() -> None:
    async with staged() as stage:
        node = Collecting(stage)
        await build(stage)
        await ask(stage, "ImagePublish", ImagePublish(IMAGE_ID, "web"), ImageName)

        await collect(stage)

        assert node.requests[0].needed == {IMAGE_ID: ("name web:latest",)}
        assert await is_known(stage)


async def test_name_given_while_images_are_removed_is_given_to_none_that_is_gone() -> None:
    async with staged() as stage:
        node = Collecting(stage)
        await build(stage)
        node.may_end.clear()
        collecting = asyncio.ensure_future(collect(stage))
        await settle()
        publishing = asyncio.ensure_future(ask(stage, "ImagePublish", ImagePublish(IMAGE_ID, "web"), ImageName))
        await settle()
        was_waiting = not publishing.done()
        node.may_end.set()
        await collecting

        assert was_waiting
        with pytest.raises(PlatformError, match=r"no image im-.* was built here; call image.build"):
            await publishing


async def test_dry_run_forgets_nothing() -> None:
    async with staged() as stage:
        node = Collecting(stage)
        await build(stage)

        await collect(stage, ImageGc(0.0, is_dry_run=True))

        assert node.requests[0].is_dry_run
        assert await is_known(stage)


async def test_node_that_cannot_is_named_and_keeps_nobody_else_from_it() -> None:
    async with staged() as stage:
        await build(stage)

        done = await collect(stage)

        assert (done.nodes[0].node_id, done.nodes[0].error) == (stage.node.node_id, "NodeImageGc")
        assert await is_known(stage)


@pytest.mark.parametrize("older_than_s", [-1.0, 1e400])
async def test_time_that_is_none_is_refused(older_than_s: float) -> None:
    async with staged() as stage:
        with pytest.raises(PlatformError, match=r"is no time; give seconds from 0 on"):
            await stage.plane.answer("ImageGc", ImageGc(older_than_s))
