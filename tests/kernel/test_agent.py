"""The agent with real containers: a guest speaks through its socket, floods are bounded, kill -9 loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from squall.agent.image import garbage
from squall.agent.image.definitions import Definitions
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.store import Layer, LayerStore
from squall.agent.image.progress import BuiltImage
from squall.protocol.container import ContainerExec, TerminalInput, TerminalOutput
from squall.protocol.function import Resources
from squall.protocol.guest import SOCKET_PATH
from squall.protocol.image import ImageConfig, ImageSpec, image_id
from squall.protocol.image_catalog import NodeGc, NodeImageGc
from squall.protocol.mount import MountRef
from squall.runtime.client import SpawnerRuntime
from squall.runtime.layer_mounts import can_mount_images
from squall.runtime.spec import IdRange
from tests.agent.parts import BuiltImages, until
from tests.kernel.agents import PYTHON, SPEC, Node, SocketServer
from tests.kernel.conftest import SmallDisk

UNDER_GVISOR = {
    "test_limits_reach_the_kernel",
    "test_a_given_up_command_is_killed",
    "test_a_container_may_write_up_to_its_disk_limit_and_is_ended_beyond",
    "test_a_killed_agent_is_followed_by_one_that_takes_over",
}
"""Those that are quick there."""

NOT_UNDER_GVISOR = {
    "test_a_flood_of_output_is_bounded_and_its_end_is_seen": "what is dropped of a flood may end within a line there",
    "test_a_hundred_containers_start_and_are_gone_again": "a hundred kernels boot in minutes",
    "test_a_command_given_up_while_it_starts_is_killed": (
        "runsc that is killed before it has written down which process it began leaves that one (decision 60)"
    ),
}


@pytest.fixture
async def node(data_dir: Path, rootfs: str, isolation: str) -> AsyncIterator[Node]:
    made = Node(data_dir, rootfs, isolation)
    try:
        yield made
    finally:
        async with await SpawnerRuntime.open(str(data_dir / "spawner"), made.instance, idle_s=5) as runtime:
            for status in await runtime.list():
                await runtime.remove(status.container_id)
            await runtime.shutdown()


async def test_a_guest_speaks_through_its_socket_and_ends_when_asked(node: Node) -> None:
    async with node.running():
        await node.build()
        request, started = await node.start()
        guest = await node.talk()

        assert await guest.run("result = 6 * 7") == "42"
        assert started.phase_ms["runtime"] > 0
        await node.end(request.container_id, grace_s=5.0)

        assert [exited.exit_code for exited in node.server.exits] == [5]
        texts = [entry.text for entry in node.server.lines]
        assert texts[0].startswith("guest is up")
        assert texts[-1] == "asked to end"
    assert not node.left()


async def test_a_container_sees_its_files_and_may_write_beside_them(node: Node) -> None:
    more = node.server.files.add({"pkg/__init__.py": b"", "pkg/data.txt": b"some data"})
    async with node.running():
        await node.build()
        mounts = (MountRef(node.guest_mount, "/root"), MountRef(more, "/root"))
        request, _ = await node.start(mounts=mounts)
        guest = await node.talk()

        assert await guest.run("result = open('/root/pkg/data.txt').read()") == "some data"
        assert await guest.run("result = os.stat('/root/guest_double.py').st_uid, os.getuid()") == "(0, 0)"
        assert await guest.run("open('/root/.cache', 'w').write('x'); result = sorted(os.listdir('/root'))[:2]")
        assert await guest.run("open('/root/pkg/data.txt', 'w').write('changed'); result = 1") == "1"
        await node.end(request.container_id)

        # What one container wrote is in no other.
        other, _ = await node.start(mounts=mounts)
        guest = await node.talk(1)
        assert await guest.run("result = open('/root/pkg/data.txt').read()") == "some data"
        assert await guest.run("result = os.path.exists('/root/.cache')") == "False"
        await node.end(other.container_id)


async def test_a_container_cannot_change_its_library_or_its_socket(node: Node) -> None:
    attempts = f"""
result = []
for path in ("/run/squall/lib/squall/__init__.py", "/run/squall/agent/x", {SOCKET_PATH!r}):
    for attempt in (lambda: open(path, "w"), lambda: os.unlink(path), lambda: os.chmod(path, 0o777)):
        try:
            attempt()
            result.append(path)
        except OSError:
            pass
