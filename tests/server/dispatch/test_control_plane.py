"""The control plane as its callers see it: greeting, rights, streams, the HTTP twin, nested calls."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest

from squall.protocol.app import AppList, AppListing, AppStop, AppStopped
from squall.protocol.blob import BlobChunk, BlobGet, BlobMissing, BlobPut, BlobStat
from squall.protocol.codec import STREAM_WINDOW
from squall.protocol.container import (
    ContainerExec,
    ContainerList,
    ContainerListing,
    ContainerStop,
    TerminalInput,
    TerminalOffer,
    TerminalOutput,
)
from squall.protocol.empty import Empty
from squall.protocol.errors import PlatformError
from squall.protocol.function import FunctionCreate, FunctionCreated, FunctionStats, FunctionStatsGet
from squall.protocol.guest import TerminalData, TerminalOpen
from squall.protocol.ids import input_id, new_id
from squall.protocol.image import BuildEvent, ImageBuild, ImageSpec
from squall.protocol.image_steps import debian_slim, run_commands
from squall.protocol.log import LogBatch, LogEntry, LogRead
from squall.protocol.mount import MountCreate, MountCreated, MountFile, MountGet, MountManifest
from squall.protocol.node import NodeReport
from squall.protocol.server import Hello, ServerStatus, ServerStatusRequest, ServerStop, Welcome
from squall.protocol.stream import Stream
from squall.protocol.version import VERSION
from squall.server.model.config import ServerConfig
from tests.server.doubles import FakeClient, FakeGuest, make_spec, settle, staged


async def forever(guest: FakeGuest, value: bytes) -> bytes:
    await asyncio.Event().wait()
    return value


async def test_client_of_a_far_version_is_refused_by_name() -> None:
    async with staged() as stage:
        with pytest.raises(PlatformError, match="update the server") as refused:
            await stage.client.ask("Hello", Hello("9.0", 9, stage.client.client_id), Welcome)

        assert refused.value.code == "conflict"


async def test_server_is_idle_only_without_apps_and_clients() -> None:
    async with staged() as stage:
        was_idle = [stage.plane.is_idle]
        stage.client.disconnect()
        await settle()
        was_idle.append(stage.plane.is_idle)
        await stage.client.connect()
        app_id = await stage.client.app()
        stage.client.disconnect()
        await settle()
        was_idle.append(stage.plane.is_idle)
        await stage.plane.answer("AppStop", AppStop(app_id))
        was_idle.append(stage.plane.is_idle)

        assert was_idle == [False, True, False, True]


async def test_status_counts_apps_containers_clients_and_nodes() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        await stage.done(stage.client.call(spec.function_id, 1), 1)

        status = await stage.client.ask("ServerStatus", ServerStatusRequest(), ServerStatus)

        assert (status.app_count, status.container_count, status.client_count, status.node_count) == (1, 1, 1, 1)
        assert status.version == VERSION


async def test_nested_calls_do_not_deadlock_a_full_node() -> None:
    async with staged(cpu_milli=1_000) as stage:
        app_id = await stage.client.app()
        outer = make_spec(app_id, "outer", cpu_milli=1_000, max_containers=1)
        middle = make_spec(app_id, "middle", cpu_milli=1_000, max_containers=1)
        inner = make_spec(app_id, "inner", cpu_milli=1_000, max_containers=1)
        await stage.client.ask("FunctionCreate", FunctionCreate((outer, middle, inner)), FunctionCreated)
        below = {outer.function_id: middle.function_id, middle.function_id: inner.function_id}

        async def call_below(guest: FakeGuest, value: bytes) -> bytes:
            if guest.function_id not in below:
                return value + b"!"
            client = await FakeClient(stage.plane, stage.codec).connect_inside(guest.container_id)
            (call_id, index), *_ = guest.running
            call = client.call(below[guest.function_id], int(value), parent=input_id(call_id, index))
            while not call.outputs:  # noqa: ASYNC110 - the test's clock decides when
                await asyncio.sleep(0)
            client.close_call(call)
            await settle(5)
            client.disconnect()
            return call.outputs[0].value

        stage.node.run = call_below
        call = stage.client.call(outer.function_id, 1)
        await stage.pass_time(3.0)

        assert call.outputs[0].value == b"1!"
        assert len(stage.node.guests) == 3


async def test_idle_containers_make_room_for_a_function_that_has_none() -> None:
    async with staged(cpu_milli=1_000) as stage:
        app_id = await stage.client.app()
        first = make_spec(app_id, "first", cpu_milli=1_000)
        second = make_spec(app_id, "second", cpu_milli=1_000)
        await stage.client.ask("FunctionCreate", FunctionCreate((first, second)), FunctionCreated)
        await stage.done(stage.client.call(first.function_id, 1), 1)

        outputs = await stage.done(stage.client.call(second.function_id, 2), 1)

        assert outputs[0].value == b"4"


async def test_idle_containers_leave_a_node_that_is_short_of_memory() -> None:
    async with staged() as stage:
        for _ in range(2):
            spec = await stage.client.function()
            await stage.done(stage.client.call(spec.function_id, 1), 1)
            await stage.pass_time(1.0)
        oldest = stage.node.started[0].container_id

        stage.node.tell("NodeReport", NodeReport(0, 8_000, 1_000, 2))
        await stage.pass_time(5.0, 0.5)

        assert list(stage.node.guests) == [oldest]


@pytest.mark.parametrize(("used_mib", "left"), [(10_000, 1), (63_000, 0)])
async def test_what_others_use_of_a_machine_that_has_it_is_no_shortage_of_its_node(used_mib: int, left: int) -> None:
    async with staged(memory_mib=8_192) as stage:
        spec = await stage.client.function(scaledown_window_s=600.0)
        await stage.done(stage.client.call(spec.function_id, 1), 1)

        stage.node.tell("NodeReport", NodeReport(0, used_mib, 1_000, 1, memory_total_mib=65_536))
        await stage.pass_time(3.0, 0.5)

        assert len(stage.node.guests) == left


async def test_request_that_fits_no_node_fails_and_says_what_there_is() -> None:
    async with staged(cpu_milli=1_000) as stage:
        spec = await stage.client.function(cpu_milli=64_000)

        outputs = await stage.done(stage.client.call(spec.function_id, 1), 1)

        assert "largest has 1 cores" in outputs[0].failure.message


async def until(event: asyncio.Event, value: bytes) -> bytes:
    await event.wait()
    return value


async def test_containers_that_found_no_room_and_are_no_longer_wanted_leave_no_line() -> None:
    async with staged(cpu_milli=1_000) as stage:
        spec = await stage.client.function(cpu_milli=1_000)
        held = asyncio.Event()
        stage.node.run = lambda guest, value: until(held, value)
        call = stage.client.call(spec.function_id, 1, 2, 3, 4)
        await stage.pass_time(1.0)

        held.set()
        await stage.done(call, 4)
        await stage.pass_time(2.0)

        listing = await stage.client.ask("ContainerList", ContainerList(include_stopped=True), ContainerListing)
        assert {"no longer wanted"} == {one.exit_reason for one in listing.containers if one.state == "stopped"}
        assert not [entry.text for entry in stage.logs.entries if entry.source == "system"]


async def test_container_may_use_its_own_app_only() -> None:
    async with staged() as stage:
        mine = await stage.client.function(min_containers=1)
        other = await stage.client.function()
        await stage.until(lambda: stage.node.started)
        inside = await FakeClient(stage.plane, stage.codec).connect_inside(stage.node.started[0].container_id)

        stats = await inside.ask("FunctionStats", FunctionStatsGet(mine.function_id), FunctionStats)
        refused = inside.call(other.function_id, 1)
        await stage.done(refused, 1)
        for method, record, reply in (
            ("FunctionStats", FunctionStatsGet(other.function_id), FunctionStats),
            ("ServerStop", ServerStop(is_forced=True), Empty),
            ("AppStop", AppStop(other.app_id), Empty),
            ("AppList", AppList(), AppListing),
            ("ContainerStop", ContainerStop(stage.node.started[0].container_id), Empty),
        ):
            with pytest.raises(PlatformError) as error:
                await inside.ask(method, record, reply)
            assert error.value.code == "forbidden", method

        assert stats.container_count == 1
        assert "own app" in refused.outputs[0].failure.message


async def test_unknown_container_is_turned_away() -> None:
    async with staged() as stage:
        stranger = FakeGuest(stage.node, new_id("ct"), "fu-none")
        await stranger.connect()
        await settle()

        assert stranger.peer is not None
        assert stranger.peer.is_closed
        assert stranger.boot is None


async def test_request_before_hello_is_refused() -> None:
    async with staged() as stage:
        nobody = FakeClient(stage.plane, stage.codec)
        with pytest.raises(PlatformError) as refused:
            await nobody.connect_without_hello().ask("AppList", AppList(), AppListing)

        assert refused.value.code == "unauthenticated"


async def test_blobs_and_mounts_pass_through() -> None:
    async with staged() as stage:
        data = b"print('hello')"
        sha256 = hashlib.sha256(data).hexdigest()
        manifest = MountManifest((MountFile("hello.py", sha256, len(data)),))

        created = await stage.client.ask("MountCreate", MountCreate(manifest), MountCreated)
        await stage.client.ask("BlobPut", BlobPut(sha256, len(data)), Empty, data)
        missing = await stage.client.ask("BlobStat", BlobStat((sha256,)), BlobMissing)
        assert stage.node.peer is not None
        laid_out = await stage.node.peer.request("MountGet", MountGet(created.mount_id), MountManifest)
        chunk, body = await stage.node.peer.request_with_body("BlobGet", BlobGet(sha256), BlobChunk)

        assert created.missing_sha256s == (sha256,)
        assert missing.sha256s == ()
        assert laid_out == manifest
        assert (chunk.size_bytes, body) == (len(data), data)


async def test_of_a_file_in_blocks_those_are_asked_for_that_are_not_there() -> None:
    async with staged() as stage:
        blocks = [b"first", b"second", b"first"]
        names = [hashlib.sha256(block).hexdigest() for block in blocks]
        file = MountFile("data.bin", hashlib.sha256(b"".join(blocks)).hexdigest(), 16, blocks=tuple(names))
        await stage.client.ask("BlobPut", BlobPut(names[0], 5), Empty, blocks[0])

        created = await stage.client.ask("MountCreate", MountCreate(MountManifest((file,))), MountCreated)

        assert created.missing_sha256s == (names[1],)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../b", "", "a//b", "./a"])
async def test_mount_cannot_leave_its_target(path: str) -> None:
    manifest = MountManifest((MountFile(path, "0" * 64, 1),))

    async with staged() as stage:
        with pytest.raises(PlatformError, match="relative path"):
            await stage.client.ask("MountCreate", MountCreate(manifest), MountCreated)


async def test_two_builds_of_one_image_are_one() -> None:
    async with staged() as stage:
        assert stage.client.peer is not None
        stage.node.build_gate.clear()
        record = ImageBuild(ImageSpec((debian_slim("3.11"),)))

        async def build() -> list[str]:
            assert stage.client.peer is not None
            stream = stage.client.peer.stream("ImageBuild", record)
            return [event.kind async for event, _ in stream.items(BuildEvent)]

        one, two = asyncio.ensure_future(build()), asyncio.ensure_future(build())
        await settle()
        stage.node.build_gate.set()

        assert await one == await two == ["step", "built"]
        assert stage.node.builds == 1


async def test_build_goes_on_when_its_agent_is_back() -> None:
    async with staged() as stage:
        stage.node.build_gate.clear()
        record = ImageBuild(ImageSpec((debian_slim("3.11"),)))
        assert stage.client.peer is not None
        stream = stage.client.peer.stream("ImageBuild", record)
        building = asyncio.ensure_future(_kinds(stream))
        await settle()
        assert stage.node.builds == 1
        assert stage.node.peer is not None

        stage.node.peer.channel.close()
        await settle()
        stage.node.build_gate.set()
        await stage.node.connect()

        assert await building == ["step", "step", "built"]
        assert stage.node.builds == 2


async def test_build_that_is_given_up_is_joined_by_nobody() -> None:
    async with staged() as stage:
        stage.node.build_gate.clear()
        record = ImageBuild(ImageSpec((debian_slim("3.11"),)))
        first: Any = stage.plane.images.build(record)
        assert (await first.__anext__()).kind == "step"

        # In the same turn of the loop: the client is gone, and back.
        await first.aclose()
        second = stage.plane.images.build(record)
        stage.node.build_gate.set()

        assert [event.kind async for event in second] == ["step", "built"]
        assert stage.node.builds == 2


async def _kinds(stream: Stream) -> list[str]:
    return [event.kind async for event, _ in stream.items(BuildEvent)]


async def test_builds_of_one_image_with_other_secrets_are_two() -> None:
    async with staged() as stage:
        stage.node.build_gate.clear()

        async def build(token: str) -> list[str]:
            assert stage.client.peer is not None
            record = ImageBuild(ImageSpec((debian_slim("3.11"),)), secrets={"0": {"TOKEN": token}})
            stream = stage.client.peer.stream("ImageBuild", record)
            return [event.kind async for event, _ in stream.items(BuildEvent)]

        builds = [asyncio.ensure_future(build(token)) for token in ("right", "wrong", "right")]
        await settle()
        stage.node.build_gate.set()

        assert await asyncio.gather(*builds) == [["step", "built"]] * 3
        assert stage.node.builds == 2


async def test_builds_that_force_other_steps_or_are_of_another_run_are_builds_of_their_own() -> None:
    async with staged() as stage:
        stage.node.build_gate.clear()
        steps = (debian_slim("3.11"), run_commands(("make it",)))
        forced = [
            steps,
            (replace(steps[0], force_build=True), steps[1]),
            (steps[0], replace(steps[1], force_build=True)),
        ]

        async def build(spec: ImageSpec, run_id: str) -> list[str]:
            assert stage.client.peer is not None
            stream = stage.client.peer.stream("ImageBuild", ImageBuild(spec, run_id=run_id))
            return [event.kind async for event, _ in stream.items(BuildEvent)]

        asked = [*((one, "first") for one in (*forced, forced[1])), (forced[1], "second"), (steps, "second")]
        builds = [asyncio.ensure_future(build(ImageSpec(one), run_id)) for one, run_id in asked]
        await settle()
        stage.node.build_gate.set()
        await asyncio.gather(*builds)

        assert stage.node.builds == 4


async def test_wrong_image_is_refused_before_any_node_hears_of_it() -> None:
    async with staged() as stage:
        assert stage.client.peer is not None
        with pytest.raises(PlatformError) as refused:
            await stage.client.peer.stream("ImageBuild", ImageBuild(ImageSpec(()))).next(BuildEvent)

        assert refused.value.code == "invalid"
        assert stage.node.builds == 0


async def test_log_lines_are_filed_under_their_app() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.started)
        container_id = stage.node.started[0].container_id

        line = LogEntry(1.0, "stdout", "squaring 7", container_id, app_id="ap-forged")
        stage.node.tell("Logs", LogBatch((line, LogEntry(1.0, "stdout", "nobody's", "ct-unknown"))))
        await settle()
        assert stage.client.peer is not None
        stream = stage.client.peer.stream("LogRead", LogRead(app="hello"))
        entries = [entry async for batch, _ in stream.items(LogBatch) for entry in batch.entries]

        assert [(one.text, one.app_id, one.function_id) for one in entries] == [
            ("squaring 7", spec.app_id, spec.function_id)
        ]


async def test_log_of_a_container_that_never_was_is_not_found() -> None:
    async with staged() as stage:
        assert stage.client.peer is not None

        stream = stage.client.peer.stream("LogRead", LogRead(container_id=new_id("ct")))
        with pytest.raises(PlatformError, match="there is no container") as refused:
            await stream.next(LogBatch)

        assert refused.value.code == "not_found"


async def test_command_runs_in_a_container() -> None:
    async with staged() as stage:
        await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.started)
        assert stage.client.peer is not None

        stream = stage.client.peer.stream("ContainerExec", ContainerExec(stage.node.started[0].container_id, ("ls",)))
        items = [(item.exit_code, body) async for item, body in stream.items(TerminalOutput)]

        assert items == [(None, b"hello from inside\n"), (0, b"")]


async def test_breakpoint_finds_the_clients_terminal() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.started)
        guest = stage.node.started[0]
        assert stage.client.peer is not None
        guest.tell("TerminalOpen", TerminalOpen())
        await settle()
        assert "squall run -i" in guest.terminal[0][0].message

        stream = stage.client.peer.stream("TerminalOffer", TerminalOffer(spec.app_id, 50, 120))
        await settle()
        guest.tell("TerminalOpen", TerminalOpen())
        guest.tell("TerminalData", TerminalData(), b"(Pdb) ")
        await settle()
        shown = await stream.next(TerminalOutput)
        stream.send(TerminalInput(), b"p x\n")
        await settle()

        assert shown is not None
        assert shown[1] == b"(Pdb) "
        assert (guest.terminal[1][0].is_open, guest.terminal[1][0].rows) == (True, 50)
        assert guest.terminal[2][1] == b"p x\n"
        stream.cancel()
        await settle()
        assert guest.terminal[3][0].is_end


async def test_what_a_container_wrote_is_shown_before_the_terminal_is_taken_back() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.started)
        guest = stage.node.started[0]
        assert stage.client.peer is not None
        stream = stage.client.peer.stream("TerminalOffer", TerminalOffer(spec.app_id))
        await settle()
        guest.tell("TerminalOpen", TerminalOpen())
        for number in range(2 * STREAM_WINDOW):
            guest.tell("TerminalData", TerminalData(), b"%d " % number)
        await settle()

        stream.send(None)

        shown = [body async for _, body in stream.items(TerminalOutput)]
        assert b"".join(shown).split()[-1] == b"%d" % (2 * STREAM_WINDOW - 1)
        assert guest.terminal[-1][0].is_end


async def test_what_a_container_wrote_to_the_terminal_leaves_before_the_result_it_led_to() -> None:
    words = [b"%d " % number for number in range(3 * STREAM_WINDOW)]
    shown: list[bytes] = []

    async def debug(guest: FakeGuest, value: bytes) -> bytes:
        guest.tell("TerminalOpen", TerminalOpen())
        for word in words:
            guest.tell("TerminalData", TerminalData(), word)
        return value

    async def show(stream: Stream) -> None:
        async for _, body in stream.items(TerminalOutput):
            shown.append(body)

    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.started)
        stage.node.run = debug
        assert stage.client.peer is not None
        showing = asyncio.ensure_future(show(stage.client.peer.stream("TerminalOffer", TerminalOffer(spec.app_id))))
        await settle()

        call = stage.client.call(spec.function_id, 1)
        while not call.outputs:
            await stage.pass_time(0.001)

        assert shown == words
        showing.cancel()


async def test_containers_are_listed_and_stopped() -> None:
    async with staged() as stage:
        await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.started)
        listing = await stage.client.ask("ContainerList", ContainerList(app="hello"), ContainerListing)
        info = listing.containers[0]

        await stage.client.ask("ContainerStop", ContainerStop(info.container_id), Empty)
        await settle()
        stopped = await stage.client.ask("ContainerList", ContainerList(include_stopped=True), ContainerListing)

        assert info.state == "idle"
        assert {"placed", "process", "connected", "ready"} <= set(info.phase_ms)
        assert ("stopped by request", "stopped") in [(one.exit_reason, one.state) for one in stopped.containers]


async def test_http_twin_answers_what_the_wire_does() -> None:
    async with staged() as stage:
        await stage.client.app()

        listing, body = await stage.plane.answer("AppList", AppList())
        with pytest.raises(PlatformError):
            await stage.plane.answer("PutInputs", None)
        items = [
            item async for item, _ in stage.plane.stream("ImageBuild", ImageBuild(ImageSpec((debian_slim("3.11"),))))
        ]

        assert len(listing.apps) == 1
        assert body == b""
        assert items[-1].kind == "built"


async def test_container_of_a_node_that_went_away_before_it_was_asked_is_started_there_later() -> None:
    async with staged(ServerConfig(node_grace_s=60.0)) as stage:
        spec = await stage.client.function()
        node = stage.plane.fleet.nodes[stage.node.node_id]
        call = stage.client.call(spec.function_id, 4)
        # Placed, and the request is to be sent in the next turn of the loop.
        while not node.containers:
            await asyncio.sleep(0)
            stage.clock.advance(0.01)
        assert stage.node.peer is not None
        assert node.peer is not None
        stage.plane.nodes.gone(node, node.peer)
        stage.node.peer.channel.close()
        await settle()

        assert not stage.node.starts
        await stage.node.connect()
        outputs = await stage.done(call, 1)

        assert outputs[0].value == b"8"


async def test_apps_that_live_are_listed_however_many_have_ended() -> None:
    async with staged() as stage:
        living = await stage.client.app()
        ended = [await stage.client.app() for _ in range(3)]
        for app_id in ended:
            await stage.client.ask("AppStop", AppStop(app_id), AppStopped)

        some = await stage.client.ask("AppList", AppList(limit=1), AppListing)
        going = await stage.client.ask("AppList", AppList(limit=10, include_stopped=False), AppListing)

        assert living in [one.app_id for one in some.apps]
        assert len(some.apps) == 2
        assert [one.app_id for one in going.apps] == [living]
