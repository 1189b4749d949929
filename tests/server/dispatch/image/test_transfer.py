"""A transfer goes to a node that has the image, whatever the server remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from squall.protocol.channel.memory import MemoryChannel
from squall.protocol.codec import JsonCodec
from squall.protocol.errors import FORBIDDEN, NOT_FOUND, PlatformError
from squall.protocol.image_transfer import ImageExport, ImagePush, TransferEvent
from squall.protocol.peer import Peer
from squall.protocol.request import Request
from squall.server.dispatch.fleet.node import Node
from squall.server.dispatch.image.transfer import transfer


class Agent:
    """A node's end of its channel: has one image, or fails in one way."""

    def __init__(self, name: str, refusal: str = "") -> None:
        self.node = Node(name)
        self.refusal = refusal
        self.asked: list[str] = []
        ours, theirs = MemoryChannel.pair()
        self.node.peer = Peer(ours, JsonCodec(), self)
        self.peer = Peer(theirs, JsonCodec(), self)
        for peer in (self.node.peer, self.peer):
            peer.start()

    async def answer(self, request: Request) -> None:
        self.asked.append(request.method)
        if self.refusal:
            raise PlatformError(self.refusal, f"said by {self.node.node_id}")
        await request.send_item(TransferEvent("data"), b"part of a file")
        await request.send_item(TransferEvent("done", size_bytes=14))

    def event(self, method: str, params: object, body: bytes) -> None:
        raise AssertionError(method)

    def closed(self, reason: str) -> None:
        pass


@pytest.fixture
async def agents() -> AsyncIterator[list[Agent]]:
    made: list[Agent] = []
    yield made
    for agent in made:
        assert agent.node.peer is not None
        await agent.node.peer.close()
        await agent.peer.close()


async def items(agents: list[Agent], record: ImagePush | ImageExport) -> list[tuple[TransferEvent, bytes]]:
    method = type(record).__name__
    return [item async for item in transfer([agent.node for agent in agents], method, record)]


async def test_node_that_is_known_to_have_the_image_is_asked_and_its_parts_passed_on(agents: list[Agent]) -> None:
    agents += [Agent("nd-1"), Agent("nd-2")]
    agents[1].node.has_image("im-1")

    passed = await items(agents, ImageExport("im-1"))

    assert passed == [(TransferEvent("data"), b"part of a file"), (TransferEvent("done", size_bytes=14), b"")]
    assert [agent.asked for agent in agents] == [[], ["NodeImageExport"]]


async def test_after_a_restart_nodes_are_asked_until_one_has_it(agents: list[Agent]) -> None:
    agents += [Agent("nd-1", NOT_FOUND), Agent("nd-2")]

    passed = await items(agents, ImagePush("im-1", "registry.test/app:1"))

    assert passed[-1][0].kind == "done"
    assert [agent.asked for agent in agents] == [["NodeImagePush"], ["NodeImagePush"]]


async def test_other_refusals_are_the_answer(agents: list[Agent]) -> None:
    agents += [Agent("nd-1", FORBIDDEN), Agent("nd-2")]

    with pytest.raises(PlatformError, match="said by nd-1") as caught:
        await items(agents, ImagePush("im-1", "registry.test/app:1"))

    assert caught.value.code == FORBIDDEN
    assert agents[1].asked == []


@pytest.mark.parametrize(
    ("count", "record", "code"),
    [
        (1, ImageExport("im-1"), "not_found"),
        (0, ImageExport("im-1"), "unavailable"),
        (1, ImageExport("im-1", "zip"), "invalid"),
        (1, ImagePush("im-1", "-x"), "invalid"),
    ],
)
async def test_what_nobody_can_do_is_said(
    agents: list[Agent], count: int, record: ImagePush | ImageExport, code: str
) -> None:
    agents += [Agent("nd-1", NOT_FOUND) for _ in range(count)]

    with pytest.raises(PlatformError) as caught:
        await items(agents, record)

    assert caught.value.code == code
    assert [agent.asked for agent in agents if code == "invalid"] in ([], [[]])
