"""Long lists over a real connection: as many answers as it takes, each of them one that a client reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from squall.exception import ResourceExhaustedError
from squall.protocol import pages as pages_module
from squall.protocol.app import DEPLOYED, EPHEMERAL, STOPPED, AppGet, AppInfo, AppList, AppListing
from squall.protocol.channel.stream import StreamChannel
from squall.protocol.codec import JsonCodec
from squall.protocol.container import ContainerInfo, ContainerList, ContainerListing
from squall.protocol.errors import PlatformError
from squall.protocol.function import (
    SPEC_BYTES_MAX,
    FunctionCreate,
    FunctionCreated,
    FunctionList,
    FunctionListing,
    Schedule,
)
from squall.protocol.function_window import AppWindow, AppWindowGet, FunctionWindow
from squall.protocol.image import ImageConfig, ImageSpec
from squall.protocol.image_catalog import ImageInfo, ImageList, ImageListing
from squall.protocol.pages import PAGE_BYTES_MAX, first_page, pages, size_of
from squall.protocol.schedule import ScheduleInfo, ScheduleList, ScheduleListing
from squall.sdk._client import Client
from squall.sdk._local_server import Endpoint
from squall.sdk._pages import ask_pages
from squall.server.model.image import StoredImage
from squall.server.model.store import StoredApp
from tests.server.doubles import Stage, make_spec, staged

COUNT = 10_000
TAGS = {f"{number:063}": f"{number:063}" for number in range(20)}


@asynccontextmanager
async def connected(stage: Stage, path: Path) -> AsyncIterator[Client]:
    """The library's own client, by a real socket."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_unix_server(lambda: StreamChannel(stage.plane.accept_client), str(path))
    client = Client(Endpoint(str(path), ""))
    try:
        yield client
    finally:
        await asyncio.to_thread(client.close)
        listener.close()
        await asyncio.sleep(0.01)


