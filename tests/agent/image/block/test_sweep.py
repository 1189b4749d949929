"""Garbage in a store: what goes, what stays, and that nothing that is needed goes, whatever happens in between."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from squall.agent.image.block.errors import BlockError, NotInStore
from squall.agent.image.block.manifest import ImageManifest, LayerManifest
from squall.agent.image.block.put import KNOWN_S, PUT_S, Putter
from squall.agent.image.block.store import (
    BLOCKS,
    BUSY,
    IMAGES,
    LAYERS,
    REFRESH_S,
    REMOVED,
    USED,
    BlockStore,
    open_store,
)
from squall.agent.image.block.sweep import Sweep, Swept
from squall.agent.image.block.turn import SWEEP, NotNow, Turn
from squall.agent.image.layer.store import IMAGE_NAME, Layer
from squall.protocol.image import ImageConfig
from squall.protocol.image_store import DAY_S, GRACE_S
from tests.agent.image.block.stores import HASTY, KEY, S3Server, store_in

NEEDED, OTHER = "im-" + "1" * 32, "im-" + "2" * 32
LATER_S = GRACE_S + 60.0


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass
class Sweeping:
    """A removal of garbage at a time to come, by the store's clock."""

    store: BlockStore
    later_s: float = LATER_S
    lines: list[str] = field(default_factory=list)

    def run(
        self,
        *needed: str,
        older_than_s: float = GRACE_S,
        is_dry_run: bool = False,
        on_line: Callable[[str], None] = lambda line: None,
        wait: Callable[[float], None] = time.sleep,
    ) -> Swept:
        def tell(line: str) -> None:
            self.lines.append(line)
            on_line(line)

        with Turn(self.store, SWEEP, wait=wait) as turn:
            turn.begun_at += self.later_s
            kept = frozenset(needed)
            return Sweep(self.store, turn, kept, older_than_s, is_dry_run=is_dry_run, tell=tell).run()


def put(store: BlockStore, image_id: str, *contents: bytes) -> ImageManifest:
    """An image with one layer of one block for each of these."""
    layers = []
    for content in contents:
        digest = hashlib.sha256(content)
        store.put_block(digest.hexdigest(), content)
        manifest = LayerManifest("ly-1", KEY, len(content), (digest.hexdigest(),), digest.digest())
        layers.append(store.put_layer(manifest))
    image = ImageManifest(image_id, ImageConfig(layers=("ly-1",)), tuple(layers))
    store.put_image(image)
    return image


def keys(store: BlockStore, *kinds: str) -> set[str]:
    return {found.key for kind in kinds or (IMAGES, LAYERS, BLOCKS) for found in store.list(kind)}


def is_whole(store: BlockStore, image: ImageManifest) -> bool:
    """Whether all that an image names can be had."""
    try:
        for digest in image.layers:
            layer = store.get_layer(digest)
            assert store.get_range(layer, 0, layer.size_bytes, lambda data: None)
    except NotInStore:
        return False
    return True


def images_of(store: BlockStore) -> list[ImageManifest]:
    return [store.get_image(found.name) for found in store.list(IMAGES)]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.long)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlockStore:
    if request.param == "folder":
        return store_in(tmp_path / "store")
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    return open_store(f"{server.url}/{hashlib.sha256(str(tmp_path).encode()).hexdigest()}", HASTY)


@pytest.fixture
def folder(tmp_path: Path) -> BlockStore:
    return store_in(tmp_path / "store")


def test_image_that_nothing_needs_goes_and_its_layers_a_grace_later(store: BlockStore) -> None:
    needed = put(store, NEEDED, b"shared", b"own")
    other = put(store, OTHER, b"shared", b"garbage")
    store.put_trace(OTHER, b"trace")

    first = Sweeping(store).run(NEEDED)
    between = is_whole(store, needed), is_whole(store, other), keys(store, IMAGES)
    second = Sweeping(store).run(NEEDED)

    assert (first.images.count, first.images.removed, first.layers.removed, first.blocks.removed) == (2, 1, 0, 0)
    assert between == (True, True, {f"images/{NEEDED}"})
    assert (second.waiting.removed, second.layers.removed, second.blocks.removed) == (1, 1, 1)
    assert (second.layers.count, second.blocks.count, second.blocks.removed_bytes) == (3, 3, len(b"garbage"))
    assert is_whole(store, needed)
    assert len(keys(store)) == 5
    assert keys(store, REMOVED, USED, BUSY) == set()


