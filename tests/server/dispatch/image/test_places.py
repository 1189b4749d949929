"""Which node has an image, when there are several: also after a restart, when only the nodes know."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.protocol.function import FunctionSpec
from squall.protocol.image import BuildEvent, ImageBuild, ImageSpec, image_id
from squall.protocol.image_steps import debian_slim
from squall.protocol.node import NodeImagePut, NodeImages
from squall.server.dispatch.fleet.starts import NODES_S, REFUSALS_MAX
from squall.server.dispatch.image import images
from tests.server.doubles import FakeNode, Stage, settle, staged

SPEC = ImageSpec((debian_slim("3.11"),))
IMAGE_ID = image_id(SPEC)
MISSING = PlatformError(NOT_FOUND, "image im-test is not on this node; build it")


async def add_nodes(stage: Stage, count: int) -> list[FakeNode]:
    """Nodes that lack every image."""
    nodes = [FakeNode(stage.plane, stage.codec) for _ in range(count)]
    for node in nodes:
        node.refusal = MISSING
        await node.connect()
    return nodes


async def restart(stage: Stage, *others: FakeNode, is_first_back: bool = True) -> None:
    """Another server begins; these nodes come back to it, and the stage's own only if it is said so."""
    if is_first_back:
        await stage.restart()
    else:
        await stage.plane.__aexit__()
        await settle()
        stage.plane = stage.make_plane()
        await stage.plane.__aenter__()
        stage.node.plane = stage.client.plane = stage.plane
    for node in others:
        node.plane = stage.plane
        await node.connect()
    await settle()
    await stage.client.connect()


async def tell(node: FakeNode, *image_ids: str) -> None:
    node.tell("NodeImages", NodeImages(image_ids))
    await settle()


def starts_of(nodes: Sequence[FakeNode]) -> list[int]:
    return [len(node.starts) for node in nodes]


async def deployed(stage: Stage) -> FunctionSpec:
    return await stage.client.function(image_id=IMAGE_ID)


async def build(stage: Stage, spec: ImageSpec = SPEC) -> None:
    stage.node.built = BuildEvent("built", 1, 1, image_id=IMAGE_ID)
    await settle()
    async for _ in stage.plane.images.build(ImageBuild(spec)):
        pass


async def test_image_that_a_node_has_put_is_told_to_the_others_that_are_there() -> None:
    async with staged() as stage:
        others = await add_nodes(stage, 2)
        away = others.pop()
        assert away.peer is not None
        await away.peer.close()
        await settle()

        stage.node.tell("NodeImagePut", NodeImagePut(IMAGE_ID))
        await settle()

        records = [stage.codec.record(NodeImagePut, params) for _, params in others[0].told]
        assert records == [NodeImagePut(IMAGE_ID)]
        assert (stage.node.told, away.told) == ([], [])


async def test_nodes_that_say_what_they_have_are_asked_first_after_a_restart() -> None:
    async with staged() as stage:
        spec = await deployed(stage)
        others = await add_nodes(stage, 3)
        await restart(stage, *others)
        await stage.take_up(spec)
        await tell(stage.node, "im-other", IMAGE_ID)

        outputs = await stage.done(stage.client.call(spec.function_id, 2), 1)

        assert outputs[0].value == b"4"
        assert starts_of(others) == [0, 0, 0]


async def test_however_many_nodes_lack_an_image_the_one_that_has_it_starts_it_at_once() -> None:
    async with staged() as stage:
        spec = await deployed(stage)
        # Equal nodes are asked in the order of their ids: the last of them has it.
        stage.node.refusal = MISSING
        nodes = sorted([stage.node, *await add_nodes(stage, REFUSALS_MAX + 3)], key=lambda node: node.node_id)
        nodes[-1].refusal = None
        begin_s = stage.clock.monotonic()

        outputs = await stage.done(stage.client.call(spec.function_id, 3), 1)

        assert outputs[0].value == b"6"
        assert starts_of(nodes) == [1] * len(nodes)
        assert stage.clock.monotonic() - begin_s < 0.2


async def test_function_waits_for_the_node_that_is_not_back_yet() -> None:
    async with staged() as stage:
        spec = await deployed(stage)
        (other,) = await add_nodes(stage, 1)
        await restart(stage, other, is_first_back=False)
        await stage.take_up(spec)
        call = stage.client.call(spec.function_id, 2)
        await stage.until(lambda: other.starts)
        await settle()
        assert not call.outputs

        await stage.node.connect()

        assert (await stage.done(call, 1))[0].value == b"4"