def app_row(number: int, state: str = DEPLOYED) -> StoredApp:
    # Many at the same time, as a clock that stands still has them.
    return StoredApp(f"ap-{number:022}", f"{number:064}", state, float(number // 7), None, TAGS, "main")


@pytest.mark.long
async def test_ten_thousand_apps_with_long_names_and_tags_are_listed(data_dir: Path) -> None:
    async with staged() as stage, connected(stage, data_dir / "s.sock") as client:
        for number in range(COUNT):
            await stage.store.put_app(app_row(number))

        listings = await ask_pages(client, "AppList", AppList(COUNT, include_stopped=False), AppListing)

        assert [app.app_id for one in listings for app in one.apps] == [
            app_row(number).app_id for number in reversed(range(COUNT))
        ]
        assert max(size_of(client.codec, one) for one in listings) < PAGE_BYTES_MAX + 10_000
        assert len(listings) > 10
        assert client.connection_count == 1


async def test_all_apps_that_live_are_listed_with_so_many_that_do_not(data_dir: Path) -> None:
    async with staged() as stage, connected(stage, data_dir / "s.sock") as client:
        for number in range(3_000):
            await stage.store.put_app(app_row(number, STOPPED if number % 2 else EPHEMERAL))

        listings = await ask_pages(client, "AppList", AppList(limit=600), AppListing)

        apps = [app for one in listings for app in one.apps]
        assert [app.app_id for app in apps] == sorted({app.app_id for app in apps}, reverse=True)
        assert sum(app.state == EPHEMERAL for app in apps) == 1_500
        stopped = [app.app_id for app in apps if app.state == STOPPED]
        assert stopped == [app_row(number).app_id for number in reversed(range(3_000)) if number % 2][:600]


@pytest.mark.long
async def test_ten_thousand_functions_with_large_definitions_are_listed(data_dir: Path) -> None:
    async with staged() as stage, connected(stage, data_dir / "s.sock") as client:
        app_id = app_row(1).app_id
        await stage.store.put_app(app_row(1, STOPPED))
        specs = [
            make_spec(app_id, name=f"{number:064}", env={"TEXT": "x" * (500_000 if number % 1_000 == 0 else 4_000)})
            for number in range(COUNT)
        ]
        await stage.store.put_functions(tuple(specs))

        listings = await ask_pages(client, "FunctionList", FunctionList(app_id, has_env=True), FunctionListing)
        found = await client.request("AppGet", AppGet(app_id), AppInfo)
        small = await client.request("AppGet", AppGet(app_id, has_functions=False), AppInfo)
        windows = await ask_pages(client, "AppWindow", AppWindowGet(app_id), AppWindow)

        assert [spec for one in listings for spec in one.functions] == specs
        assert max(size_of(client.codec, one) for one in listings) < PAGE_BYTES_MAX + 10_000
        assert list(found.functions) == [spec.name for spec in specs]
        assert small.functions == {}
        assert [name for one in windows for name in one.function_ids] == [spec.name for spec in specs]
        assert len({one.since for one in windows}) == 1
        assert client.connection_count == 1


async def test_lists_of_apps_do_not_name_their_functions(data_dir: Path) -> None:
    async with staged() as stage, connected(stage, data_dir / "s.sock") as client:
        spec = await stage.client.function()

        (app,) = (await client.request("AppList", AppList(), AppListing)).apps
        found = await client.request("AppGet", AppGet(spec.app_id), AppInfo)

        assert app.functions == {}
        assert found.functions == {"square": spec.function_id}


@pytest.mark.long
async def test_an_answer_that_is_too_large_refuses_one_request_only(data_dir: Path) -> None:
    async with staged() as stage, connected(stage, data_dir / "s.sock") as client:
        app_id = app_row(1).app_id
        await stage.store.put_app(app_row(1, STOPPED))
        specs = [make_spec(app_id, name=f"{number:0512}") for number in range(2 * COUNT)]
        await stage.store.put_functions(tuple(specs))

        with pytest.raises(ResourceExhaustedError, match=r"cannot find the app: the answer has .* MiB of parameters"):
            await client.request("AppGet", AppGet(app_id), AppInfo)

        assert (await client.request("AppGet", AppGet(app_id, has_functions=False), AppInfo)).app_id == app_id
        assert client.connection_count == 1


async def test_images_are_listed_a_page_at_a_time(data_dir: Path) -> None:
    async with staged() as stage, connected(stage, data_dir / "s.sock") as client:
        for number in range(2_500):
            await stage.store.put_image(
                StoredImage(f"im-{number:05}", ImageSpec(()), ImageConfig(), (), 1.0, float(number // 7))
            )

        listings = await ask_pages(client, "ImageList", ImageList(2_300), ImageListing)

        assert [image.image_id for one in listings for image in one.images] == [
            f"im-{number:05}" for number in reversed(range(200, 2_500))
        ]


CONTAINER = ContainerInfo("ct-1", "ap-1", "", "fu-1", "f", "nd-1", "idle", 5.0)
SCHEDULE = ScheduleInfo("ap-1", "app", "fu-1", "f", Schedule("cron", "* * * * *"))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (AppList(), lambda is_cut: AppListing((AppInfo("ap-1", "", EPHEMERAL, 5.0),), is_cut)),
        (FunctionList("ap-1"), lambda is_cut: FunctionListing((make_spec("ap-1"),), is_cut)),
        (ContainerList(), lambda is_cut: ContainerListing((CONTAINER,), is_cut)),
        (ImageList(), lambda is_cut: ImageListing((ImageInfo("im-1", 1.0, 5.0),), is_cut)),
        (ScheduleList(), lambda is_cut: ScheduleListing((SCHEDULE,), is_cut)),
        (
            AppWindowGet("ap-1"),
            lambda is_cut: AppWindow(1.0, 2.0, {"f": FunctionWindow(1.0, 2.0)}, has_more=is_cut),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pages_are_followed_while_they_bring_on(question: Any, answer: Callable[[bool], Any]) -> None:
    listing = answer(True)
    empty = type(listing)(1.0, 2.0, has_more=True) if isinstance(listing, AppWindow) else type(listing)((), True)
    following = question.following(listing)

    assert type(following) is type(question)
    assert following != question
    assert question.following(answer(False)) is None
    assert question.following(empty) is None
    assert following.following(listing) is None, "the same page again is no progress"


def test_a_page_has_one_record_at_least_and_no_more_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = JsonCodec()
    records = [AppGet("x" * size) for size in (10, 10, 500, 10, 10, 10)]
    monkeypatch.setattr(pages_module, "PAGE_BYTES_MAX", 2 * size_of(codec, records[0]))

    found = list(pages(codec, records))

    assert found == [tuple(records[:2]), (records[2],), tuple(records[3:5]), (records[5],)]
    assert first_page(codec, records[:2]) == (tuple(records[:2]), False)
    assert first_page(codec, records[:2], records_max=1) == ((records[0],), True)
    assert first_page(codec, []) == ((), False)


async def test_a_function_that_no_page_takes_is_refused() -> None:
    async with staged() as stage:
        app_id = await stage.client.app()
        large = make_spec(app_id, env={"TEXT": "x" * SPEC_BYTES_MAX})

        with pytest.raises(PlatformError, match=r"function 'square': its record has 2\.0 MiB, at most 2") as refused:
            await stage.client.ask("FunctionCreate", FunctionCreate((large,)), FunctionCreated)

        assert refused.value.code == "invalid"
        assert SPEC_BYTES_MAX <= PAGE_BYTES_MAX