def test_what_is_young_stays(store: BlockStore) -> None:
    put(store, OTHER, b"one")
    orphan = hashlib.sha256(b"orphan").hexdigest()
    store.put_block(orphan, b"orphan")
    there = keys(store)

    swept = Sweeping(store, GRACE_S - 60.0).run(older_than_s=0.0)

    assert keys(store) == there
    assert swept.images.removed + swept.layers.removed + swept.blocks.removed == 0


def test_blocks_of_an_image_that_was_never_put_go(store: BlockStore) -> None:
    needed = put(store, NEEDED, b"own")
    orphan = hashlib.sha256(b"orphan").hexdigest()
    store.put_block(orphan, b"orphan")

    swept = Sweeping(store).run(NEEDED)

    assert (swept.blocks.removed, swept.blocks.removed_bytes) == (1, 6)
    assert is_whole(store, needed)


def test_dry_run_tells_the_same_and_removes_nothing(store: BlockStore) -> None:
    put(store, NEEDED, b"own")
    put(store, OTHER, b"garbage")
    store.put_block(hashlib.sha256(b"orphan").hexdigest(), b"orphan")
    there = keys(store)

    dry = Sweeping(store).run(NEEDED, is_dry_run=True)

    assert keys(store) == there
    assert keys(store, REMOVED) == set()
    assert Sweeping(store).run(NEEDED) == dry


def test_image_that_another_server_has_noted_as_used_stays(folder: BlockStore) -> None:
    image = put(folder, OTHER, b"content")
    folder.put_mark(f"{USED}/{OTHER}")
    age(folder, 40 * DAY_S, IMAGES, LAYERS, BLOCKS)
    age(folder, 20 * DAY_S, USED)

    stayed = Sweeping(folder, 0.0).run(older_than_s=30 * DAY_S)
    age(folder, 31 * DAY_S, USED)
    gone = Sweeping(folder, 0.0).run(older_than_s=30 * DAY_S)

    assert (stayed.images.removed, gone.images.removed) == (0, 1)
    assert is_whole(folder, image)
    assert keys(folder, USED) == set()


def test_layers_of_a_removed_image_stay_for_those_who_fetch_it(folder: BlockStore) -> None:
    image = put(folder, OTHER, b"content")
    age(folder, 40 * DAY_S, IMAGES, LAYERS, BLOCKS)

    for _ in range(2):
        Sweeping(folder, 0.0).run()
        assert is_whole(folder, image)
    age(folder, 8 * DAY_S, REMOVED)
    Sweeping(folder, 0.0).run()

    assert keys(folder, IMAGES, LAYERS, BLOCKS, REMOVED) == set()


def test_replaced_image_keeps_its_layers_for_those_who_fetch_it(folder: BlockStore, tmp_path: Path) -> None:
    before = put(folder, NEEDED, b"before")
    age(folder, 8 * DAY_S, IMAGES, LAYERS, BLOCKS)
    Putter(folder).put_image(NEEDED, ImageConfig(layers=("ly-2",)), [layer_of(tmp_path, b"after")])

    Sweeping(folder, 0.0).run(NEEDED)
    assert is_whole(folder, before)
    age(folder, 8 * DAY_S, REMOVED)
    Sweeping(folder, 0.0).run(NEEDED)
    assert not is_whole(folder, before)
    assert all(is_whole(folder, image) for image in images_of(folder))


