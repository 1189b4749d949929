"""How the images of one run are built: which at the same time, and what happens when one fails or the line breaks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import squall
from squall.exception import ImageBuildError
from squall.protocol.errors import PlatformError
from squall.protocol.image import ImageBuild, ImageSpec
from squall.sdk import _image_build, _output
from squall.sdk._client import Client
from squall.sdk._local_server import Endpoint
from squall.sdk._pending import run
from tests.sdk.double import ServerDouble

MEET_S = 20.0
DIAMOND = """
FROM debian AS one
ENV NAME=one
FROM debian AS two
ENV NAME=two
FROM debian AS left
COPY --from=one /x /x
ENV NAME=left
FROM debian AS right
COPY --from=two /x /x
ENV NAME=right
FROM scratch
COPY --from=left /x /x
COPY --from=right /x /y
ENV NAME=wanted
"""
"""Two stages that need none, one on each of them, and the one that is wanted."""


@pytest.fixture
def image(tmp_path: Path) -> squall.Image:
    (tmp_path / "Dockerfile").write_text(DIAMOND)
    return squall.Image.from_dockerfile(tmp_path / "Dockerfile", context_dir=tmp_path)


class Watch:
    """Builds as the server sees them, each by its NAME."""

    def __init__(self, server: ServerDouble) -> None:
        self.said: list[str] = []
        self.under_way = 0
        self.under_way_max = 0
        self.pairs: list[tuple[str, str]] = []
        """None of one ends before both have begun."""
        self.held: set[str] = set()
        """These do not end."""
        self.failing = ""
        self._server = server
        server.on_build = self._build

    async def _build(self, spec: ImageSpec) -> None:
        name = spec.steps[-1].vars["NAME"]
        self.said.append(f"{name} begins")
        self.under_way += 1
        self.under_way_max = max(self.under_way, self.under_way_max)
        try:
            await self._until(lambda: self._have_met(name) and name not in self.held)
        except asyncio.CancelledError:
            self.said.append(f"{name} is given up")
            raise
        finally:
            self.under_way -= 1
        if name == self.failing:
            raise PlatformError("invalid", f"no {name} today")
        self.said.append(f"{name} ends")

    def _have_met(self, name: str) -> bool:
        return all(f"{one} begins" in self.said for pair in self.pairs if name in pair for one in pair)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not is_so():  # noqa: ASYNC110 - the server's loop is looked at from another thread
                await asyncio.sleep(0.001)

        await asyncio.wait_for(wait(), MEET_S)

    def wait_until(self, *said: str) -> None:
        """Wait in another thread than the server's."""
        self._server.do(self._until(lambda: {*said} <= {*self.said}))


def test_stages_that_need_others_are_built_side_by_side(server: ServerDouble, image: squall.Image) -> None:
    watch = Watch(server)
    watch.pairs = [("one", "two"), ("left", "right")]

    image.build()

    at = watch.said.index
    assert len(watch.said) == 10
    assert at("left begins") > at("one ends")
    assert at("right begins") > at("two ends")
    assert at("wanted begins") > max(at("left ends"), at("right ends"))


def test_stage_does_not_wait_for_one_that_it_needs_nothing_of(server: ServerDouble, image: squall.Image) -> None:
    watch = Watch(server)
    watch.pairs = [("two", "left")]

    image.build()

    assert watch.said.index("left begins") < watch.said.index("two ends")


async def test_stages_are_built_side_by_side_in_an_event_loop(server: ServerDouble, image: squall.Image) -> None:
    watch = Watch(server)
    watch.pairs = [("one", "two"), ("left", "right")]
    app = squall.App("images")

    async with app.run.aio():
        built = await asyncio.gather(*(image.build.aio(app) for _ in range(3)))

    assert len({one.object_id for one in built}) == 1
    assert len(watch.said) == 10, "each is built once, however many wait for it"


def test_no_more_builds_of_one_run_are_under_way_than_may_be(
    server: ServerDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_image_build, "AT_ONCE_MAX", 2)
    stages = [f"FROM debian AS s{number}\nENV NAME=s{number}\n" for number in range(6)]
    copies = [f"COPY --from=s{number} /x /{number}\n" for number in range(6)]
    (tmp_path / "Dockerfile").write_text("".join([*stages, "FROM scratch\n", *copies, "ENV NAME=wanted\n"]))
    watch = Watch(server)
    watch.pairs = [("s0", "s1")]

    squall.Image.from_dockerfile(tmp_path / "Dockerfile", context_dir=tmp_path).build()

    assert watch.under_way_max == 2
    assert len(watch.said) == 14


def test_failed_stage_is_told_and_what_else_is_built_is_given_up(server: ServerDouble, image: squall.Image) -> None:
    watch = Watch(server)
    watch.pairs, watch.held, watch.failing = [("one", "two")], {"two"}, "one"

    with pytest.raises(ImageBuildError, match="no one today"):
        image.build()

    watch.wait_until("two is given up")
    assert sorted(watch.said) == ["one begins", "two begins", "two is given up"]


