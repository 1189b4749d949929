"""Images by id and name, as clients ask for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from squall.protocol.app import AppStop
from squall.protocol.empty import Empty
from squall.protocol.environment import EnvironmentCreate, EnvironmentInfo
from squall.protocol.errors import PlatformError
from squall.protocol.image import BuildEvent, BuiltLayer, ImageBuild, ImageConfig, ImageSpec, image_id
from squall.protocol.image_catalog import (
    ImageGet,
    ImageInfo,
    ImageList,
    ImageListing,
    ImageLogRead,
    ImageName,
    ImageNameDelete,
    ImageNameList,
    ImageNameListing,
    ImagePublish,
    parse_name,
)
from squall.protocol.image_steps import debian_slim, from_image, run_commands
from squall.protocol.log import LogBatch, LogEntry
from squall.protocol.request import Request
from squall.server.model.image import StoredImage
from tests.server.doubles import FakeNode, Stage, settle, staged

SPEC = ImageSpec((debian_slim("3.11"), run_commands(("make it",))))
IMAGE_ID = image_id(SPEC)
LAYERS = (BuiltLayer("ly-1", 100), BuiltLayer("ly-2", 7, 2))


def make_built(spec: ImageSpec = SPEC, layers: tuple[BuiltLayer, ...] = LAYERS) -> BuildEvent:
    config = ImageConfig({"A": "b"}, layers=tuple(layer.layer_id for layer in layers))
    return BuildEvent("built", image_id=image_id(spec), config=config, layers=layers)


async def build(stage: Stage, app_id: str = "", spec: ImageSpec = SPEC, event: BuildEvent | None = None) -> str:
    stage.node.built = event or make_built(spec)
    assert stage.client.peer is not None
    stream = stage.client.peer.stream("ImageBuild", ImageBuild(spec, app_id))
    async for built, _ in stream.items(BuildEvent):
        if built.kind == "built":
            return built.image_id
    raise AssertionError("it was not built")


async def ask(stage: Stage, method: str, record: Any, reply: Any) -> Any:
    return await stage.client.ask(method, record, reply)


async def test_image_that_was_built_is_known_with_all_that_is_to_know() -> None:
    async with staged() as stage:
        app_id = await stage.client.app()
        await build(stage, app_id)

        info = await ask(stage, "ImageGet", ImageGet(IMAGE_ID), ImageInfo)
        (listed,) = (await ask(stage, "ImageList", ImageList(), ImageListing)).images

        now = stage.clock.now()
        assert info == ImageInfo(
            IMAGE_ID, now, now, LAYERS, app_id, (), (f"app hello ({app_id})",), SPEC, make_built().config
        )
        assert info.size_bytes == 107
        assert listed == replace(info, spec=None, config=None)


async def test_image_found_built_is_used_and_one_built_anew_is_younger() -> None:
    async with staged() as stage:
        app_id = await stage.client.app()
        await build(stage, app_id)
        began_at = stage.clock.now()
        writes: list[StoredImage] = []
        put_image = stage.store.put_image

        async def counted(image: StoredImage) -> None:
            writes.append(image)
            await put_image(image)

        stage.store.put_image = counted  # type: ignore[method-assign]

        stage.clock.advance(30.0)
        await build(stage)
        written_after_30_s = len(writes)
        stage.clock.advance(60.0)
        await build(stage)
        found = await ask(stage, "ImageGet", ImageGet(IMAGE_ID), ImageInfo)
        await build(stage, event=make_built(layers=(LAYERS[0], BuiltLayer("ly-3", 8, 2))))
        anew = await ask(stage, "ImageGet", ImageGet(IMAGE_ID), ImageInfo)

        assert written_after_30_s == 0
        assert (found.built_at, found.used_at, found.app_id) == (began_at, began_at + 90.0, app_id)
        assert anew.built_at == began_at + 90.0
        assert anew.size_bytes == 108


async def test_running_containers_use_their_image() -> None:
    async with staged() as stage:
        await build(stage)
        built_at = stage.clock.now()
        function = await stage.client.function(image_id=IMAGE_ID, min_containers=1)
        await stage.done(stage.client.call(function.function_id, 2), 1)

        await stage.pass_time(601.0, 1.0)

        info = await ask(stage, "ImageGet", ImageGet(IMAGE_ID), ImageInfo)
        assert info.used_at > built_at
        assert info.users[0] == f"app hello ({function.app_id})"


async def test_app_needs_its_image_from_the_build_on_until_it_stops() -> None:
    async with staged() as stage:
        app_id = await stage.client.app()
        needed = [stage.plane.image_users.now()]
        await build(stage, app_id)
        needed.append(stage.plane.image_users.now())
        await stage.plane.answer("AppStop", AppStop(app_id))
        needed.append(stage.plane.image_users.now())

        assert needed == [{}, {IMAGE_ID: (f"app hello ({app_id})",)}, {}]


async def test_build_goes_well_though_the_image_cannot_be_written_down(caplog: pytest.LogCaptureFixture) -> None:
    async with staged() as stage:

        async def refuse(image: object) -> None:
            raise PlatformError("exhausted", "the disk is full")

        stage.store.put_image = refuse  # type: ignore[method-assign]

        assert await build(stage) == IMAGE_ID
        assert "the disk is full" in caplog.text


async def test_image_is_found_by_the_name_it_was_given() -> None:
    async with staged() as stage:
        await build(stage)

        published = await ask(stage, "ImagePublish", ImagePublish(IMAGE_ID, "web"), ImageName)
        found = [(await ask(stage, "ImageGet", ImageGet(text), ImageInfo)).image_id for text in ("web", "web:latest")]
        names = (await ask(stage, "ImageNameList", ImageNameList(), ImageNameListing)).names

        assert published == ImageName("web:latest", IMAGE_ID, stage.clock.now())
        assert found == [IMAGE_ID] * 2
        assert names == (published,)
        assert (await ask(stage, "ImageGet", ImageGet(IMAGE_ID), ImageInfo)).names == ("web:latest",)


async def test_names_are_apart_by_environment_and_history_is_shown_when_asked_for() -> None:
    async with staged() as stage:
        await ask(stage, "EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        other = ImageSpec((debian_slim("3.12"),))
        await build(stage)
        await build(stage, spec=other)
        for image, name in ((IMAGE_ID, "web:1"), (image_id(other), "web:1"), (IMAGE_ID, "dev/web:1")):
            await ask(stage, "ImagePublish", ImagePublish(image, name), ImageName)

        inside = await ask(stage, "ImageNameList", ImageNameList(include_earlier=True), ImageNameListing)
        dev = await ask(stage, "ImageNameList", ImageNameList(environment="dev"), ImageNameListing)
        by_default = await ask(stage, "ImageGet", ImageGet("web:1"), ImageInfo)
        by_argument = await ask(stage, "ImageGet", ImageGet("web:1", "dev"), ImageInfo)

        assert [(one.name, one.image_id, one.is_current) for one in inside.names] == [
            ("web:1", image_id(other), True),
            ("web:1", IMAGE_ID, False),
        ]
        assert [one.name for one in dev.names] == ["dev/web:1"]
        assert by_default.image_id == image_id(other)
        assert by_argument.image_id == IMAGE_ID


async def test_deleted_name_is_not_found_and_the_error_says_how_to_publish() -> None:
    async with staged() as stage:
        await build(stage)
        await ask(stage, "ImagePublish", ImagePublish(IMAGE_ID, "web"), ImageName)

        await ask(stage, "ImageNameDelete", ImageNameDelete("web"), Empty)

        with pytest.raises(
            PlatformError, match=r"no image is published as web:latest; .*publish\('web:latest'\)"
        ) as error:
            await ask(stage, "ImageGet", ImageGet("web"), ImageInfo)
        assert error.value.code == "not_found"
        with pytest.raises(PlatformError, match="no image is published as web:latest; `squall image names list`"):
            await ask(stage, "ImageNameDelete", ImageNameDelete("web"), Empty)


@pytest.mark.parametrize("name", ["", "a b", "web:", ":tag", "a:b:c", "/web", "a/b/c", "é", "x" * 65, "im-1234567890"])
async def test_what_is_no_name_is_refused_with_the_rule(name: str) -> None:
    async with staged() as stage:
        await build(stage)

        with pytest.raises(PlatformError, match=r"is no name of an image: write `name`, .* is 1 to 64") as refused:
            await ask(stage, "ImagePublish", ImagePublish(IMAGE_ID, name), ImageName)

        assert refused.value.code == "invalid"


async def test_image_that_was_never_built_has_neither_entry_nor_name() -> None:
    async with staged() as stage:
        for method, record, reply in (
            ("ImageGet", ImageGet("im-12345678"), ImageInfo),
            ("ImagePublish", ImagePublish("im-12345678", "web"), ImageName),
        ):
            with pytest.raises(PlatformError, match="no image im-12345678 was built here; ") as missing:
                await ask(stage, method, record, reply)
            assert missing.value.code == "not_found"


async def test_name_outlives_the_server() -> None:
    async with staged() as stage:
        await build(stage)
        await ask(stage, "ImagePublish", ImagePublish(IMAGE_ID, "web"), ImageName)

        await stage.restart()
        await stage.client.connect()
        await settle()

        assert (await ask(stage, "ImageGet", ImageGet("web"), ImageInfo)).spec == SPEC


def test_name_is_taken_apart() -> None:
    assert [str(parse_name(text)) for text in ("a", "a:b", "e/a", "e/a:b")] == [
        "a:latest",
        "a:b",
        "e/a:latest",
        "e/a:b",
    ]
    assert str(parse_name("a", "dev")) == "dev/a:latest"
    assert str(parse_name("e/a", "dev")) == "e/a:latest"


async def test_build_log_comes_from_the_first_node_that_has_it() -> None:
    async with staged() as stage:
        await build(stage)
        await ask(stage, "ImagePublish", ImagePublish(IMAGE_ID, "web"), ImageName)
        other = FakeNode(stage.plane, stage.codec)
        await other.connect()
        asked: list[ImageLogRead] = []

        async def answer(request: Request) -> None:
            asked.append(request.record(ImageLogRead))
            await request.send_item(LogBatch((LogEntry(1.0, "stdout", "made it"),)))

        other.answer = answer  # type: ignore[method-assign]
        refuse = stage.node.answer

        async def lack(request: Request) -> Any:
            if request.method != "NodeImageLogs":
                return await refuse(request)
            raise PlatformError("not_found", "not here")

        stage.node.answer = lack  # type: ignore[method-assign]

        assert await read_log(stage, ImageLogRead("web", layers=2)) == ["made it"]
        assert asked == [ImageLogRead(IMAGE_ID, layers=2)]


async def test_build_log_that_nobody_has_is_not_found() -> None:
    async with staged() as stage:

        async def lack(request: Request) -> None:
            raise PlatformError("not_found", "not here")

        stage.node.answer = lack  # type: ignore[method-assign]

        with pytest.raises(PlatformError, match=r"no node that is connected has built image im-123456789") as missing:
            await read_log(stage, ImageLogRead("im-123456789"))
        assert missing.value.code == "not_found"


async def read_log(stage: Stage, record: ImageLogRead) -> list[str]:
    assert stage.client.peer is not None
    stream = stage.client.peer.stream("ImageLogRead", record)
    return [entry.text async for batch, _ in stream.items(LogBatch) for entry in batch.entries]


async def test_what_takes_from_another_image_is_built_where_that_is() -> None:
    async with staged() as stage:
        other = FakeNode(stage.plane, stage.codec)
        # The last of all: another one would be asked otherwise.
        other.node_id = "nd-" + "z" * len(stage.node.node_id[3:])
        await other.connect()
        await build(stage)
        stage.plane.fleet.nodes[stage.node.node_id].lacks_image(IMAGE_ID)
        stage.plane.fleet.nodes[other.node_id].has_image(IMAGE_ID)
        on_top = ImageSpec((from_image(IMAGE_ID), run_commands(("more",))))
        other.built = make_built(on_top)

        await build(stage, spec=on_top)

        assert (stage.node.builds, other.builds) == (1, 1)
        assert other.peer is not None
        other.peer.channel.close()