"""
    async with node.running():
        await node.build()
        request, _ = await node.start()
        guest = await node.talk()

        assert await guest.run(attempts) == "[]"
        await node.end(request.container_id)


async def test_the_library_comes_with_bytecode(node: Node) -> None:
    async with node.running():
        await node.build()
        request, _ = await node.start()
        guest = await node.talk()

        cached = await guest.run("result = os.path.exists(codec.__cached__), codec.__file__")

        assert cached == "(True, '/run/squall/lib/squall/protocol/codec.py')"
        await node.end(request.container_id)


async def test_another_process_with_a_wrong_token_is_refused_and_with_the_right_one_is_a_client(node: Node) -> None:
    knock = f"""
def knock(text):
    other = socket.socket(socket.AF_UNIX)
    other.settimeout(3)
    other.connect({SOCKET_PATH!r})
    hello = guest.GuestHello(text, "client", container_id, "0", 1, client_id="cl-1")
    other.sendall(encode(Frame(json.encode("ev", 0, "GuestHello", hello), b"")))
    try:
        return other.recv(1)
    except socket.timeout:
        return "open"
"""
    async with node.running():
        await node.build()
        request, _ = await node.start()
        guest = await node.talk()

        assert await guest.run(knock + "result = knock('wrong')") == "b''"
        assert await guest.run(knock + "result = knock(token)") == "open"

        await node.end(request.container_id)
    assert len(node.server.container_channels) == 2


async def test_a_flood_of_output_is_bounded_and_its_end_is_seen(node: Node) -> None:
    async with node.running():
        await node.build()
        request, _ = await node.start()
        guest = await node.talk()

        started = time.monotonic()
        await guest.run("for _ in range(300): sys.stdout.write(('z' * 99 + '\\n') * 1000)", 60)
        took_s = time.monotonic() - started
        await guest.run("time.sleep(1.5); print('after the flood')")
        await node.end(request.container_id, grace_s=5)

    system = [entry.text for entry in node.server.lines if entry.source == "system"]
    assert took_s < 60
    assert any(text.startswith("dropped ") for text in system)
    assert len(node.server.lines) < 200_000
    assert [entry.text[-40:] for entry in node.server.lines[-2:]] == ["after the flood", "asked to end"]


async def test_limits_reach_the_kernel(node: Node) -> None:
    async with node.running():
        await node.build()
        request, _ = await node.start(resources=Resources(memory_limit_mib=64))
        guest = await node.talk()

        guest.tell("result = len(bytearray(200 * 2**20))")
        await until(lambda: node.server.exits, 60)

        exited = node.server.exits[0]
        assert (exited.container_id, exited.is_oom) == (request.container_id, True)


async def test_a_command_in_a_container_has_a_terminal_its_size_and_an_exit_code(node: Node) -> None:
    async with node.running():
        await node.build()
        request, _ = await node.start(env={"MINE": "from the function"})
        await node.talk()

        asked = ContainerExec(request.container_id, ("sh",), has_pty=True, rows=31, columns=99)
        stream = node.server.peer.stream("NodeExec", asked)
        output = b""
        stream.send(TerminalInput(), b"stty size; pwd; echo is=$MINE\n")
        while b"is=from the function" not in output or b"31 99" not in output:
            item = await asyncio.wait_for(stream.next(TerminalOutput), 10)
            assert item is not None
            output += item[1]
        assert b"/root" in output
        stream.send(TerminalInput(rows=40, columns=120))
        stream.send(TerminalInput(), b"stty size\nexit 9\n")
        rest = [item async for item in stream.items(TerminalOutput)]

        assert b"40 120" in b"".join(body for _, body in rest)
        assert rest[-1][0].exit_code == 9
        await node.end(request.container_id)


# A process may be gone between the list and the look.
COUNT_SLEEPS = """
result = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            result += b"sleep" in file.read()
    except OSError:
        pass
