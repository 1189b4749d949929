"""Images on their way from one node to another through a store, and every way that this can go wrong."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.manifest import BLOCK_BYTES, PART_BYTES, layer_id_of
from squall.agent.image.block.partial import PartialLayer
from squall.agent.image.block.put import KNOWN_S, PUT_S, Putter
from squall.agent.image.block.store import REFRESH_S, BlockStore, open_store
from squall.agent.image.block.stored import LOOK_AGAIN_S, StoredImages
from squall.agent.image.block.whole import fetch_whole
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.store import Layer, LayerStore
from squall.agent.image.progress import BuiltImage
from squall.protocol.errors import PlatformError
from squall.protocol.image import ImageConfig
from tests.agent.image.block.stores import HASTY, KEY, S3Server, make_layer, store_in, web_store
from tests.agent.parts import until

pytestmark = pytest.mark.long

IMAGE_ID = "im-" + "1" * 32


class Nodes:
    """A node that has built an image of one layer, and a store."""

    def __init__(self, top: Path, store: BlockStore) -> None:
        self.store = store
        self.top = top
        self.layers = LayerStore(top / "first", is_packed=True)
        self.layer = make_layer(self.layers)
        self.config = ImageConfig({"A": "b"}, "/srv", "/usr/bin/python3", "3.11.2", layers=(self.layer.layer_id,))

    def put(self) -> str:
        """Put the image; the name of its layer's manifest."""
        Putter(self.store).put_image(IMAGE_ID, self.config, [self.layer])
        return self.store.get_image(IMAGE_ID).layers[0]

    def second(self) -> LayerStore:
        return LayerStore(self.top / "second", is_packed=True)

    def incoming(self) -> list[str]:
        return os.listdir(self.top / "second/layers/.incoming")


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path, store_in(tmp_path / "store"))


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


def blocks(top: Path) -> list[Path]:
    return sorted(path for path in (top / "store/blocks").rglob("*") if path.is_file())


def same(one: Layer, other: Layer) -> bool:
    return Path(one.path).read_bytes() == Path(other.path).read_bytes()


def test_a_layer_comes_out_of_the_store_as_it_went_in(nodes: Nodes) -> None:
    digest = nodes.put()

    (found,) = fetch_whole([digest], nodes.store, nodes.second())

    assert same(found, nodes.layer)
    assert found.layer_id == layer_id_of(digest)
    assert (found.key, found.facts) == (KEY, {"fact": "x"})
    assert nodes.second().get(found.layer_id) == found
    # A build of that node goes on from what it has built itself.
    assert nodes.second().find(KEY) is None
    assert nodes.incoming() == []