async def test_function_whose_node_does_not_come_back_fails_and_says_what_to_do() -> None:
    async with staged() as stage:
        spec = await deployed(stage)
        (other,) = await add_nodes(stage, 1)
        await restart(stage, other, is_first_back=False)
        await stage.take_up(spec)
        calls = [stage.client.call(spec.function_id, number) for number in range(3)]
        await stage.until(lambda: other.starts)
        await settle()
        asked = len(other.starts)

        await stage.pass_time(NODES_S + 2.0, 1.0)

        failures = [(await stage.done(call, 1))[0].failure for call in calls]
        assert {failure.kind for failure in failures} == {"image"}
        assert failures[0].message == (
            f"image {IMAGE_ID} is on no node that is connected; run or deploy the app again to build it"
        )
        assert len(other.starts) == asked


async def test_function_whose_only_node_is_lost_fails_and_says_what_to_do() -> None:
    async with staged() as stage:
        spec = await deployed(stage)
        await add_nodes(stage, 1)
        assert stage.node.peer is not None
        stage.node.peer.channel.close()
        call = stage.client.call(spec.function_id, 2)
        await settle()
        assert not call.outputs

        await stage.pass_time(stage.config.node_grace_s + 2.0, 1.0)

        assert (await stage.done(call, 1))[0].failure.message.startswith(f"image {IMAGE_ID} is on no node that is conn")


@pytest.mark.parametrize("is_told_late", [False, True])
async def test_image_that_a_node_has_is_not_built_on_another_after_a_restart(is_told_late: bool) -> None:
    async with staged() as stage:
        await build(stage)
        (other,) = await add_nodes(stage, 1)
        # It comes first, and has no container.
        await restart(stage, other, is_first_back=not is_told_late)
        building = asyncio.ensure_future(build(stage))
        await settle()
        if is_told_late:
            await stage.node.connect()
        await tell(stage.node, IMAGE_ID)

        await building

        assert (stage.node.builds, other.builds) == (2, 0)


@pytest.mark.parametrize(("wait_s", "is_forced"), [(0.0, False), (3_600.0, True)])
async def test_image_whose_node_is_not_waited_for_is_built_on_another(
    monkeypatch: pytest.MonkeyPatch, wait_s: float, is_forced: bool
) -> None:
    """It does not come back in time, or the image is to be built anew."""
    monkeypatch.setattr(images, "NODE_WAIT_S", wait_s)
    async with staged() as stage:
        await build(stage)
        (other,) = await add_nodes(stage, 1)
        await restart(stage, other, is_first_back=False)
        other.built = BuildEvent("built", 1, 1, image_id=IMAGE_ID)
        again = ImageSpec((replace(SPEC.steps[0], force_build=is_forced),))
        assert image_id(again) == IMAGE_ID

        await asyncio.wait_for(build(stage, again), 20)

        assert (stage.node.builds, other.builds) == (1, 1)


async def test_what_a_node_says_later_counts_for_what_waits() -> None:
    async with staged() as stage:
        spec = await deployed(stage)
        stage.plane.fleet.starts.expect_nodes()
        stage.node.refusal = MISSING
        call = stage.client.call(spec.function_id, 2)
        await stage.until(lambda: stage.node.starts)
        await settle()

        stage.node.refusal = None
        await tell(stage.node, IMAGE_ID)

        assert (await stage.done(call, 1))[0].value == b"4"


async def test_image_that_was_removed_while_its_node_was_away_is_no_more_there() -> None:
    async with staged() as stage:
        node = stage.plane.fleet.nodes[stage.node.node_id]
        await tell(stage.node, IMAGE_ID, "im-stays")
        await tell(stage.node)
        assert node.image_ids == {IMAGE_ID, "im-stays"}

        await stage.node.connect()
        await tell(stage.node, "im-stays")
        # Until it has said all, it may have the rest.
        assert node.image_ids == {IMAGE_ID, "im-stays"}
        node.has_image("im-built-meanwhile")
        await tell(stage.node)

        assert node.image_ids == {"im-stays", "im-built-meanwhile"}
