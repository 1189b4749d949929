"""What a node keeps of versions: what its containers have mounted, for as long as they have."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from squall.agent.disk import Space
from squall.agent.volume import holder as holder_module
from squall.agent.volume.contents import Progress
from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.protocol.volume import VolumeChange, VolumeMount, VolumeStart
from tests.agent.volume.node import IDS, Node, data_of, root_of, roots_of


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with ThreadPoolExecutor(2) as executor:
        yield Node(tmp_path, executor)


async def test_what_containers_have_mounted_stays_and_the_rest_goes(node: Node) -> None:
    await node.open("a", 1)
    await node.open("b", 2)
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (roots_of([1, 2]), 2)
    await node.volumes.close("a")
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (roots_of([2]), 1)


@pytest.mark.parametrize("does", ["nothing", "evict", "start", "boot"])
async def test_what_was_mounted_last_goes_last_however_long_it_is_here(
    node: Node, does: str, boot_again: Callable[[], None]
) -> None:
    node.space = lambda: Space(2**40, 10**9, 2**20, 100)
    node.start()
    for number, name in enumerate("abc"):
        await node.open(name, number)
    for name in "cb":
        await node.volumes.close(name)
    if does != "nothing":
        # What is written down of them outlives their trees, and the agent.
        await node.volumes.evict()
        assert (node.trees(), node.contents()) == (roots_of([0]), 3)
    if does == "boot":
        boot_again()
    if does in ("start", "boot"):
        node.start()
    await node.volumes.close("a")
    node.space = lambda: Space(4 * 2**20 - 1, 10**9, 2**20, 100)
    for left in ([0, 1], [0], []):
        await node.volumes.evict()
        assert node.data() == {data_of(number) for number in left}


async def test_what_one_of_two_containers_has_let_go_of_stays_for_the_other(node: Node) -> None:
    await node.open("a", 1)
    await node.open("b", 1)
    await node.volumes.close("a")
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (roots_of([1]), 1)


async def test_the_next_agent_knows_what_is_mounted(node: Node) -> None:
    await node.open("a", 1)
    await node.open("b", 2)
    node.start().adopt("a", IDS)
    await node.volumes.close("b")
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (roots_of([1]), 1)


async def test_what_was_let_go_of_is_there_again_for_the_next_container(node: Node) -> None:
    await node.open("a", 1)
    await node.volumes.close("a")
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (set(), 0)
    await node.open("b", 1)
    assert (node.trees(), node.contents()) == (roots_of([1]), 1)


async def test_contents_that_are_gone_come_again_beside_a_tree_that_is_there(node: Node) -> None:
    await node.open("a", 1)
    await node.volumes.close("a")
    (content,) = (node.directory / "contents" / "layer" / ".squall-contents").glob("*/*")
    content.unlink()
    await node.open("b", 1)
    assert node.contents() == 1


async def test_a_start_that_fails_holds_nothing(node: Node) -> None:
    node.server.gone.add(2)
    with pytest.raises(PlatformError, match="version 2 is gone"):
        await node.open("a", 1, 2)
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (set(), 0)


async def test_what_is_fetched_ahead_is_counted_and_stays_until_it_is_let_go(node: Node) -> None:
    progress = Progress()
    start = VolumeStart(VolumeMount("vo-1", "/1"), 1, root_of(1))
    with node.volumes.holding() as hold:
        await hold.fetch([start], progress)
        await node.volumes.evict()
        assert (node.trees(), node.contents()) == (roots_of([1]), 1)
    assert progress == Progress(len(data_of(1)), len(data_of(1)))
    await node.volumes.evict()
    assert (node.trees(), node.contents()) == (set(), 0)


async def test_of_several_who_want_a_tree_one_at_a_time_makes_it_also_when_the_first_fails(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    making: list[int] = []
    at_once: list[int] = []
    tree = node.server.tree

    async def slow(volume_id: str, version: int) -> list[VolumeChange]:
        making.append(1)
        at_once.append(len(making))
        try:
            await asyncio.sleep(0.01)
            if len(at_once) == 1:
                raise PlatformError(NOT_FOUND, "it is gone")
            return await tree(volume_id, version)
        finally:
            making.pop()

    monkeypatch.setattr(node.server, "tree", slow)
    wanting = [asyncio.ensure_future(node.open(name, 1)) for name in "abc"]
    await asyncio.wait(wanting, return_when=asyncio.FIRST_EXCEPTION)
    wanting.append(asyncio.ensure_future(node.open("d", 1)))
    found = await asyncio.gather(*wanting, return_exceptions=True)
    assert [isinstance(one, PlatformError) for one in found] == [True, False, False, False]
    assert set(at_once) == {1}
    assert not node.volumes._trees._making


async def test_the_loop_waits_for_no_disk_when_containers_come_and_go(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[str] = []

    def watch(where: type, name: str) -> None:
        real = getattr(where, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                touched.append(name)
            return real(*arguments, **named)

        monkeypatch.setattr(where, name, watched)

    for name in ("read_text", "write_text", "unlink", "glob", "mkdir"):
        watch(Path, name)
    await node.open_writable("a", 1, 2)
    await node.open("b", 3)
    touched.clear()  # those of the test itself
    await node.open("c", 1)
    for name in "abc":
        await node.volumes.close(name)
    await node.volumes.evict()
    assert touched == []
    monkeypatch.undo()
    assert (node.trees(), node.contents()) == (set(), 0)


async def test_what_is_being_removed_is_made_again_for_who_comes_meanwhile(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    unlink = Path.unlink

    def slow(path: Path, missing_ok: bool = False) -> None:
        begun.set()
        assert may_go_on.wait(10)
        unlink(path, missing_ok)

    for _ in range(2):
        await node.open("a", 1)
        await node.volumes.close("a")
        monkeypatch.setattr(Path, "unlink", slow)
        evicting = asyncio.create_task(node.volumes.evict())
        assert await asyncio.to_thread(begun.wait, 10)
        opening = asyncio.create_task(node.open("b", 1))
        await asyncio.sleep(0)
        may_go_on.set()
        await asyncio.gather(evicting, opening)
        monkeypatch.undo()
        assert (node.trees(), node.contents()) == (roots_of([1]), 1)
        await node.volumes.close("b")
        begun.clear()
        may_go_on.clear()


async def test_a_start_that_is_given_up_while_it_is_written_down_leaves_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    write = holder_module.HolderRecords.write

    def slow(*arguments: Any) -> None:
        begun.set()
        assert may_go_on.wait(10)
        write(*arguments)

    monkeypatch.setattr(holder_module.HolderRecords, "write", slow)
    opening = asyncio.create_task(node.open("a", 1))
    assert await asyncio.to_thread(begun.wait, 10)
    opening.cancel()
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await node.volumes.close("a")
    assert list((node.directory / "written").iterdir()) == []