"""


async def test_a_given_up_command_is_killed(node: Node) -> None:
    async with node.running():
        await node.build()
        request, _ = await node.start()
        guest = await node.talk()

        stream = node.server.peer.stream("NodeExec", ContainerExec(request.container_id, ("sleep", "77")))
        await guest.run_until(COUNT_SLEEPS, "1")
        stream.cancel()
        await guest.run_until(COUNT_SLEEPS, "0")

        await node.end(request.container_id)


async def test_a_command_that_is_not_there_ends_as_in_a_shell(node: Node) -> None:
    async with node.running():
        await node.build()
        request, _ = await node.start()
        stream = node.server.peer.stream("NodeExec", ContainerExec(request.container_id, ("no-such-program",)))

        said, line = await stream.next(TerminalOutput) or (None, b"")
        ended, _ = await stream.next(TerminalOutput) or (None, b"")

        assert said is not None
        assert said.source == "stderr"
        assert b"no-such-program" in line
        assert ended is not None
        assert ended.exit_code == 127
        await node.end(request.container_id)


async def test_a_killed_agent_is_followed_by_one_that_takes_over(node: Node, rootfs: str) -> None:
    async with SocketServer(node) as sockets:
        async with sockets.agent_process(rootfs) as first:
            await node.build()
            kept, _ = await node.start()
            lost, _ = await node.start()
            asked = "result = os.environ['SQUALL_CONTAINER_ID']"
            known = {await (await node.talk(index)).run(asked) for index in (0, 1)}
            assert known == {kept.container_id, lost.container_id}
            first.send_signal(signal.SIGKILL)
            await first.wait()
        async with await SpawnerRuntime.open(str(node.data_dir / "spawner"), node.instance, idle_s=5) as runtime:
            assert {status.container_id for status in await runtime.list()} == {kept.container_id, lost.container_id}
            await runtime.kill(lost.container_id, signal.SIGKILL)

        async with sockets.agent_process(rootfs) as second:
            known = {one.container_id for one in node.server.hellos[-1].containers}
            assert kept.container_id in known
            await until(lambda: [exited.container_id for exited in node.server.exits] == [lost.container_id], 20)
            guest = await node.talk(2)
            assert await guest.run(asked) == kept.container_id
            assert await guest.run("print('after the change'); result = is_reconnect") == "True"
            await node.end(kept.container_id, grace_s=5)
            assert node.server.exits[-1].exit_code == 5
            second.send_signal(signal.SIGTERM)
            await second.wait()
    assert not node.left()
    assert "after the change" in [entry.text for entry in node.server.lines]


async def test_a_killed_spawner_costs_its_containers_and_nothing_else(node: Node) -> None:
    async with node.running():
        await node.build()
        request, _ = await node.start()
        await node.talk()
        retired: list[IdRange | None] = []
        node.network.retire = lambda id_range=None: retired.append(id_range)  # type: ignore[method-assign]

        os.kill(node.spawner_pids[-1], signal.SIGKILL)
        await until(lambda: node.server.exits, 60)
        # Forks can enter no slot any more that was made for them before.
        assert retired == [None]

        exited = node.server.exits[0]
        assert (exited.container_id, exited.signal) == (request.container_id, signal.SIGKILL)
        other, _ = await node.start()
        guest = await node.talk(1)
        assert await guest.run("result = 1") == "1"
        await node.end(other.container_id)
        assert len(set(node.spawner_pids)) == 2
    assert not node.left()


async def test_a_hundred_containers_start_and_are_gone_again(node: Node) -> None:
    async with node.running():
        await node.build()
        await node.end((await node.start())[0].container_id)

        begun = time.monotonic()
        started = await asyncio.gather(*(node.start() for _ in range(100)))
        took_s = time.monotonic() - begun
        await until(lambda: len(node.server.container_channels) >= 100, 60)
        ending = time.monotonic()
        await asyncio.gather(*(node.end(request.container_id) for request, _ in started))
        ended_s = time.monotonic() - ending
        print(f"100 starts {took_s:.2f} s, 100 ends {ended_s:.2f} s")

        assert len(node.server.exits) == 101
        assert took_s < 30
        assert ended_s < 30
    assert not node.left()


async def test_a_command_given_up_while_it_starts_is_killed(node: Node) -> None:
    async with node.running():
        await node.build()
        request, _ = await node.start()
        guest = await node.talk()

        # At every stretch of the start, until one lets the command live for a moment.
        for turns in range(40):
            stream = node.server.peer.stream("NodeExec", ContainerExec(request.container_id, ("sleep", "78")))
            for _ in range(turns):
                await asyncio.sleep(0.001)
            stream.cancel()
        await guest.run_until(COUNT_SLEEPS, "0")

        await node.end(request.container_id)


async def test_a_container_may_write_up_to_its_disk_limit_and_is_ended_beyond(node: Node) -> None:
    write = "open('/tmp/file', 'ab').write(bytes({} * 2**20)); result = 'written'"
    async with node.running():
        await node.build()
        request, _ = await node.start(resources=Resources(disk_mib=40))
        guest = await node.talk(0)
        other, _ = await node.start()
        second = await node.talk(1)

        assert await guest.run(write.format(30)) == "written"
        await asyncio.sleep(2.5)
        assert await guest.run("result = 'goes on'") == "goes on"
        guest.tell(write.format(30))

        await until(lambda: node.server.exits, 60)
        exited = node.server.exits[0]
        assert (exited.container_id, exited.signal) == (request.container_id, signal.SIGKILL)
        assert "its limit is 40 MiB; give the function more with ephemeral_disk=" in exited.over_disk
        assert await second.run("result = 'goes on'") == "goes on"
        await node.end(other.container_id)
        assert node.server.exits[1].over_disk == ""
    assert not node.left()


async def test_deleted_files_count_while_they_are_open_and_so_do_those_at_any_depth(node: Node) -> None:
    deleted = """
