"""Contents of files: fetched whole and right, kept over a start, and let go of when the disk is short."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from squall.agent.disk import Space
from squall.agent.volume import contents as contents_module
from squall.agent.volume.contents import VolumeContents
from squall.agent.volume.tree_image import Content
from squall.protocol.errors import EXHAUSTED, INTERNAL, NOT_FOUND, PlatformError
from squall.protocol.volume import HOLE

BLOCK = 4_096
"""Of this test; the platform's are larger."""


class Blocks:
    """A store of blocks that counts what is asked of it."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.doubted: list[str] = []
        self.directory: Path | None = None
        """Of blocks that are files of this machine."""

    def add(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self.data[sha256] = data
        return sha256

    async def block(self, sha256: str) -> bytes:
        self.asked.append(sha256)
        if sha256 not in self.data:
            raise PlatformError(NOT_FOUND, f"no block {sha256}")
        return self.data[sha256]

    async def doubt(self, sha256: str) -> None:
        self.doubted.append(sha256)

    def file(self, sha256: str) -> Path | None:
        return self.directory / sha256 if self.directory is not None else None


class Node:
    """Contents on a disk whose space the test says."""

    def __init__(self, directory: Path, executor: ThreadPoolExecutor) -> None:
        self.blocks = Blocks()
        self.space = Space(2**40, 10**9, 2**20, 100)
        self.directory = directory
        self._executor = executor
        self.contents = self.start()

    def start(self) -> VolumeContents:
        """As another agent does."""
        self.contents = VolumeContents(self.directory, self.blocks, self._executor, lambda path: self.space)
        self.contents.prepare()
        return self.contents

    def content(self, *pieces: bytes) -> Content:
        sha256s = tuple(self.blocks.add(piece) if any(piece) else HOLE for piece in pieces)
        return Content(sum(len(piece) for piece in pieces), sha256s)

    def read(self, content: Content) -> bytes:
        return self.contents.path(content.name).read_bytes()

    def is_here(self, content: Content) -> bool:
        return self.contents.path(content.name).exists()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(contents_module, "BLOCK_BYTES", BLOCK)
    with ThreadPoolExecutor(2) as executor:
        yield Node(tmp_path, executor)


async def test_a_file_of_many_blocks_is_whole_and_its_holes_take_no_room(node: Node) -> None:
    pieces = [b"a" * BLOCK, bytes(BLOCK), bytes(BLOCK), b"end"]
    wanted = node.content(*pieces)
    await node.contents.ensure([wanted])
    assert node.read(wanted) == b"".join(pieces)
    assert node.contents.path(wanted.name).stat().st_blocks * 512 < 4 * BLOCK
    assert len(node.blocks.asked) == 2


async def test_small_files_that_share_a_block_ask_for_it_once(node: Node) -> None:
    block = node.blocks.add(b"onetwothree")
    wanted = [Content(3, (block,)), Content(3, (block,), 3), Content(5, (block,), 6)]
    await node.contents.ensure(wanted)
    assert [node.read(one) for one in wanted] == [b"one", b"two", b"three"]
    assert node.blocks.asked == [block]


async def test_what_is_here_is_not_asked_for_again_also_by_the_next_agent(node: Node) -> None:
    wanted = node.content(b"x" * BLOCK, b"y")
    await node.contents.ensure([wanted])
    node.start()
    await node.contents.ensure([wanted])
    assert len(node.blocks.asked) == 2


async def test_a_list_of_blocks_that_is_told_apart_is_used(node: Node) -> None:
    pieces = [b"1" * BLOCK, b"2" * BLOCK]
    blocks = tuple(node.blocks.add(piece) for piece in pieces)
    wanted = Content(2 * BLOCK, (), 0, "the-list")
    await node.contents.ensure([wanted], {"the-list": blocks})
    assert node.read(wanted) == b"".join(pieces)


async def test_blocks_that_are_files_of_this_machine_are_read_there(node: Node, tmp_path: Path) -> None:
    pieces = [b"1" * BLOCK, b"2" * BLOCK, bytes(BLOCK), b"end"]
    wanted = node.content(*pieces)
    node.blocks.directory = tmp_path
    for sha256, data in node.blocks.data.items():
        (tmp_path / sha256).write_bytes(data)
    await node.contents.ensure([wanted])
    assert node.read(wanted) == b"".join(pieces)
    assert node.blocks.asked == []


@pytest.mark.parametrize("other", [b"b" * BLOCK, b"", b"a" * (BLOCK + 1), None])
async def test_a_block_whose_file_is_not_what_it_should_be_is_asked_for(
    node: Node, tmp_path: Path, other: bytes | None
) -> None:
    wanted = node.content(b"a" * BLOCK, b"end")
    node.blocks.directory = tmp_path
    (tmp_path / wanted.blocks[1]).write_bytes(b"end")
    if other is not None:
        (tmp_path / wanted.blocks[0]).write_bytes(other)
    await node.contents.ensure([wanted])
    assert node.read(wanted) == b"a" * BLOCK + b"end"
    assert node.blocks.asked == [wanted.blocks[0]]


@pytest.mark.parametrize("other", [b"b" * BLOCK, b"", b"a" * (BLOCK + 1)])
async def test_a_block_with_other_bytes_is_refused_and_nothing_is_left(node: Node, other: bytes) -> None:
    wanted = node.content(b"a" * BLOCK, b"end")
    node.blocks.data[wanted.blocks[0]] = other
    with pytest.raises(PlatformError, match="came with other bytes") as failure:
        await node.contents.ensure([wanted])
    assert failure.value.code == INTERNAL
    assert node.blocks.doubted == [wanted.blocks[0]], "the store forgets it, and takes it again"
    assert not node.is_here(wanted)
    assert not list((node.directory / "new").iterdir())


async def test_a_block_that_is_missing_fails_all_and_what_came_is_kept(node: Node) -> None:
    good, bad = node.content(b"good"), node.content(b"bad")
    del node.blocks.data[bad.blocks[0]]
    with pytest.raises(PlatformError, match="no block"):
        await node.contents.ensure([bad])
    await node.contents.ensure([good])
    assert node.read(good) == b"good"
    assert not node.is_here(bad)


@pytest.mark.parametrize("size", [2, 5])
async def test_a_list_that_says_another_size_than_its_blocks_is_refused(node: Node, size: int) -> None:
    blocks = (node.blocks.add(b"a" * BLOCK), node.blocks.add(b"end"))
    with pytest.raises(PlatformError, match="other than its file says"):
        await node.contents.ensure([Content(BLOCK + size, blocks)])
    small = Content(size, (blocks[1],), 2)
    with pytest.raises(PlatformError, match="is shorter than a file of it"):
        await node.contents.ensure([small])


async def test_after_a_boot_what_is_damaged_comes_again(node: Node, boot_again: Callable[[], None]) -> None:
    node.start()
    whole, torn, short = (node.content(name * BLOCK, b"end") for name in (b"w", b"t", b"s"))
    await node.contents.ensure([whole, torn, short])
    node.contents.path(torn.name).chmod(0o600)
    node.contents.path(torn.name).write_bytes(bytes(BLOCK + 3))
    node.contents.path(short.name).unlink()
    node.contents.path(short.name).write_bytes(b"s" * BLOCK)
    boot_again()
    # Also when agents come and go meanwhile.
    node.start()
    await node.contents.ensure([whole])
    node.start()
    node.blocks.asked.clear()
    await node.contents.ensure([whole, torn, short])
    assert node.read(torn) == b"t" * BLOCK + b"end"
    assert node.read(short) == b"s" * BLOCK + b"end"
    assert whole.blocks[0] not in node.blocks.asked


async def test_what_was_checked_after_a_boot_is_not_read_again_by_the_next_agent(
    node: Node, boot_again: Callable[[], None]
) -> None:
    node.start()
    wanted = node.content(b"w" * BLOCK, b"end")
    await node.contents.ensure([wanted])
    boot_again()
    node.start()
    await node.contents.ensure([wanted])
    node.contents.path(wanted.name).chmod(0o600)
    node.contents.path(wanted.name).write_bytes(b"other")
    node.start()
    await node.contents.ensure([wanted])
    assert node.read(wanted) == b"other"


async def test_without_a_boot_nothing_is_read_again(node: Node, boot_again: Callable[[], None]) -> None:
    node.start()
    wanted = node.content(b"w" * BLOCK, b"end")
    await node.contents.ensure([wanted])
    node.contents.path(wanted.name).chmod(0o600)
    node.contents.path(wanted.name).write_bytes(b"other")
    node.start()
    await node.contents.ensure([wanted])
    assert node.read(wanted) == b"other"


async def test_what_was_in_the_making_is_gone_at_the_next_start(node: Node) -> None:
    (node.directory / "new" / "half").write_bytes(b"half")
    node.start()
    assert not list((node.directory / "new").iterdir())


# Space


async def _aged(node: Node, *names: bytes) -> list[Content]:
    """Contents of a MiB, each used later than the one before."""
    made = []
    for age, name in enumerate(names):
        one = node.content(*([name * BLOCK] * 256))
        await node.contents.ensure([one])
        os.utime(node.contents.path(one.name), (0, 0))
        node.contents.note_use([one.name], 1_000 + age)
        made.append(one)
    return made


async def test_what_was_not_used_for_the_longest_time_goes_first_and_no_more_than_needed(node: Node) -> None:
    old, middle, new = await _aged(node, b"1", b"2", b"3")
    node.space = Space(3 * 2**20 - 1, 10**9, 2**20, 100)
    assert await node.contents.evict() == 2
    assert [node.is_here(one) for one in (old, middle, new)] == [False, False, True]


async def test_what_is_in_use_stays_however_short_the_disk_is(node: Node) -> None:
    old, new = await _aged(node, b"1", b"2")
    node.contents.in_use = lambda: frozenset({old.name})
    node.space = Space(0, 10**9, 2**20, 100)
    assert await node.contents.evict() == 1
    assert [node.is_here(one) for one in (old, new)] == [True, False]


async def test_what_is_being_removed_is_not_taken_for_there_by_who_comes_meanwhile(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = await _aged(node, b"1")
    node.space = Space(2**22, 10**9, 2**20, 100)
    begun, may_go_on = threading.Event(), threading.Event()
    unlink = Path.unlink

    def slow(path: Path, missing_ok: bool = False) -> None:
        begun.set()
        assert may_go_on.wait(10)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", slow)
    evicting = asyncio.create_task(node.contents.evict(wanted_bytes=2**20))
    assert await asyncio.to_thread(begun.wait, 10)
    node.contents.in_use = lambda: frozenset({old.name})
    coming = asyncio.create_task(node.contents.ensure([old]))
    await asyncio.sleep(0)
    may_go_on.set()
    assert await evicting == 1
    await coming
    assert node.is_here(old)


async def test_while_there_is_space_nothing_goes(node: Node) -> None:
    (old,) = await _aged(node, b"1")
    assert await node.contents.evict() == 0
    assert node.is_here(old)


async def test_files_are_let_go_of_when_inodes_are_short(node: Node) -> None:
    old, new = await _aged(node, b"1", b"2")
    node.space = Space(2**40, 399, 2**20, 100)
    assert await node.contents.evict() == 1
    assert [node.is_here(one) for one in (old, new)] == [False, True]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (Space(2**20 + BLOCK, 10**9, 2**20, 100), "needs 1 MiB more on this node, whose disk has 2 MiB free"),
        (Space(2**40, 100, 2**20, 100), "whose disk takes 100"),
    ],
)
async def test_what_the_disk_cannot_take_is_refused_before_it_is_fetched(node: Node, space: Space, said: str) -> None:
    node.space = space
    with pytest.raises(PlatformError, match=said) as failure:
        await node.contents.ensure([node.content(b"1" * BLOCK, b"2" * BLOCK)])
    assert failure.value.code == EXHAUSTED
    assert node.blocks.asked == []


async def test_holes_need_no_space_and_a_disk_without_inodes_to_count_has_plenty(node: Node) -> None:
    node.space = Space(2**20 + 2 * BLOCK, 1, 2**20, 0)
    wanted = [node.content(*[bytes(BLOCK)] * 1_000, name) for name in (b"a", b"b")]
    await node.contents.ensure(wanted)
    assert all(node.is_here(one) for one in wanted)


async def test_what_is_wanted_is_not_let_go_of_to_make_room_for_more(node: Node) -> None:
    (old,) = await _aged(node, b"1")
    new = node.content(b"2" * BLOCK)
    node.contents.in_use = lambda: frozenset({old.name, new.name})
    node.space = Space(2 * 2**20, 10**9, 2**20, 100)
    await node.contents.ensure([old, new])
    assert node.is_here(old)
    assert node.is_here(new)


async def test_a_block_that_cannot_be_had_ends_all_others_of_its_file(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of a file that is closed is another file's a moment later."""
    written: set[str] = set()
    write_all = contents_module._write_all

    def slow(fd: int, data: bytes | memoryview, at: int) -> None:
        time.sleep(0.02)
        written.add(os.path.dirname(os.readlink(f"/proc/self/fd/{fd}")))
        write_all(fd, data, at)

    monkeypatch.setattr(contents_module, "_write_all", slow)
    wanted = node.content(*(bytes([number]) * BLOCK for number in range(1, 5)))
    node.blocks.data[wanted.blocks[-1]] = b"damaged"
    for _ in range(5):
        with pytest.raises(PlatformError, match="damaged"):
            await node.contents.ensure([wanted])
        others = [(tmp_path / f"other-{number}").open("wb") for number in range(3)]
        await asyncio.sleep(0.05)
        for other in others:
            other.close()
    assert written == {str(tmp_path / "new")}
    assert not any((tmp_path / f"other-{number}").stat().st_size for number in range(3))