def test_what_was_under_way_is_asked_for_again_when_the_line_breaks(server: ServerDouble, image: squall.Image) -> None:
    watch = Watch(server)
    watch.held = {"left", "right"}

    def break_once() -> None:
        watch.wait_until("left begins", "right begins")
        server.restart()
        watch.held.clear()

    breaking = threading.Thread(target=break_once)
    breaking.start()
    image.build()
    breaking.join()

    for name in ("left", "right"):
        assert [one for one in watch.said if one.startswith(name)] == [
            f"{name} begins",
            f"{name} is given up",
            f"{name} begins",
            f"{name} ends",
        ]
    assert watch.said.count("one begins") == 1, "what was built is not asked for again"


STOPPED = "the app that it was built for has stopped"


async def test_who_waits_for_an_image_is_told_when_the_app_stops(server: ServerDouble, image: squall.Image) -> None:
    watch = Watch(server)
    watch.held = {"one", "two"}
    app = squall.App("short")

    async with app.run.aio():
        building = asyncio.create_task(image.build.aio(app))
        await asyncio.to_thread(watch.wait_until, "one begins", "two begins")

    with pytest.raises(ImageBuildError, match=STOPPED):
        await asyncio.wait_for(building, MEET_S)


def test_thread_that_waits_for_an_image_is_told_when_the_app_stops(server: ServerDouble, image: squall.Image) -> None:
    watch = Watch(server)
    watch.held = {"one", "two"}
    app = squall.App("short")
    caught: list[BaseException] = []

    def build() -> None:
        try:
            image.build(app)
        except ImageBuildError as error:
            caught.append(error)

    with app.run():
        thread = threading.Thread(target=build, daemon=True)
        thread.start()
        watch.wait_until("one begins", "two begins")

    thread.join(MEET_S)
    assert [STOPPED in str(error) for error in caught] == [True]


@pytest.fixture
def builds() -> Iterator[_image_build.Builds]:
    """Of a client that nobody answers."""
    client = Client(Endpoint("/nowhere"))
    yield _image_build.Builds(client, "ap-1", _output.current())
    client.close()


def test_what_is_seen_while_another_looks_is_not_missed(
    builds: _image_build.Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is refused the turn is looked for by the one that has it."""
    looks: list[str] = []

    def look() -> bool:
        looks.append(threading.current_thread().name)
        if len(looks) == 1:
            other = threading.Thread(target=builds._look, name="refused")
            other.start()
            other.join()
        return False

    monkeypatch.setattr(builds, "_look_once", look)

    builds._look()

    assert looks == [threading.current_thread().name] * 2


def test_an_error_of_one_look_is_found_by_the_others(
    builds: _image_build.Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[bool] = []

    def look() -> bool:
        raise ValueError("odd event")

    monkeypatch.setattr(builds, "_look_once", look)
    monkeypatch.setattr(builds, "_wake", lambda: woken.append(True))

    with pytest.raises(ValueError, match="odd event"):
        builds._look()

    assert woken == [True]


async def test_an_image_that_is_there_needs_no_connection_that_another_lost(
    builds: _image_build.Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = _image_build.Build("im-1", ImageBuild(ImageSpec(())), ())

    def look() -> bool:
        build.is_built = builds._is_lost = True
        return True

    monkeypatch.setattr(builds, "_look_once", look)

    await asyncio.wait_for(builds.finish(build), 5)

    assert builds._is_lost, "it is made again by who needs it"


def test_app_that_stops_ends_the_wait_for_a_server_that_is_away(builds: _image_build.Builds) -> None:
    build = under_way_and_lost(builds)
    ends: list[BaseException] = []

    def wait() -> None:
        try:
            run(builds.finish(build))
        except ImageBuildError as error:
            ends.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    wait_until_it_connects(builds)
    builds.close()

    thread.join(MEET_S)
    assert [STOPPED in str(error) for error in ends] == [True]


async def test_app_that_stops_ends_the_wait_for_a_server_in_an_event_loop(builds: _image_build.Builds) -> None:
    building = asyncio.create_task(builds.finish(under_way_and_lost(builds)))
    await asyncio.to_thread(wait_until_it_connects, builds)

    builds.close()

    with pytest.raises(ImageBuildError, match=STOPPED):
        await asyncio.wait_for(building, MEET_S)


def under_way_and_lost(builds: _image_build.Builds) -> _image_build.Build:
    build = _image_build.Build("im-1", ImageBuild(ImageSpec(())), ())
    builds._unfinished.append(build)
    builds._is_lost = True
    return build


def wait_until_it_connects(builds: _image_build.Builds) -> None:
    deadline = time.monotonic() + MEET_S
    while not (builds._waiting and builds._client._keeper._ready):
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.long
async def test_an_image_that_was_built_as_the_app_stopped_is_there(server: ServerDouble, image: squall.Image) -> None:
    """What has come is looked at before the rest is given up."""
    Watch(server)
    app = squall.App("short")
    async with app.run.aio():
        builds = app.running_builds("a test")
        build = await builds.begin(squall.Image.debian_slim().env({"NAME": "one"}), "of a test")
        while build.stream is not None and not build.stream.is_ended:  # noqa: ASYNC110 - by another thread
            await asyncio.sleep(0.001)
        assert not build.is_over, "nobody has looked yet"

    await builds.finish(build)

    assert build.is_built
