"""The agent against a server's end in memory, a runtime in memory and real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squall.agent import containers, outfit, record, relay, told_images
from squall.agent import exec as agent_exec
from squall.agent.image.block.manifest import ImageManifest
from squall.agent.image.block.stored import StoredImages
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.progress import BuiltImage
from squall.agent.ranges import IdRanges
from squall.agent.record import read_record
from squall.protocol import codec as wire
from squall.protocol.codec import STREAM_WINDOW
from squall.protocol.container import ContainerExec, TerminalInput, TerminalOutput
from squall.protocol.errors import PlatformError
from squall.protocol.frames import Frame
from squall.protocol.function import Resources
from squall.protocol.guest import ENV_CONTAINER_ID, ENV_TOKEN, SOCKET_DIR
from squall.protocol.ids import new_id
from squall.protocol.image import BuildEvent, ImageBuild, ImageConfig, ImageSpec, image_id
from squall.protocol.image_catalog import NodeGc, NodeImageGc
from squall.protocol.image_steps import debian_slim
from squall.protocol.mount import MountRef
from squall.protocol.node import NodeImagePut
from squall.runtime.contract import Started
from squall.runtime.errors import DescriptorsLost, FeatureMissing, ProgramMissing, RuntimeFailure, SubPathMissing
from squall.runtime.fake import FakeProcess, FakeRuntime
from squall.runtime.spec import NetworkSlot
from tests.agent.image.block.stores import store_in
from tests.agent.parts import CODEC, BuiltImages, Inbox, is_spread, make_config, until
from tests.agent.world import SPEC, World, make_start

pytestmark = pytest.mark.long


async def test_an_agent_introduces_its_node_and_reports(world: World) -> None:
    async with world.running(report_period_s=0.02):
        await until(lambda: world.server.reports)

    hello = world.server.hellos[0]
    assert (hello.node_id, hello.cpu_milli, hello.memory_mib, hello.containers) == ("nd-00000001", 2_000, 4_096, ())
    first = world.server.reports[0]
    assert 0 < first.memory_used_mib < first.memory_total_mib
    assert first.memory_total_mib == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20


async def test_image_that_is_put_is_told_and_one_that_another_has_put_takes_the_place_of_what_was_fetched(
    world: World, tmp_path: Path
) -> None:
    name, store = new_id("im"), store_in(tmp_path / "store")
    old, new = (ImageManifest(name, ImageConfig(layers=(new_id("ly"),)), (digit * 64,)) for digit in "12")
    holds = LayerHolds(LayerStore(world.data_dir))
    async with StoredImages(store, holds, world.data_dir) as stored:
        (world.data_dir / f"images/{name}.fetched").write_bytes(old.to_bytes())
        store.put_image(old)
        world.stored, world.server.is_down = stored, True
        async with world.running() as agent:
            # Nobody is there to hear it now.
            stored.on_put("im-first")
            world.server.is_down = False
            await agent.wait_connected()
            stored.on_put("im-second")
            await until(lambda: world.server.put_images == ["im-first", "im-second"])

            store.put_image(new)
            assert stored.fetched_ids() == (name,)
            world.server.peer.event("NodeImagePut", NodeImagePut(name))
            await until(lambda: stored.fetched_ids() == ())


async def test_each_server_is_told_which_images_are_here(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told_images, "NODE_IMAGES_MAX", 2)
    specs = [ImageSpec((debian_slim(version),)) for version in ("3.9", "3.10", "3.11")]
    async with world.running() as agent:
        for spec in specs:
            stream = world.server.peer.stream("NodeImageBuild", ImageBuild(spec))
            assert [record async for record, _ in stream.items(BuildEvent)]
        here = {image_id(spec) for spec in specs}
        told = world.server.told_images

        await world.server.peer.close()
        await until(lambda: not agent.is_connected)
        # The first server may have been told some of what was built after it had connected.
        await until(lambda: told[-1:] == [()] and {*sum(told[-3:], ())} == here)
    assert [len(ids) for ids in told[-3:]] == [2, 1, 0]

    # The next agent knows by what is on the disk, and says no image that is not whole.
    told.clear()
    world.images.gone.add(image_id(specs[0]))
    async with world.running():
        await until(lambda: told[-1:] == [()])
    assert [set(ids) for ids in told] == [here - {image_id(specs[0])}, set()]


async def test_what_is_told_of_images_was_looked_at_before_a_removal_or_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, looks, second = BuiltImages.find, [], threading.Event()
    is_second_in_time: list[bool] = []

    def find_late(images: BuiltImages, spec: ImageSpec) -> BuiltImage | None:
        looks.append(spec)
        if len(looks) > 1:
            second.set()
        else:
            # For the removal, which is not to begin: it would look as well.
            is_second_in_time.append(second.wait(1.0))
        return find(images, spec)

    async with world.running():
        await world.build()
    world.server.told_images.clear()
    monkeypatch.setattr(BuiltImages, "find", find_late)
    async with world.running():
        await until(lambda: looks)
        await world.server.peer.request("NodeImageGc", NodeImageGc(0.0), NodeGc)

    assert is_second_in_time == [False]
    assert world.server.told_images[0] == (image_id(SPEC),)


async def test_images_are_not_looked_at_for_a_connection_that_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, looks, may_find = BuiltImages.find, [], threading.Event()

    def find_late(images: BuiltImages, spec: ImageSpec) -> BuiltImage | None:
        looks.append(spec)
        may_find.wait(60)
        return find(images, spec)

    async with world.running():
        await world.build()
    world.server.told_images.clear()
    monkeypatch.setattr(BuiltImages, "find", find_late)
    async with world.running() as agent:
        try:
            for _ in range(9):
                await until(lambda: agent.is_connected)
                await world.server.peer.close()
                await until(lambda: not agent.is_connected)
            await until(lambda: agent.is_connected)
        finally:
            may_find.set()
        await until(lambda: world.server.told_images)

    # A thread that looks is not stopped by the end of its connection; what waits for one is.
    assert len(looks) <= 5


async def test_what_containers_write_is_apart(world: World) -> None:
    async with world.running():
        assert is_spread(world.data_dir / "containers")


async def test_a_container_starts_speaks_and_ends_and_nothing_is_left(world: World) -> None:
    async with world.running():
        await world.build()
        started = await world.start()
        await until(lambda: world.server.container_channels)
        inbox = Inbox()
        world.server.container_channels[0].start(inbox)
        await until(lambda: inbox.frames)
        assert b"ContainerHello" in inbox.frames[0].header

        world.server.container_channels[0].send(Frame(CODEC.encode(wire.EVENT, 0, "Exit", None), b""))
        await until(lambda: world.server.exits)

        exited = world.server.exits[0]
        assert (exited.container_id, exited.exit_code, exited.signal) == (started.container_id, 7, None)
        assert exited.memory_limit_mib == make_config(world.data_dir).memory_mib * 3 // 4
        # The last line was there before the exit was told.
        assert [entry.text for entry in world.server.lines] == ["hello from the guest", "last words"]
        assert {entry.container_id for entry in world.server.lines} == {started.container_id}
        assert not world.slots.held
        assert not world.machine.containers
    assert not world.left()


async def test_a_container_gets_what_its_function_says(world: World) -> None:
    mount_id = world.server.files.add({"app.py": b"print(1)\n"})
    async with world.running():
        await world.build()
        started = await world.start(
            mounts=(MountRef(mount_id, "/root"),),
            env={"MINE": "1", "http_proxy": "own", "PYTHONPATH": "/more", ENV_CONTAINER_ID: "forged"},
            resources=Resources(cpu_milli=1_500, memory_limit_mib=256),
        )
        spec = world.machine.containers[started.container_id].spec
        await world.end(started.container_id)

    assert spec.argv[:2] == ("/usr/bin/python3", "-u")
    assert spec.env["MINE"] == "1"
    assert spec.env["http_proxy"] == "own"
    assert spec.env["OMP_NUM_THREADS"] == "2"
    assert spec.env["PYTHONPATH"] == "/root:/run/squall/lib:/more"
    assert spec.env[ENV_CONTAINER_ID] == started.container_id
    assert spec.limits.memory_bytes == 256 * 2**20
    assert spec.limits.cpu_weight == 150
    assert spec.id_range.start >= 0x7800_0000
    assert {bind.target for bind in spec.binds} == {SOCKET_DIR, "/run/squall/lib"}
    assert all(bind.is_read_only for bind in spec.binds)
    assert (Path(spec.layers[-1]) / "root" / "app.py").read_text() == "print(1)\n"


async def test_the_token_is_in_no_file(world: World) -> None:
    async with world.running():
        await world.build()
        started = await world.start()
        token = world.machine.containers[started.container_id].spec.env[ENV_TOKEN]
        files = [path for path in world.data_dir.rglob("*") if path.is_file()]

        assert not [path for path in files if token.encode() in path.read_bytes()]
        for path in (world.data_dir / "containers").iterdir():
            assert path.stat().st_mode & 0o077 == 0
        await world.end(started.container_id)


async def test_an_end_is_told_and_the_rest_given_back_whatever_cannot_be(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(slot: NetworkSlot, *, is_spoiled: bool = False) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    async with world.running():
        await world.build()
        started = await world.start()
        monkeypatch.setattr(world.slots, "release", refuse)

        await world.end(started.container_id)

        assert [one.container_id for one in world.server.exits] == [started.container_id]
        assert f"{started.container_id}: cannot give back its network slot: [Errno 28] no space left" in caplog.text
        assert not world.agent.containers.running()
    assert world.left() == [started.container_id]  # its slot


async def test_what_the_runtime_cannot_remove_is_removed_later(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outfit, "REMOVE_AGAIN_S", (0.01,))
    async with world.running() as agent:
        await world.build()
        started = await world.start()
        container_id, owner = started.container_id, f"{started.app_id}/{started.function_id}"
        world.machine.remove_failures += [RuntimeFailure("a process waits for a disk")] * 1_000
        await world.end(container_id)

        # Meanwhile its end is told, and it has what nobody else may have.
        assert [one.container_id for one in world.server.exits] == [container_id]
        assert world.left() == [container_id] * 3
        assert agent.containers._services.ranges._owned[owner].users == 1
        assert "cannot give back what the runtime has: a process waits for a disk" in caplog.text
    # So it has when another agent comes, which cannot remove it either.
    async with world.running() as agent:
        assert world.left() == [container_id] * 3
        assert agent.containers._services.ranges._owned[owner].users == 1

        world.machine.remove_failures.clear()
        with contextlib.suppress(TimeoutError):
            await until(lambda: not world.left())
        assert not world.left()
        assert agent.containers._services.ranges._owned[owner].users == 0


async def test_ending_asks_first_and_kills_then(world: World) -> None:
    async def stubborn(process: FakeProcess) -> int:
        process.handled.add(signal.SIGTERM)
        await asyncio.sleep(60)
        return 0

    world.machine.programs["python3"] = stubborn
    async with world.running():
        await world.build()
        started = await world.start()

        await world.end(started.container_id, grace_s=0.1)

        assert world.server.exits[0].signal == signal.SIGKILL
        await world.end(started.container_id)
        await world.end(new_id("ct"))
    assert not world.left()


async def test_two_hundred_containers_start_and_end_at_once(world: World) -> None:
    async with world.running():
        await world.build()
        started = await asyncio.gather(*(world.start(function_id=f"fu-{n % 7:08}") for n in range(200)))
        assert len(world.agent.containers.running()) == 200
        ranges = {world.machine.containers[one.container_id].spec.id_range.start for one in started}
        assert len(ranges) == 7

        await asyncio.gather(*(world.end(one.container_id) for one in started))

        assert len(world.server.exits) == 200
    assert not world.left()


@pytest.mark.parametrize(
    ("failure", "code"),
    [(RuntimeFailure("cannot mount"), "unavailable"), (FeatureMissing("no overlayfs; load it"), "unsupported")],
)
async def test_a_start_that_fails_says_why_and_leaves_nothing(world: World, failure: RuntimeFailure, code: str) -> None:
    world.machine.start_failures.append(failure)
    async with world.running():
        await world.build()

        with pytest.raises(PlatformError, match=failure.message) as caught:
            await world.start()

        assert caught.value.code == code
        assert not world.agent.containers.running()
        await world.start()
        await world.agent.end_all(0.0)
    assert not world.left()
    assert len(world.server.exits) == 1


async def test_an_image_without_python_is_told_once_and_for_good(world: World) -> None:
    start = make_start()
    cause = "cannot execute /usr/bin/python3: no such program there; is it part of the image?"
    world.machine.start_failures.append(ProgramMissing(f"cannot start container {start.container_id}: {cause}"))
    async with world.running():
        await world.build()

        with pytest.raises(PlatformError) as caught:
            await world.agent.containers.start(start)

    assert caught.value.code == "invalid"
    assert caught.value.message == (
        f"cannot start container {start.container_id}: image {image_id(SPEC)} cannot run its Python (cannot execute "
        "/usr/bin/python3: no such program there); see that its steps neither remove nor replace the base's Python, "
        "and that its entrypoint is there"
    )
    assert not world.left()


async def test_a_volume_without_the_part_that_is_to_be_mounted_is_told_once_and_for_good(world: World) -> None:
    world.machine.start_failures.append(
        SubPathMissing("cannot mount volume /x: it has no directory 'in'; put it there")
    )
    async with world.running():
        await world.build()

        with pytest.raises(PlatformError, match="cannot mount volume /x: it has no directory 'in'; put it") as caught:
            await world.start()

    assert caught.value.code == "invalid"
    assert not world.left()


async def test_an_image_or_mount_that_is_not_there_is_named(world: World) -> None:
    async with world.running():
        with pytest.raises(PlatformError, match=image_id(SPEC)) as no_image:
            await world.start()
        await world.build()
        with pytest.raises(PlatformError, match="mo-gone") as no_mount:
            await world.start(mounts=(MountRef("mo-gone", "/root"),))

    assert (no_image.value.code, no_mount.value.code) == ("not_found", "not_found")
    assert not world.left()


async def test_starting_a_container_twice_starts_it_once(world: World) -> None:
    async with world.running():
        await world.build()
        started = await world.start()

        again = await world.start(container_id=started.container_id)

        assert again.container_id == started.container_id
        assert len(world.machine.containers) == 1
        await world.end(started.container_id)


async def test_a_lost_server_is_found_again_and_told_what_happened_meanwhile(world: World) -> None:
    async with world.running():
        await world.build()
        kept, ended = await world.start(), await world.start()
        world.server.is_down = True
        await world.server.peer.close()
        await until(lambda: not world.agent.is_connected)

        await FakeRuntime(world.machine).kill(ended.container_id, signal.SIGKILL)
        await until(lambda: ended.container_id not in world.machine.containers)
        assert world.agent.containers.is_running(kept.container_id)
        world.server.is_down = False
        await asyncio.wait_for(world.agent.wait_connected(), 10)
        await until(lambda: world.server.exits)

        assert [known.container_id for known in world.server.hellos[-1].containers] == [kept.container_id]
        assert [exited.container_id for exited in world.server.exits] == [ended.container_id]
        await world.end(kept.container_id)


async def test_the_next_agent_adopts_containers_their_sockets_slots_and_ranges(world: World) -> None:
    async with world.running():
        await world.build()
        started = await world.start()
        await until(lambda: len(world.server.container_channels) == 1)

    async with world.running():
        hello = world.server.hellos[-1]
        assert [(one.container_id, one.app_id, one.function_id) for one in hello.containers] == [
            (started.container_id, started.app_id, started.function_id)
        ]
        # The guest has come back through the new agent's socket with its old token.
        await until(lambda: len(world.server.container_channels) == 2)
        other = await world.start(function_id="fu-00000002")
        specs = world.machine.containers
        assert specs[started.container_id].spec.id_range != specs[other.container_id].spec.id_range
        assert set(world.slots.held) == {started.container_id, other.container_id}
        await world.agent.end_all(0.0)
        assert len(world.server.exits) == 2
    assert not world.left()


@pytest.mark.parametrize("lack", ["sockets", "pipes", "ranges", "sense"])
async def test_no_container_is_ended_for_what_the_next_agent_lacks(
    world: World, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    """It is taken over when there is enough again, and what it has is nobody else's meanwhile."""
    async with world.running():
        await world.build()
        started = await world.start()
        await until(lambda: len(world.server.container_channels) == 1)
    enough = asyncio.Event()

    def lacking(call: Callable[..., Any], error: Exception) -> Callable[..., Any]:
        def ask(*args: Any) -> Any:
            if not enough.is_set():
                raise error
            return call(*args)

        return ask

    monkeypatch.setattr(containers, "ADOPT_AGAIN_S", (0.01, 0.01))
    no_more = OSError(errno.EMFILE, "too many open files")
    if lack == "sockets":
        monkeypatch.setattr(relay, "listen_in", lacking(relay.listen_in, no_more))
    elif lack == "pipes":
        monkeypatch.setattr(FakeRuntime, "adopt", lacking(FakeRuntime.adopt, DescriptorsLost("no more files")))
    elif lack == "sense":
        monkeypatch.setattr(FakeRuntime, "adopt", lacking(FakeRuntime.adopt, ValueError("a mistake of ours")))
    else:
        monkeypatch.setattr(IdRanges, "acquire", lacking(IdRanges.acquire, no_more))

    async with world.running():
        assert not world.server.hellos[-1].containers
        assert set(world.slots.held) == set(world.machine.containers) == {started.container_id}
        enough.set()
        await until(lambda: world.agent.containers.is_running(started.container_id))
        await until(lambda: len(world.server.container_channels) == 2)
        await world.agent.end_all(0.0)
        assert [one.container_id for one in world.server.exits] == [started.container_id]
    assert not world.left()


