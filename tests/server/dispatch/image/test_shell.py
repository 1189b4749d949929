"""Shells in images, passed on to the node that can open them."""

from __future__ import annotations

import pytest

from squall.protocol.asset import VOLUME, AssetCreate, AssetInfo
from squall.protocol.container import TerminalInput, TerminalOutput
from squall.protocol.errors import INVALID, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.ids import new_id
from squall.protocol.image_catalog import ImageName, ImagePublish
from squall.protocol.image_shell import ImageShell
from squall.protocol.request import Request
from squall.protocol.secret import SecretCreate, SecretInfo
from squall.protocol.stream import Stream
from squall.protocol.volume import VolumeMount
from tests.server.dispatch.image.test_catalog import IMAGE_ID, ask, build
from tests.server.doubles import FakeNode, Stage, staged


class Shell:
    """A node's answer: it repeats what is typed, or refuses."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self.asked: list[ImageShell] = []

    async def answer(self, request: Request) -> None:
        self.asked.append(request.record(ImageShell))
        if self.refusal:
            raise PlatformError(self.refusal, f"{self.refusal} on this node")
        await request.send_item(TerminalOutput("stderr"), b"open\n")
        async for _, typed in request.uploads(TerminalInput):
            await request.send_item(TerminalOutput(), typed)
        await request.send_item(TerminalOutput(exit_code=5))


async def connect(stage: Stage, *shells: Shell) -> list[FakeNode]:
    """Give the node of a stage, and more of them, these answers."""
    nodes = [stage.node, *(FakeNode(stage.plane, stage.codec) for _ in shells[1:])]
    for node in nodes[1:]:
        await node.connect()
    for node, shell in zip(sorted(nodes, key=lambda node: node.node_id), shells, strict=True):
        node.answer = shell.answer  # type: ignore[method-assign]
    return nodes


async def leave(node: FakeNode) -> None:
    assert node.peer is not None
    await node.peer.close()


def opened(stage: Stage, record: ImageShell) -> Stream:
    assert stage.client.peer is not None
    return stage.client.peer.stream("ImageShell", record)


async def test_what_is_typed_goes_to_the_node_that_has_the_image_and_its_code_comes_back() -> None:
    async with staged() as stage:
        await build(stage)
        await ask(stage, "ImagePublish", ImagePublish(IMAGE_ID, "web"), ImageName)
        shells = [Shell(NOT_FOUND), Shell(), Shell(NOT_FOUND)]
        await connect(stage, *shells)

        stream = opened(stage, ImageShell("web", 3, "ls"))
        # Before any node has said that it opens one.
        stream.send(TerminalInput(), b"typed early")
        stream.send(None)
        items = [(item.exit_code, body) async for item, body in stream.items(TerminalOutput)]

        assert items == [(None, b"open\n"), (None, b"typed early"), (5, b"")]
        assert shells[1].asked == [ImageShell(IMAGE_ID, 3, "ls")]


@pytest.mark.parametrize(
    ("refusals", "code"), [((NOT_FOUND, NOT_FOUND), NOT_FOUND), ((INVALID,), INVALID), ((), UNAVAILABLE)]
)
async def test_what_no_node_can_open_is_refused_with_its_reason(refusals: tuple[str, ...], code: str) -> None:
    async with staged() as stage:
        shells = [Shell(refusal) for refusal in refusals]
        if shells:
            await connect(stage, *shells)
        else:
            await leave(stage.node)

        with pytest.raises(PlatformError) as refused:
            await opened(stage, ImageShell(IMAGE_ID)).next(TerminalOutput)

        assert refused.value.code == code
        assert [len(shell.asked) for shell in shells] == [1] * len(shells)


async def test_shell_of_a_node_that_goes_away_ends_and_is_opened_nowhere_else() -> None:
    async with staged() as stage:
        shells = [Shell(), Shell()]
        nodes = await connect(stage, *shells)
        stream = opened(stage, ImageShell(IMAGE_ID))
        await stream.next(TerminalOutput)

        for node in nodes:
            if node.answer.__self__.asked:  # type: ignore[attr-defined]
                await leave(node)

        with pytest.raises(PlatformError, match="the node of the shell is gone") as gone:
            await stream.next(TerminalOutput)
        assert gone.value.code == UNAVAILABLE
        assert sum(len(shell.asked) for shell in shells) == 1


async def test_a_node_that_opens_a_shell_is_told_which_volumes_are_named_and_where_they_are_to_be() -> None:
    async with staged() as stage:
        await build(stage)
        shell = Shell()
        await connect(stage, shell)
        asked = AssetCreate(new_id("vo"), VOLUME, "data")
        made = await ask(stage, "AssetCreate", asked, AssetInfo)

        # What a client says of mounts itself counts for nothing.
        stream = opened(stage, ImageShell(IMAGE_ID, volumes=("data",), mounts=(VolumeMount("vo-other", "/etc/x"),)))
        stream.send(None)
        async for _ in stream.items(TerminalOutput):
            pass

        assert shell.asked[0].mounts == (VolumeMount(made.asset_id, "/mnt/data", name="data"),)
        assert shell.asked[0].volumes == ()
        for names, says in ((("dta",), "there is no volume 'dta'.*data"), (("data", made.asset_id), "at /mnt/data")):
            refused = opened(stage, ImageShell(IMAGE_ID, volumes=names))
            with pytest.raises(PlatformError, match=says):
                await refused.next(TerminalOutput)
        assert len(shell.asked) == 1


async def test_a_node_that_opens_a_shell_is_told_what_is_in_the_secrets_that_are_named() -> None:
    async with staged() as stage:
        await build(stage)
        shell = Shell()
        await connect(stage, shell)
        for name, values in (("first", {"A": "1", "B": "1"}), ("second", {"B": "2"})):
            await ask(stage, "SecretCreate", SecretCreate(new_id("st"), values, name), SecretInfo)

        stream = opened(stage, ImageShell(IMAGE_ID, secrets=("first", "second")))
        stream.send(None)
        async for _ in stream.items(TerminalOutput):
            pass

        assert (shell.asked[0].variables, shell.asked[0].secrets) == ({"A": "1", "B": "2"}, ())
        missing = opened(stage, ImageShell(IMAGE_ID, secrets=("third",)))
        with pytest.raises(PlatformError, match="there is no secret 'third'"):
            async for _ in missing.items(TerminalOutput):
                pass