@pytest.mark.long
@pytest.mark.parametrize("end", [Killed, BlockError], ids=["killed", "failing"])
def test_sweep_that_ends_anywhere_leaves_nothing_that_names_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    """Before and after each single thing that it changes."""
    template = store_in(tmp_path / "template")
    put(template, NEEDED, b"shared", b"own")
    put(template, OTHER, b"shared", b"garbage")
    template.keep_removed(put(template, "im-" + "3" * 32, b"shared", b"long gone"))
    template.remove(["images/im-" + "3" * 32])
    template.put_block(hashlib.sha256(b"orphan").hexdigest(), b"orphan")
    age(template, 8 * DAY_S, IMAGES, LAYERS, BLOCKS, REMOVED)
    number = 0
    while True:
        number += 1
        store = store_in(tmp_path / str(number))
        shutil.copytree(tmp_path / "template", tmp_path / str(number), dirs_exist_ok=True)
        if not ends_at(number, store, monkeypatch, end):
            break
        assert {image.image_id for image in images_of(store)} >= {NEEDED}
        assert all(is_whole(store, image) for image in images_of(store)), f"at {number}"
        for digest in (found.name for found in store.list(LAYERS)):
            assert keys(store, BLOCKS) >= {f"blocks/{one[:2]}/{one}" for one in store.get_layer(digest).blocks}
        store.remove(sorted(keys(store, BUSY)) or ["busy/none"])
        Sweeping(store, 0.0).run(NEEDED)
        age(store, 8 * DAY_S, REMOVED)
        Sweeping(store, 0.0).run(NEEDED)
        assert len(keys(store)) == 5, f"at {number}: what was left has gone with the next ones"
    # Two manifests, their layers, blocks, the turn: each has a before and an after.
    assert number > 10


def ends_at(number: int, store: BlockStore, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]) -> bool:
    """Sweep, and end before (odd numbers) or after (even ones) the store is changed for the so-manieth time."""
    steps = [0]

    def ending(change: Callable[..., None]) -> Callable[..., None]:
        def changed(self: BlockStore, *what: object) -> None:
            for step in (0, 1):
                steps[0] += 1
                if steps[0] == number:
                    raise end("it ends here")
                if step == 0:
                    change(self, *what)

        return changed

    with monkeypatch.context() as patched:
        for name in ("remove", "keep_removed"):
            patched.setattr(BlockStore, name, ending(getattr(BlockStore, name)))
        try:
            Sweeping(store, 0.0).run(NEEDED)
        except (Killed, BlockError):
            return True
    # The last one gives the turn back, and a store that fails then is no failure of the sweep.
    return steps[0] >= number


def test_image_put_while_garbage_is_removed_waits_and_is_whole(folder: BlockStore, tmp_path: Path) -> None:
    garbage = b"garbage"
    folder.put_block(hashlib.sha256(garbage).hexdigest(), garbage)
    age(folder, 8 * DAY_S, BLOCKS)
    layer = layer_of(tmp_path, garbage)
    refusals: list[BlockError] = []

    def put_meanwhile(line: str) -> None:
        try:
            Putter(folder).put_image(NEEDED, ImageConfig(layers=("ly-2",)), [layer])
        except NotNow as error:
            refusals.append(error)

    Sweeping(folder, 0.0).run(on_line=put_meanwhile)
    Putter(folder).put_image(NEEDED, ImageConfig(layers=("ly-2",)), [layer])

    assert refusals
    assert "garbage is being removed from file://" in str(refusals[0])
    assert is_whole(folder, folder.get_image(NEEDED))


def test_removal_waits_for_an_image_that_is_being_put(folder: BlockStore, tmp_path: Path) -> None:
    """Which has found a block that would go."""
    garbage = b"garbage"
    folder.put_block(hashlib.sha256(garbage).hexdigest(), garbage)
    layer = layer_of(tmp_path, garbage)
    has_begun, may_end = threading.Event(), threading.Event()

    def is_cancelled() -> bool:
        has_begun.set()
        assert may_end.wait(60)
        return False

    def wait(seconds: float) -> None:
        may_end.set()
        putting.join(60)

    putter = Putter(folder, is_cancelled)
    putting = threading.Thread(target=putter.put_image, args=(NEEDED, ImageConfig(layers=("ly-2",)), [layer]))
    putting.start()
    try:
        assert has_begun.wait(60)
        swept = Sweeping(folder).run(NEEDED, wait=wait)
    finally:
        may_end.set()
        putting.join(60)

    assert swept.images.count == 1
    assert is_whole(folder, folder.get_image(NEEDED))