@pytest.mark.parametrize("is_taken_at_once", [True, False])
async def test_an_agent_that_can_open_no_more_files_for_a_while_takes_all_over(
    world: World, monkeypatch: pytest.MonkeyPatch, is_taken_at_once: bool
) -> None:
    async with world.running():
        await world.build()
        running = {(await world.start()).container_id for _ in range(2)}
    listen_in, lacks, is_out = relay.listen_in, 3, is_taken_at_once

    def listen(*args: Any) -> Any:
        nonlocal is_out
        if not is_taken_at_once and lacks:
            is_out = True
            raise OSError(errno.EMFILE, "too many open files")
        return listen_in(*args)

    def read(directory: Path) -> Any:
        nonlocal lacks
        if is_out and lacks:
            lacks -= 1
            raise OSError(errno.ENFILE, "too many open files in the system")
        return read_record(directory)

    monkeypatch.setattr(record, "READ_AGAIN_S", 0.0)
    monkeypatch.setattr(containers, "ADOPT_AGAIN_S", (0.01, 0.01))
    monkeypatch.setattr(record, "read_record", read)
    monkeypatch.setattr(relay, "listen_in", listen)
    async with world.running() as agent:
        # Where sockets take the last files that can be opened, all records have been read.
        assert lacks == (0 if is_taken_at_once else 3)
        lacks = 0
        await until(lambda: all(map(agent.containers.is_running, running)))
        await agent.end_all(0.0)
    assert not world.left()