def test_a_layer_comes_out_of_a_bucket_as_it_went_in(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    nodes = Nodes(tmp_path, open_store(s3.url, HASTY))

    (found,) = fetch_whole([nodes.put()], nodes.store, nodes.second())

    assert same(found, nodes.layer)
    with pytest.raises(BlockError, match=r"cannot fetch the manifest of image im-2+: s3://layers/some/where does not"):
        nodes.store.get_image("im-" + "2" * 32)


def test_zeros_do_not_travel_and_take_no_room(nodes: Nodes) -> None:
    digest = nodes.put()
    stored_bytes = sum(path.stat().st_size for path in blocks(nodes.top))

    (found,) = fetch_whole([digest], nodes.store, nodes.second())

    # 1 MiB, 18 MiB of zeros, 3 MiB: one block of the three is nothing else.
    assert len(blocks(nodes.top)) == 2
    assert stored_bytes < nodes.layer.size_bytes - BLOCK_BYTES + 1
    assert Path(found.path).stat().st_blocks * 512 < 6 * 2**20


def test_layer_that_was_removed_and_made_anew_is_put_anew(nodes: Nodes) -> None:
    putter = Putter(nodes.store)
    putter.put_image(IMAGE_ID, nodes.config, [nodes.layer])
    nodes.layers.remove(nodes.layer.layer_id)
    anew = make_layer(nodes.layers, seed=2)

    putter.put_image(IMAGE_ID, replace(nodes.config, layers=(anew.layer_id,)), [anew])

    (found,) = fetch_whole(nodes.store.get_image(IMAGE_ID).layers, nodes.store, nodes.second())
    assert same(found, anew)


def test_only_blocks_that_the_store_lacks_are_put(nodes: Nodes) -> None:
    nodes.put()
    kept, lost = blocks(nodes.top)
    lately = int(time.time()) - 3600
    os.utime(kept, (lately, lately))
    lost.write_bytes(b"half of it")

    nodes.put()

    assert kept.stat().st_mtime == lately
    (found,) = fetch_whole([nodes.put()], nodes.store, nodes.second())
    assert same(found, nodes.layer)


def test_old_blocks_and_manifests_are_put_again(nodes: Nodes) -> None:
    nodes.put()
    for path in (nodes.top / "store").rglob("*"):
        os.utime(path, (1, 1))

    nodes.put()

    assert [path for path in (nodes.top / "store").rglob("*") if path.is_file() and path.stat().st_mtime == 1] == []


def test_old_blocks_of_a_bucket_are_put_again(tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    later_s = [0.0]
    store = open_store(s3.url, HASTY, lambda: time.time() + later_s[0])
    data = os.urandom(100)
    digest = hashlib.sha256(data).hexdigest()
    store.put_block(digest, data)

    assert store.has_block(digest, 100)
    later_s[0] = REFRESH_S
    assert not store.has_block(digest, 100)


def test_layer_that_was_put_long_ago_by_this_process_is_looked_at_again(nodes: Nodes) -> None:
    now = [0.0]
    putter = Putter(nodes.store, now=lambda: now[0])
    putter.put_image(IMAGE_ID, nodes.config, [nodes.layer])
    (manifest,) = (nodes.top / "store/layers").iterdir()
    manifest.unlink()

    now[0] = KNOWN_S - 1
    putter.put_image(IMAGE_ID, nodes.config, [nodes.layer])
    assert not manifest.exists()
    now[0] = KNOWN_S
    putter.put_image(IMAGE_ID, nodes.config, [nodes.layer])
    assert manifest.exists()


def test_image_that_takes_too_long_is_not_put(nodes: Nodes) -> None:
    now = iter([0.0, 0.0, PUT_S])

    with pytest.raises(BlockError, match=r"cannot put image im-1+: it took too long"):
        Putter(nodes.store, now=lambda: next(now)).put_image(IMAGE_ID, nodes.config, [nodes.layer])
    with pytest.raises(BlockError, match="does not have it"):
        nodes.store.get_image(IMAGE_ID)


def test_an_image_is_there_only_when_its_layers_are(nodes: Nodes) -> None:
    (nodes.top / "store/layers").mkdir(parents=True)
    (nodes.top / "store/layers").chmod(0o500)
    Path(nodes.layer.path).rename(Path(nodes.layer.path).with_name("away"))

    with pytest.raises(BlockError, match=f"cannot put layer {nodes.layer.layer_id}: .*: No such file"):
        nodes.put()

    assert not (nodes.top / "store/images").exists()


def test_a_layer_that_stays_at_its_removal_is_not_waited_for_once_nobody_wants_it(nodes: Nodes) -> None:
    """Held as a removal holds it: the other way."""
    digest = nodes.put()
    layers = nodes.second()
    (found,) = fetch_whole([digest], nodes.store, layers)
    descriptor = os.open(Path(found.path).parent / "manifest.json", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    asked: list[bool] = []

    def is_cancelled() -> bool:
        asked.append(True)
        return len(asked) > 2

    hold = LayerHolds(layers).begin("a test")
    try:
        with pytest.raises(BlockError, match=f"cannot fetch layer {found.layer_id}: it is being removed"):
            fetch_whole([digest], nodes.store, layers, is_cancelled, hold=hold)
    finally:
        os.close(descriptor)
    assert len(asked) == 3
    assert fetch_whole([digest], nodes.store, layers, hold=hold) == [found]
    hold.release()


@pytest.mark.parametrize("damage", ["truncated", "wrong", "missing"])
def test_a_bad_block_is_an_error_that_names_it_and_nothing_of_it_is_used(nodes: Nodes, damage: str) -> None:
    digest = nodes.put()
    name = nodes.store.get_layer(digest).blocks[-1]
    (block,) = (nodes.top / "store/blocks" / name[:2]).glob(f"{name}*")
    data = block.read_bytes()
    if damage == "missing":
        block.unlink()
    else:
        block.write_bytes(data[:-1] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))

    with pytest.raises(BlockError) as caught:
        fetch_whole([digest], nodes.store, nodes.second())

    said = str(caught.value)
    assert said.startswith(f"cannot fetch block 2 ({block.name[:12]}) of layer {nodes.layer.layer_id}: "), said
    assert f"file://{nodes.top}/store" in said
    causes = {
        "truncated": "the block is truncated",
        "wrong": "are not those of its hash",
        "missing": "does not have it",
    }
    assert causes[damage] in said
    assert damage == "missing" or said.endswith("(attempt 2)")
    assert nodes.second().list() == ()
    block.write_bytes(data)
    (found,) = fetch_whole([digest], nodes.store, nodes.second())
    assert same(found, nodes.layer)


@pytest.mark.parametrize("name", ["layers", "images"])
def test_a_damaged_manifest_is_refused(nodes: Nodes, name: str) -> None:
    digest = nodes.put()
    (path,) = (nodes.top / "store" / name).iterdir()
    path.write_bytes(path.read_bytes().replace(b"x", b"y").replace(b"/srv", b"/etc"))

    with pytest.raises(BlockError, match="its content is not that of its"):
        nodes.store.get_layer(digest) if name == "layers" else nodes.store.get_image(IMAGE_ID)


def test_what_came_before_is_not_fetched_again(nodes: Nodes) -> None:
    digest = nodes.put()
    manifest = nodes.store.get_layer(digest)
    partial = PartialLayer(digest, manifest, nodes.store, nodes.second())
    partial.ensure(0, 5)
    partial.close()
    # As a crash of the machine may leave it: the length is there, the bytes are not.
    image = nodes.top / "second/layers/.incoming" / layer_id_of(digest) / "layer.erofs"
    with image.open("r+b") as file:
        file.seek(3 * PART_BYTES)
        file.write(bytes(PART_BYTES))

    again = PartialLayer(digest, manifest, nodes.store, nodes.second())
    again.ensure(0, 5)
    fetched = again.fetched_bytes
    for run in again.runs():
        again.ensure(*run)
    found = again.keep()
    again.close()

    assert fetched == PART_BYTES
    assert same(found, nodes.layer)


def test_two_readers_fetch_a_part_once_and_a_store_that_fails_once_is_asked_again(nodes: Nodes) -> None:
    digest = nodes.put()
    with web_store(nodes.top / "store") as web:
        store = open_store(web.url, HASTY)
        fails = [True]
        web.damage = lambda path, data: None if "blocks" in path and fails and fails.pop() else data
        partial = PartialLayer(digest, store.get_layer(digest), store, nodes.second())

        assert partial.read(10, 100) == Path(nodes.layer.path).read_bytes()[10:110]
        assert partial.read(0, PART_BYTES) == Path(nodes.layer.path).read_bytes()[:PART_BYTES]

        assert partial.fetched_bytes == PART_BYTES
        assert len([path for path in web.requests if "blocks" in path]) == 2
        partial.close()


def test_a_store_that_does_not_answer_is_given_up_in_time(nodes: Nodes) -> None:
    digest = nodes.put()
    with web_store(nodes.top / "store") as web:
        manifest = nodes.store.get_layer(digest)
        web.gate.clear()
        store = open_store(web.url, HASTY.__class__(attempts=2, pause_s=0.01, answer_s=0.3))
        partial = PartialLayer(digest, manifest, store, nodes.second())
        begin_s = time.monotonic()

        with pytest.raises(BlockError, match=r"cannot fetch block 0 .*\(attempt 2\)"):
            partial.read(0, 10)

        assert time.monotonic() - begin_s < 5
        partial.close()


FETCHER = """
import sys
from pathlib import Path
from squall.agent.image.block.store import open_store
from squall.agent.image.block.whole import fetch_whole
from squall.agent.image.layer.store import LayerStore
print("begun", flush=True)
fetch_whole([sys.argv[1]], open_store(sys.argv[2]), LayerStore(Path(sys.argv[3]), is_packed=True))
"""


def test_whoever_is_killed_while_it_fetches_leaves_what_the_next_one_uses(nodes: Nodes) -> None:
    digest = nodes.put()
    with web_store(nodes.top / "store") as web:
        web.damage = lambda path, data: web.gate.clear() or data if "blocks" in path else data  # type: ignore[func-returns-value]
        command = [sys.executable, "-c", FETCHER, digest, web.url, str(nodes.top / "second")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "src"}) as process:
            deadline = time.monotonic() + 30
            while not any((nodes.top / "second").rglob("layer.erofs")) or not _has_data(nodes.top / "second"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        assert nodes.second().list() == ()
        web.damage = lambda path, data: data
        web.gate.set()
        time.sleep(0.1)
        before = web.sent_bytes

        (found,) = fetch_whole([digest], open_store(web.url, HASTY), nodes.second())

        assert same(found, nodes.layer)
        assert web.sent_bytes - before < 6 * 2**20


def _has_data(top: Path) -> bool:
    return any(path.stat().st_blocks for path in top.rglob("layer.erofs"))


async def test_an_image_built_on_one_node_starts_on_another(nodes: Nodes) -> None:
    built = BuiltImage(IMAGE_ID, (nodes.layer.path,), nodes.config)
    async with StoredImages(nodes.store, LayerHolds(nodes.layers), nodes.top / "first") as first:
        assert not first.was_put(IMAGE_ID)
        first.put_soon(built)
        await until(lambda: first.was_put(IMAGE_ID, nodes.config.layers), 20)
        assert not first.was_put(IMAGE_ID, ("ly-2",))

    second = nodes.second()
    async with StoredImages(nodes.store, LayerHolds(second), nodes.top / "second") as stored:
        assert stored.find_here(IMAGE_ID) is None
        holds = [stored.holds.begin("test") for _ in range(2)]
        found, other = await asyncio.gather(*(stored.find(IMAGE_ID, hold) for hold in holds))
        assert found is not None
        assert found == other == stored.find_here(IMAGE_ID)
        layers = tuple(Path(path).parent.name for path in found.layers)
        assert (found.config, found.image_id) == (replace(nodes.config, layers=layers), IMAGE_ID)
        assert Path(found.layers[0]).read_bytes() == Path(nodes.layer.path).read_bytes()
        assert await stored.find("im-" + "2" * 32, stored.holds.begin("test")) is None
        assert await stored.find("../escape", stored.holds.begin("test")) is None


async def test_an_image_that_is_here_needs_no_store_and_one_that_is_not_says_what_is_wrong(nodes: Nodes) -> None:
    nodes.put()
    async with StoredImages(nodes.store, LayerHolds(nodes.second()), nodes.top / "second") as stored:
        assert await stored.find(IMAGE_ID, stored.holds.begin("test"))
    dead = open_store("http://127.0.0.1:1", HASTY)

    async with StoredImages(dead, LayerHolds(nodes.second()), nodes.top / "second") as stored:
        assert stored.find_here(IMAGE_ID) is not None
        with pytest.raises(PlatformError, match=r"cannot use image im-2+: .* http://127\.0\.0\.1:1: ") as caught:
            await stored.find("im-" + "2" * 32, stored.holds.begin("test"))
        assert caught.value.code == "unavailable"


async def test_what_could_not_be_put_is_put_later(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squall.agent.image.block.stored.PUT_AGAIN_S", 0.05)
    block = nodes.top / "store/blocks"
    block.parent.mkdir(exist_ok=True)
    block.write_bytes(b"in the way")

    async with StoredImages(nodes.store, LayerHolds(nodes.layers), nodes.top / "first") as stored:
        stored.put_soon(BuiltImage(IMAGE_ID, (nodes.layer.path,), nodes.config))
        await asyncio.sleep(0.3)
        assert not stored.was_put(IMAGE_ID)
        block.unlink()
        await until(lambda: stored.was_put(IMAGE_ID), 20)


async def test_what_was_put_long_ago_is_put_again_if_the_store_has_lost_it(nodes: Nodes) -> None:
    built = BuiltImage(IMAGE_ID, (nodes.layer.path,), nodes.config)
    later_s = [0.0]
    holds = LayerHolds(nodes.layers)
    stored = StoredImages(nodes.store, holds, nodes.top / "first", now=lambda: time.time() + later_s[0])
    manifest = nodes.top / "store/images" / IMAGE_ID
    note = nodes.top / "first/images" / f"{IMAGE_ID}.put"
    async with stored:
        stored.put_soon(built)
        await until(lambda: note.exists() and not stored._to_put, 20)
        there = manifest.read_bytes()

        stored.put_soon(built)
        assert stored._to_put == {}, "it was put lately"
        later_s[0] = LOOK_AGAIN_S
        os.utime(note, (1, 1))
        stored.put_soon(built)
        await until(lambda: note.stat().st_mtime > 1 and not stored._to_put, 20)
        manifest.unlink()
        stored.put_soon(built)
        await until(manifest.exists, 20)

    assert manifest.read_bytes() == there


async def test_image_that_was_built_anew_elsewhere_is_learnt_anew_when_what_it_stood_on_is_gone(nodes: Nodes) -> None:
    digest = nodes.put()
    async with StoredImages(nodes.store, LayerHolds(nodes.second()), nodes.top / "second") as stored:
        hold = stored.holds.begin("test")
        assert await stored.find(IMAGE_ID, hold)
        hold.release()
        second = nodes.second()
        second.remove(layer_id_of(digest))
        (nodes.top / "store/layers" / digest).unlink()
        assert await stored.find(IMAGE_ID, hold) is None, "nobody has it"
        anew = make_layer(nodes.layers, key="b" * 64, seed=2)
        Putter(nodes.store).put_image(IMAGE_ID, replace(nodes.config, layers=(anew.layer_id,)), [anew])

        found = await stored.find(IMAGE_ID, hold)
        hold.release()

    assert found is not None
    assert Path(found.layers[0]).read_bytes() == Path(anew.path).read_bytes()
