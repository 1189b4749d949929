"""What becomes of an answer of the spawner whose descriptors this process has no room for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from squall.runtime.client import SpawnerRuntime
from squall.runtime.errors import DescriptorsLost, RuntimeFailure
from squall.runtime.spec import ContainerSpec, IdRange
from squall.runtime.wire import FrameReader, encode_frame

RANGE = IdRange(100_000, 1_000)
ANSWER = {"pid": 7, "phase_ms": {}}


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """This process can have so many more descriptors than now."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(count + 1)]
    for descriptor in free:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class SpawnerEnd:
    """The other end of a connection of the runtime."""

    def __init__(self) -> None:
        self.theirs, ours = socket.socketpair()
        for end in (self.theirs, ours):
            end.setblocking(False)
        self.runtime = SpawnerRuntime(ours, "/nowhere")
        self._reader = FrameReader()
        self._requests: list[dict[str, Any]] = []

    async def request(self, method: str) -> int:
        """The next request, which is of this method."""
        while not self._requests:
            data = await asyncio.get_running_loop().sock_recv(self.theirs, 65_536)
            self._requests += [message for message, _ in self._reader.feed(data)]
        request = self._requests.pop(0)
        assert request["method"] == method
        return int(request["request_id"])

    def answer(self, request_id: int, result: object, descriptors: Sequence[int] = ()) -> None:
        frame = encode_frame({"request_id": request_id, "result": result}, len(descriptors))
        socket.send_fds(self.theirs, [frame], descriptors)


@pytest.fixture
async def spawner() -> Any:
    end = SpawnerEnd()
    yield end
    await end.runtime.close()
    end.theirs.close()


@pytest.mark.parametrize("room", [0, 1])
async def test_request_whose_descriptors_the_kernel_drops_fails_and_the_next_has_its_own(
    spawner: SpawnerEnd, room: int
) -> None:
    dropped = asyncio.ensure_future(spawner.runtime.make_network_namespaces(RANGE, 0, 2))
    request_id = await spawner.request("make_network_namespaces")
    open_before = os.listdir("/proc/self/fd")
    with room_for(room):
        spawner.answer(request_id, None, [0, 1])
        with pytest.raises(DescriptorsLost, match=r"make_network_namespaces: .* raise its limit"):
            await asyncio.wait_for(dropped, 10)
    left = os.listdir("/proc/self/fd")

    read_end, write_end = os.pipe()
    got = asyncio.ensure_future(spawner.runtime.make_network_namespaces(RANGE, 0, 1))
    spawner.answer(await spawner.request("make_network_namespaces"), None, [read_end])
    (descriptor,) = await asyncio.wait_for(got, 10)

    assert left == open_before
    assert os.fstat(descriptor).st_ino == os.fstat(read_end).st_ino
    assert not os.get_inheritable(descriptor)
    for one in (read_end, write_end, descriptor):
        os.close(one)


async def test_caller_that_is_cancelled_as_the_answer_comes_keeps_nothing_of_it(spawner: SpawnerEnd) -> None:
    asked = asyncio.ensure_future(spawner.runtime.make_network_namespaces(RANGE, 0, 2))
    request_id = await spawner.request("make_network_namespaces")
    open_before = os.listdir("/proc/self/fd")
    spawner.answer(request_id, None, [0, 1])
    spawner.runtime._on_readable()

    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    assert os.listdir("/proc/self/fd") == open_before


@pytest.mark.parametrize("said", [b"[1]", b"{", b'{"event": "exit"}'])
async def test_requests_fail_when_the_spawner_says_what_cannot_be_read(spawner: SpawnerEnd, said: bytes) -> None:
    asked = asyncio.ensure_future(spawner.runtime.list())
    await spawner.request("list")

    spawner.theirs.send(len(said).to_bytes(4, "big") + said)

    failed, _ = await asyncio.wait([asked], timeout=10)
    assert failed == {asked}
    with pytest.raises(RuntimeFailure, match="cannot be read"):
        await asked
    with pytest.raises(RuntimeFailure, match="cannot be read"):
        await anext(spawner.runtime.exits())
    assert spawner.runtime.is_lost


@pytest.mark.parametrize("said", [{}, {"error": {}}, {"error": "no"}])
async def test_request_fails_whose_own_answer_cannot_be_read(spawner: SpawnerEnd, said: dict[str, Any]) -> None:
    asked = asyncio.ensure_future(spawner.runtime.make_network_namespaces(RANGE, 0, 1))
    request_id = await spawner.request("make_network_namespaces")
    open_before = os.listdir("/proc/self/fd")

    socket.send_fds(spawner.theirs, [encode_frame({"request_id": request_id, **said}, 1)], [0])

    failed, _ = await asyncio.wait([asked], timeout=10)
    assert failed == {asked}
    with pytest.raises(RuntimeFailure, match="cannot be read"):
        await asked
    assert len(os.listdir("/proc/self/fd")) == len(open_before) - 1, "all but the connection"


@pytest.mark.parametrize("method", ["start", "begin"])
async def test_container_whose_output_is_lost_at_its_start_is_removed(spawner: SpawnerEnd, method: str) -> None:
    runtime = spawner.runtime
    begun = runtime.begin("ct-1", {}) if method == "begin" else runtime.start(make_spec())
    starting = asyncio.ensure_future(begun)
    request_id = await spawner.request(method)
    with room_for(1):
        spawner.answer(request_id, ANSWER, [0, 1])
        removal = asyncio.ensure_future(spawner.request("remove"))
        await asyncio.wait([starting, removal], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert not starting.done()
    spawner.answer(await removal, None)

    with pytest.raises(DescriptorsLost, match=method):
        await asyncio.wait_for(starting, 10)


def make_spec() -> ContainerSpec:
    return ContainerSpec("ct-1", ("/layer",), "/state", RANGE, ("true",), {})