async def test_what_cannot_be_adopted_yet_ends_with_its_node(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.running():
        await world.build()
        await world.start()

    async def lost(runtime: FakeRuntime, container_id: str) -> Started:
        raise DescriptorsLost("no more files")

    monkeypatch.setattr(containers, "ADOPT_AGAIN_S", (1_000.0, 1_000.0))
    monkeypatch.setattr(FakeRuntime, "adopt", lost)
    async with world.running():
        await world.agent.end_all(0.0)
    assert not world.left()


async def test_what_an_earlier_agent_has_left_and_cannot_be_removed_is_no_reason_not_to_begin(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left = [world.data_dir / "containers" / new_id("ct") for _ in range(3)]
    for one in left:
        one.mkdir(parents=True)
    remove = FakeRuntime.remove

    async def refuse_one(runtime: FakeRuntime, container_id: str) -> None:
        if container_id == left[1].name:
            raise RuntimeFailure("busy")
        await remove(runtime, container_id)

    monkeypatch.setattr(FakeRuntime, "remove", refuse_one)
    async with world.running():
        assert f"{left[1].name}: cannot be removed: busy" in caplog.text
    assert world.left() == [left[1].name]


async def test_a_node_that_is_taken_down_ends_what_is_starting_and_starts_nothing_more(world: World) -> None:
    async with world.running():
        await world.build()
        starting = asyncio.ensure_future(world.start())
        await until(lambda: world.slots.held)

        await world.agent.end_all(0.0)

        assert not world.machine.containers
        with pytest.raises(PlatformError, match="taken down"):
            await world.start()
        await asyncio.gather(starting, return_exceptions=True)
        assert not world.slots.held
    assert not world.left()


async def test_what_ended_while_no_agent_was_there_is_told_with_its_last_lines(world: World) -> None:
    async with world.running():
        await world.build()
        started = await world.start()
        await until(lambda: world.server.lines)
    world.server.lines.clear()
    process = world.machine.containers[started.container_id].first.process
    await process.write(b"while nobody read\n")
    await FakeRuntime(world.machine).kill(started.container_id, signal.SIGKILL)
    await asyncio.sleep(0.01)

    async with world.running():
        await until(lambda: world.server.exits)

        assert world.server.exits[0].container_id == started.container_id
        assert [entry.text for entry in world.server.lines] == ["while nobody read"]
    assert not world.left()


async def test_containers_the_server_does_not_want_are_ended(world: World) -> None:
    async with world.running():
        await world.build()
        started = await world.start()
    world.server.unwanted = (started.container_id,)

    async with world.running():
        await until(lambda: world.server.exits)
    assert not world.left()


async def test_leftovers_without_a_container_are_swept(world: World) -> None:
    async with world.running():
        await world.build()
        started = await world.start()
    await FakeRuntime(world.machine).remove(started.container_id)
    half_made = world.data_dir / "containers" / new_id("ct")
    half_made.mkdir()

    async with world.running():
        assert not world.agent.containers.running()
    assert not world.left()


async def test_a_container_without_a_record_is_removed(world: World) -> None:
    async with world.running():
        await world.build()
        started = await world.start()
    (world.data_dir / "containers" / started.container_id / "agent.json").write_text("{")

    async with world.running():
        assert not world.server.hellos[-1].containers
    assert not world.left()


async def test_a_build_is_streamed_and_its_image_found_by_the_next_agent(world: World) -> None:
    async with world.running():
        events = await world.build()

    assert [event.kind for event in events] == ["step", "line", "built"]
    assert events[-1].image_id == image_id(SPEC)
    async with world.running():
        started = await world.start()
        await world.end(started.container_id)
    assert len(world.images.built) == 1


async def test_a_command_runs_in_a_container_and_its_output_and_code_come_back(world: World) -> None:
    async with world.running():
        await world.build()
        started = await world.start()

        stream = world.server.peer.stream("NodeExec", ContainerExec(started.container_id, ("cat",)))
        stream.send(TerminalInput(), b"some input")
        stream.send(TerminalInput(is_end=True))
        items = [item async for item in stream.items(TerminalOutput)]

        assert b"".join(body for _, body in items) == b"some input"
        assert items[-1][0].exit_code == 0
        failed = world.server.peer.stream("NodeExec", ContainerExec(started.container_id, ("false",)))
        assert [item.exit_code async for item, _ in failed.items(TerminalOutput)] == [1]
        missing = world.server.peer.stream("NodeExec", ContainerExec(started.container_id, ("no-such",)))
        (line, code) = [item async for item in missing.items(TerminalOutput)]
        assert (line[0].source, code[0].exit_code) == ("stderr", 127)
        assert b"no-such" in line[1]
        gone = world.server.peer.stream("NodeExec", ContainerExec(new_id("ct"), ("true",)))
        with pytest.raises(PlatformError, match="no such container"):
            await gone.next(TerminalOutput)
        await world.end(started.container_id)


async def test_a_commands_last_output_waits_for_a_reader_that_is_slow(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the pipe were large, and full.
    monkeypatch.setattr(agent_exec, "READ_BYTES", 16)

    async def print_and_end(process: FakeProcess) -> int:
        for number in range(10 * STREAM_WINDOW):
            await process.write(f"line {number}\n".encode())
            await asyncio.sleep(0.001)
        return 0

    world.machine.programs["print"] = print_and_end
    async with world.running():
        await world.build()
        started = await world.start()
        stream = world.server.peer.stream("NodeExec", ContainerExec(started.container_id, ("print",)))
        await until(lambda: [one for one in world.machine.execs.values() if one.ended.done()])

        await asyncio.sleep(agent_exec.LAST_OUTPUT_S + 0.5)

        items = [item async for item in stream.items(TerminalOutput)]
        assert b"".join(body for _, body in items).endswith(f"line {10 * STREAM_WINDOW - 1}\n".encode())
        assert items[-1][0].exit_code == 0
        await world.end(started.container_id)


async def test_a_command_ends_though_its_child_prints_for_ever(world: World) -> None:
    async def leave_a_child(process: FakeProcess) -> int:
        descriptor = os.dup(process.outputs[0])
        os.set_blocking(descriptor, False)
        printing.append(asyncio.ensure_future(print_for_ever(descriptor)))
        return 3

    async def print_for_ever(descriptor: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            while True:
                with contextlib.suppress(BlockingIOError):
                    os.write(descriptor, b"again\n")
                await asyncio.sleep(0.005)
        os.close(descriptor)

    printing: list[asyncio.Future[None]] = []
    world.machine.programs["leave"] = leave_a_child
    async with world.running():
        await world.build()
        started = await world.start()

        stream = world.server.peer.stream("NodeExec", ContainerExec(started.container_id, ("leave",)))
        items = [item async for item in stream.items(TerminalOutput)]

        assert items[-1][0].exit_code == 3
        await asyncio.wait_for(printing[0], 10)
        await world.end(started.container_id)


async def test_a_given_up_command_leaves_no_descriptor(world: World) -> None:
    async with world.running():
        await world.build()
        started = await world.start()
        before = len(os.listdir("/proc/self/fd"))

        stream = world.server.peer.stream("NodeExec", ContainerExec(started.container_id, ("sleep", "60")))
        await until(lambda: world.machine.execs)
        stream.cancel()

        # The fake's own ends of the three pipes stay with its process.
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 3)
        await world.end(started.container_id)
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_a_hundred_containers_leave_no_descriptor(world: World) -> None:
    async with world.running():
        await world.build()
        first = await world.start()
        await world.end(first.container_id)
        await asyncio.sleep(0.05)
        before = len(os.listdir("/proc/self/fd"))

        for _ in range(5):
            started = await asyncio.gather(*(world.start() for _ in range(20)))
            await asyncio.gather(*(world.end(one.container_id) for one in started))
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_a_container_over_its_disk_limit_is_killed_until_it_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "KILL_AGAIN_S", (0.01, 0.02))
    async with world.running():
        await world.build()
        started = await world.start(resources=Resources(disk_mib=1))
        world.machine.kill_failures += [RuntimeFailure("the spawner does not answer")] * 3
        folder = world.data_dir / "containers" / started.container_id / "rw"
        folder.mkdir(exist_ok=True)

        (folder / "file").write_bytes(bytes(2 * 2**20))
        await until(lambda: world.server.exits)

        assert "its limit is 1 MiB" in world.server.exits[0].over_disk
        assert not world.machine.kill_failures
    assert not world.left()