held = open("/tmp/x", "wb", buffering=0)
os.unlink("/tmp/x")
held.write(bytes(60 * 2**20))
time.sleep(60)
"""
    deep = """
for _ in range(5_000):
    os.mkdir("d")
    os.chdir("d")
open("file", "wb").write(bytes(60 * 2**20))
time.sleep(60)
"""
    async with node.running():
        await node.build()
        for index, code in enumerate((deleted, deep)):
            await node.start(resources=Resources(disk_mib=40))
            guest = await node.talk(index)
            guest.tell(code)

            await until(lambda count=index: len(node.server.exits) > count, 60)  # type: ignore[misc]
            assert "its limit is 40 MiB" in node.server.exits[index].over_disk
    assert not node.left()


async def test_an_adopted_container_keeps_its_disk_limit(node: Node) -> None:
    async with node.running():
        await node.build()
        await node.start(resources=Resources(disk_mib=40))
        await node.talk(0)
    async with node.running():
        guest = await node.talk(1)
        guest.tell("open('/tmp/file', 'wb').write(bytes(60 * 2**20)); time.sleep(60)")

        await until(lambda: node.server.exits, 60)
        assert "its limit is 40 MiB" in node.server.exits[0].over_disk
    assert not node.left()


CONFIG = ImageConfig(python_path=PYTHON, python_version="3.11.2", layers=("ly-base",))


class LayerOnRootfs(BuiltImages):
    """One image: the root file system, and a layer of the store on it."""

    def __init__(self, rootfs: str, layer: Layer) -> None:
        self.image = BuiltImage(image_id(SPEC), (rootfs, layer.path), CONFIG)

    def find(self, spec: ImageSpec) -> BuiltImage | None:
        return self.image if os.path.exists(self.image.layers[1]) else None


@pytest.mark.long
async def test_space_of_removed_layers_is_free_while_the_agent_runs(small_disk: SmallDisk, rootfs: str) -> None:
    if not can_mount_images():
        pytest.skip("needs a kernel that mounts EROFS images")
    store = LayerStore(small_disk.place, is_packed=True)
    node, size_bytes = Node(small_disk.place, rootfs), 2**25
    Definitions(small_disk.place).prepare()
    Definitions(small_disk.place).save(SPEC)
    free_bytes = small_disk.free_bytes()
    with store.scratch() as scratch:
        (scratch.path / "tree").mkdir()
        (scratch.path / "tree/data").write_bytes(os.urandom(size_bytes))
        layer = store.commit(scratch, scratch.path / "tree", "1" * 64, {}, replaces=False)
    node.images, node.holds = LayerOnRootfs(rootfs, layer), LayerHolds(store)
    try:
        async with node.running():
            request, _ = await node.start()
            guest = await node.talk()
            assert await guest.run("result = len(open('/data', 'rb').read())") == str(size_bytes)
            in_use = await collect(node)
            await node.end(request.container_id)
            before_bytes = small_disk.free_bytes()

            # What was used in this second stays.
            await asyncio.sleep(garbage.MARGIN_S + 0.1)
            assert (await collect(node)).freed_bytes >= size_bytes
            await until(lambda: small_disk.free_bytes() - before_bytes >= size_bytes, 10)

            assert (in_use.freed_bytes, [use.users for use in in_use.layers]) == (
                0,
                [(f"container {request.container_id}",)],
            )
            assert free_bytes - small_disk.free_bytes() < size_bytes / 4
    finally:
        async with await SpawnerRuntime.open(str(small_disk.place / "spawner"), node.instance, idle_s=5) as runtime:
            await runtime.shutdown()
        # Its log is in this file system.
        await until(lambda: not os.path.exists(f"/proc/{node.spawner_pids[0]}/fd/0"))


async def collect(node: Node) -> NodeGc:
    done: NodeGc = await node.server.peer.request("NodeImageGc", NodeImageGc(0.0), NodeGc)
    return done