def test_nothing_that_a_new_image_names_can_be_older_than_the_grace() -> None:
    assert REFRESH_S + KNOWN_S + PUT_S + DAY_S <= GRACE_S


@pytest.mark.parametrize("kind", [IMAGES, LAYERS, REMOVED])
def test_manifest_that_cannot_be_read_ends_it_before_what_it_could_name_goes(folder: BlockStore, kind: str) -> None:
    folder.keep_removed(put(folder, NEEDED, b"content"))
    for name in ("orphan", "another"):
        folder.put_block(hashlib.sha256(name.encode()).hexdigest(), name.encode())
    age(folder, 8 * DAY_S, BLOCKS)
    (damaged,) = (path for path in place(folder, kind).rglob("*") if path.is_file())
    damaged.write_bytes(damaged.read_bytes()[:-1])

    with pytest.raises(BlockError, match=r"cannot fetch .*: file://.*: its content is not that of its"):
        Sweeping(folder, 0.0).run(NEEDED)

    assert len(keys(folder, BLOCKS)) == 3


def test_image_of_a_later_version_ends_it(folder: BlockStore) -> None:
    put(folder, NEEDED, b"content")
    body = (place(folder, IMAGES) / NEEDED).read_bytes().partition(b"\n")[2].replace(b'"version":1', b'"version":2')
    seal = hashlib.sha256(body).hexdigest().encode()
    (place(folder, IMAGES) / NEEDED).write_bytes(seal + b"\n" + body)

    with pytest.raises(BlockError, match="it is of another version of Squall"):
        Sweeping(folder).run(NEEDED)

    assert len(keys(folder)) == 3


def test_what_is_not_of_a_store_of_layers_is_left_alone(folder: BlockStore) -> None:
    for key in ("images/notes.txt", "layers/README", "blocks/ab/notes", "elsewhere"):
        folder.put_mark(key)

    Sweeping(folder).run()

    assert keys(folder) == {"images/notes.txt", "layers/README", "blocks/ab/notes"}


@pytest.mark.long
def test_bucket_that_fails_in_the_middle_is_told_with_what_it_was_asked(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with S3Server() as server:
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        store = open_store(server.url, HASTY)
        put(store, NEEDED, b"content")

        def end(line: str) -> None:
            if line == "looking at the blocks":
                server.process.kill()
                server.process.wait(20)

        with pytest.raises(BlockError, match=r"cannot list blocks: s3://layers/some/where: .*\(attempt 2\)"):
            Sweeping(store).run(NEEDED, on_line=end)


def test_sweep_that_was_stopped_for_long_removes_nothing(folder: BlockStore) -> None:
    folder.put_block(hashlib.sha256(b"orphan").hexdigest(), b"orphan")
    elapsed = [0.0]

    def sleep_long(line: str) -> None:
        elapsed[0] += 301.0 if line == "looking at the blocks" else 0.0

    with Turn(folder, SWEEP, elapsed=lambda: elapsed[0]) as turn:
        turn.begun_at += LATER_S
        with pytest.raises(NotNow, match=r"the turn in file://.* was lost: its mark was not put for 301 s; try again"):
            Sweep(folder, turn, frozenset(), 0.0, tell=sleep_long).run()

    assert len(keys(folder, BLOCKS)) == 1


def age(folder: BlockStore, age_s: float, *kinds: str) -> None:
    """Let all of these kinds be so old."""
    at = time.time() - age_s
    for kind in kinds:
        for path in place(folder, kind).rglob("*"):
            if path.is_file():
                os.utime(path, (at, at))


def place(folder: BlockStore, kind: str) -> Path:
    return Path(folder.name.removeprefix("file://")) / kind


def layer_of(top: Path, content: bytes) -> Layer:
    """A layer of one block."""
    path = top / hashlib.sha256(content).hexdigest() / IMAGE_NAME
    path.parent.mkdir()
    path.write_bytes(content)
    return Layer("ly-" + "2" * 32, KEY, str(path), len(content))
