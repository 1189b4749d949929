"""Before a container is started, the versions of its volumes are fetched, however long that takes."""

from __future__ import annotations

from squall.protocol.errors import EXHAUSTED, PlatformError
from squall.protocol.volume import VolumeMount, VolumesFetched
from squall.server.dispatch.fleet import starts
from tests.server.dispatch.asset.test_volumes import make_volume, put_files
from tests.server.doubles import Stage, staged


async def started(stage: Stage, name: str = "f", files: int = 1) -> str:
    """The volume of a function that wants a container."""
    volume_id = await make_volume(stage.client, name)
    for number in range(files):
        await put_files(stage.client, volume_id, f"file-{number}", data=name.encode())
    await stage.client.function(min_containers=1, volumes=(VolumeMount(volume_id, "/data"),))
    return volume_id


async def test_what_a_container_needs_is_fetched_once_before_it_is_started() -> None:
    async with staged() as stage:
        volume_id = await started(stage)
        await stage.until(lambda: len(stage.node.guests) == 1)
        assert stage.node.fetched == [volume_id]

        await stage.client.function(min_containers=1, volumes=(VolumeMount(volume_id, "/data"),))
        await stage.until(lambda: len(stage.node.guests) == 2)
        assert stage.node.fetched == [volume_id], "it has that version"
        await put_files(stage.client, volume_id, "another")
        await stage.client.function(min_containers=1, volumes=(VolumeMount(volume_id, "/data"),))
        await stage.until(lambda: len(stage.node.guests) == 3)
        assert stage.node.fetched == [volume_id] * 2


async def test_nothing_is_fetched_of_an_empty_volume() -> None:
    async with staged() as stage:
        await started(stage, files=0)
        await stage.until(lambda: len(stage.node.guests) == 1)
        assert not stage.node.fetched


async def test_it_is_said_now_and_then_how_far_it_is() -> None:
    async with staged() as stage:
        stage.node.fetching = [VolumesFetched(number * 10**9, 10 * 10**9) for number in range(3)]
        stage.node.on_fetching = lambda: stage.clock.advance(starts.FETCH_SAID_S * 0.6)
        await started(stage)
        await stage.until(lambda: len(stage.node.guests) == 1)
        said = [one.text for one in stage.logs.entries if one.text.startswith("volumes:")]
        assert said == ["volumes: 1.0 of 10.0 GB are on its node; it starts with all of it"]


async def test_a_node_without_room_for_them_starts_nothing_and_is_asked_again_which_is_said_once() -> None:
    async with staged() as stage:
        stage.node.fetch_failure = PlatformError(EXHAUSTED, "a volume needs 5 MiB more on this node")
        volume_id = await started(stage)
        await stage.until(lambda: stage.node.fetched == [volume_id])
        assert not stage.node.guests
        for count in range(starts.SAID_REFUSALS):
            await stage.until(lambda count=count: len(stage.node.fetched) > count)  # type: ignore[misc]
        await stage.until(lambda: [one for one in stage.logs.entries if "tried again" in one.text])
        said = [one.text for one in stage.logs.entries if "tried again" in one.text]
        assert said == ["it cannot be started now, and is tried again: a volume needs 5 MiB more on this node"]
        stage.node.fetch_failure = None
        await stage.until(lambda: len(stage.node.guests) == 1)
