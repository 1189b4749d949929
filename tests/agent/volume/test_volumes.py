"""What a node keeps of volumes: what its containers have mounted, for as long as they have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from squall.agent.disk import Space
from squall.agent.volume.volumes import NodeVolumes
from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.protocol.volume import VolumeChange, VolumeMount, VolumeStart
from squall.runtime.spec import IdRange

IDS = IdRange(100_000)
SHORT = Space(2**20 + 4_096, 10**9, 2**20, 100)
"""Of a disk: room for what is wanted here, and less than is to be free."""


class Server:
    """Versions of volumes, by their numbers; with one file each, that says which it is."""

    is_connected = True

    def __init__(self) -> None:
        self.gone: set[int] = set()

    async def tree(self, volume_id: str, version: int) -> list[VolumeChange]:
        if version in self.gone:
            raise PlatformError(NOT_FOUND, f"version {version} is gone")
        data = _data(version)
        return [VolumeChange("file", size=len(data), blocks=(hashlib.sha256(data).hexdigest(),))]

    async def block(self, sha256: str) -> bytes:
        return next(data for data in map(_data, range(100)) if hashlib.sha256(data).hexdigest() == sha256)


def _data(version: int) -> bytes:
    return f"version {version}".encode()


class Node:
    """The volumes of an agent, and of the one after it."""

    def __init__(self, directory: Path, executor: ThreadPoolExecutor) -> None:
        self.directory = directory
        self.server = Server()
        self._executor = executor
        self.volumes = self.start()

    def start(self) -> NodeVolumes:
        # Nothing here asks the runtime.
        self.volumes = NodeVolumes(
            self.directory, cast(Any, self.server), cast(Any, None), self._executor, space=lambda path: SHORT
        )
        self.volumes.prepare()
        return self.volumes

    async def open(self, runtime_id: str, *versions: int) -> None:
        starts = [
            VolumeStart(VolumeMount(f"vo-{number}", f"/{number}", is_read_only=True), number, _root(number))
            for number in versions
        ]
        await self.volumes.open(runtime_id, starts, IDS, "ta-1")

    def trees(self) -> set[str]:
        return {path.stem for path in (self.directory / "trees").glob("*.erofs")}

    def contents(self) -> int:
        return len(list((self.directory / "contents" / "files").glob("*/*")))


def _root(version: int) -> str:
    return f"{version:064x}"


def _roots(versions: Sequence[int]) -> set[str]:
    return {_root(version) for version in versions}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with ThreadPoolExecutor(2) as executor:
        yield Node(tmp_path, executor)


async def test_what_containers_have_mounted_stays_and_the_rest_goes(node: Node) -> None:
    await node.open("a", 1)
    await node.open("b", 2)
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (_roots([1, 2]), 2)
    await node.volumes.close("a")
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (_roots([2]), 1)


async def test_what_one_of_two_containers_has_let_go_of_stays_for_the_other(node: Node) -> None:
    await node.open("a", 1)
    await node.open("b", 1)
    await node.volumes.close("a")
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (_roots([1]), 1)


async def test_the_next_agent_knows_what_is_mounted(node: Node) -> None:
    await node.open("a", 1)
    await node.open("b", 2)
    node.start().adopt("a", IDS)
    await node.volumes.close("b")
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (_roots([1]), 1)


async def test_what_was_let_go_of_is_there_again_for_the_next_container(node: Node) -> None:
    await node.open("a", 1)
    await node.volumes.close("a")
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (set(), 0)
    await node.open("b", 1)
    assert (node.trees(), node.contents()) == (_roots([1]), 1)


async def test_contents_that_are_gone_come_again_beside_a_tree_that_is_there(node: Node) -> None:
    await node.open("a", 1)
    await node.volumes.close("a")
    (content,) = (node.directory / "contents" / "files").glob("*/*")
    content.unlink()
    await node.open("b", 1)
    assert node.contents() == 1


async def test_a_start_that_fails_holds_nothing(node: Node) -> None:
    node.server.gone.add(2)
    with pytest.raises(PlatformError, match="version 2 is gone"):
        await node.open("a", 1, 2)
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (set(), 0)
