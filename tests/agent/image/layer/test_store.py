"""The layer store on a directory of the test's own."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from squall.agent.disk import Space
from squall.agent.image.layer import store as layers
from squall.agent.image.layer.scratch import sweep_scratch
from squall.agent.image.layer.store import Layer, LayerError, LayerStore, stands_on, tree_size_bytes
from squall.agent.spread import make_apart
from squall.erofs.reader import Image

KEY = "a" * 64


def make_layer(store: LayerStore, key: str = KEY, text: str = "x", *, replaces: bool = False, below: str = "") -> Layer:
    with store.scratch() as scratch:
        tree = scratch.path / "fs"
        tree.mkdir()
        (tree / "file").write_text(text)
        return store.commit(scratch, tree, key, {"fact": text}, replaces=replaces, below=below)


def test_committed_layer_is_found_by_its_key_also_by_another_process(tmp_path: Path) -> None:
    made = make_layer(LayerStore(tmp_path))

    found = LayerStore(tmp_path).find(KEY)

    assert found == made
    assert Path(made.path, "file").read_text() == "x"
    assert made.facts == {"fact": "x"}
    assert made.size_bytes > 0
    assert LayerStore(tmp_path).list() == (made,)


def test_store_is_closed_to_other_users(tmp_path: Path) -> None:
    LayerStore(tmp_path)

    assert (tmp_path / "layers").stat().st_mode & 0o777 == 0o700


def test_first_layer_of_a_key_is_kept(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    first = make_layer(store)

    assert make_layer(store, text="second") == first
    assert Path(first.path, "file").read_text() == "x"


def test_forced_layer_takes_the_key_and_leaves_the_old_one_in_place(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    first = make_layer(store)

    forced = make_layer(store, text="second", replaces=True)

    assert store.find(KEY) == forced
    assert Path(first.path, "file").read_text() == "x"


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)

    with pytest.raises(FileNotFoundError), store.scratch() as scratch:
        store.commit(scratch, scratch.path / "missing", KEY, {}, replaces=False)

    assert store.find(KEY) is None
    assert list((tmp_path / "layers/.scratch").iterdir()) == []


def test_sweep_removes_what_nobody_locks_and_keeps_what_is_being_made(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    killed = multiprocessing.get_context("spawn").Process(target=_die_half_way, args=(tmp_path,))
    killed.start()
    killed.join(30)

    with store.scratch() as scratch:
        assert LayerStore(tmp_path).sweep() == 1
        assert list((tmp_path / "layers/.scratch").iterdir()) == [scratch.path]


@pytest.mark.parametrize("is_locked", [False, True], ids=["before it is opened", "before it is locked"])
def test_scratch_directory_that_is_swept_before_it_is_locked_is_made_again(
    is_locked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LayerStore(tmp_path)
    swept: list[int] = []

    def sweep_once(*_: object) -> None:
        if not swept:
            swept.append(0)
            swept[0] = sweep_scratch(tmp_path / "layers/.scratch")

    real_lock = fcntl.flock

    def make(path: Path) -> None:
        make_apart(path)
        sweep_once()

    def lock(descriptor: int, kind: int) -> None:
        sweep_once()
        real_lock(descriptor, kind)

    if is_locked:
        monkeypatch.setattr(fcntl, "flock", lock)
    else:
        monkeypatch.setattr("squall.agent.image.layer.scratch.make_apart", make)

    with store.scratch() as scratch:
        assert swept == [1]
        assert list((tmp_path / "layers/.scratch").iterdir()) == [scratch.path]
        assert LayerStore(tmp_path).sweep() == 0


def test_place_where_nothing_stays_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LayerStore(tmp_path)

    def make(path: Path) -> None:
        make_apart(path)
        path.rmdir()

    monkeypatch.setattr("squall.agent.image.layer.scratch.make_apart", make)

    with pytest.raises(FileNotFoundError, match="removed as soon as it was made"), store.scratch():
        pass


def _die_half_way(data_dir: Path) -> None:
    with LayerStore(data_dir).scratch() as scratch:
        (scratch.path / "half").write_text("x")
        os._exit(9)


def test_removed_layer_is_gone_with_its_key_and_removing_it_again_is_fine(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = make_layer(store)

    store.remove(layer.layer_id)
    store.remove(layer.layer_id)

    assert store.find(KEY) is None
    assert store.list() == ()
    with pytest.raises(LayerError, match="build its image again"):
        store.get(layer.layer_id)


def test_removing_a_replaced_layer_keeps_the_key_of_its_successor(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    old = make_layer(store)
    new = make_layer(store, text="second", replaces=True)

    store.remove(old.layer_id)

    assert store.find(KEY) == new


def test_no_id_is_given_twice(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    first = make_layer(store)
    store.remove(first.layer_id)

    second = make_layer(store, text="second")

    assert second.layer_id != first.layer_id


def test_key_has_a_layer_for_each_set_of_layers_it_was_built_on(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    lower, other = stands_on(["ly-1", "ly-2"]), stands_on(["ly-1", "ly-3"])

    one, two = make_layer(store, below=lower), make_layer(store, text="second", below=other)

    assert store.find(KEY) is None
    assert (store.find(KEY, lower), store.find(KEY, other)) == (one, two)
    assert make_layer(store, text="third", below=lower) == one
    store.remove(one.layer_id)
    assert (store.find(KEY, lower), store.find(KEY, other)) == (None, two)
    assert len(os.listdir(tmp_path / "layers/.keys")) == 1, "what points to nothing is not kept"


def test_what_a_layer_stands_on_is_the_layers_below_and_those_it_takes_from() -> None:
    stood_on = [([], []), (["a"], []), ([], ["a"]), (["a", "b"], []), (["a"], ["b"]), (["b", "a"], [])]

    assert len({stands_on(below, sources) for below, sources in stood_on}) == len(stood_on)
    assert stands_on([]) == ""


def test_base_of_an_earlier_version_is_found(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    made = Path(make_layer(store).path).parent
    values = json.loads((made / "manifest.json").read_text())
    del values["below"]
    layer_id = values["layer_id"] = f"ly-{KEY[:32]}"
    (made / "manifest.json").write_text(json.dumps(values))
    made.rename(made.parent / layer_id)
    (tmp_path / "layers/.keys" / KEY).write_text(layer_id)

    found = store.find(KEY)

    assert found is not None
    assert (found.layer_id, Path(found.path, "file").read_text()) == (layer_id, "x")
    assert store.remove(layer_id)
    assert store.find(KEY) is None


@pytest.mark.parametrize("is_packed", [True, False])
def test_layer_without_its_files_is_not_there(tmp_path: Path, is_packed: bool) -> None:
    store = LayerStore(tmp_path, is_packed=is_packed)
    lost, kept = make_layer(store), make_layer(store, "b" * 64)
    Path(lost.path).rename(tmp_path / "elsewhere")

    assert (store.find(KEY), store.look(lost.layer_id)) == (None, None)
    assert store.list() == (kept,)
    assert store.find(KEY) is None
    assert make_layer(store, text="again").facts == {"fact": "again"}


def test_layer_that_comes_takes_the_place_of_one_without_files(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, is_packed=True)
    lost = make_layer(store)
    place = store.incoming_dir / lost.layer_id
    place.mkdir()
    Path(lost.path).rename(place / "layer.erofs")

    found = store.take_in(place, lost.layer_id, KEY, {"fact": "x"})

    assert found.path == lost.path
    assert store.list() == (found,)


def test_image_that_is_cut_off_does_not_keep_others_from_being_listed(tmp_path: Path) -> None:
    packed = make_layer(LayerStore(tmp_path, is_packed=True))
    os.truncate(packed.path, 3_000)

    assert [layer.layer_id for layer in LayerStore(tmp_path).list()] == [packed.layer_id]


def test_use_of_a_layer_is_remembered_with_its_time(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = make_layer(store)
    os.utime(Path(layer.path).parent / "manifest.json", (1, 1))
    assert store.used_at(layer.layer_id) == 1

    store.mark_used(layer.layer_id)

    assert store.used_at(layer.layer_id) > 1


def test_key_is_locked_for_one_at_a_time(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)

    with (
        store.locked(KEY),
        pytest.raises(LayerError, match="another process"),
        LayerStore(tmp_path).locked(KEY, wait_s=0),
    ):
        raise AssertionError("both held the lock")

    with store.locked(KEY, wait_s=0):
        assert store.find(KEY) is None


def test_wait_for_a_lock_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    other = LayerStore(tmp_path)
    answers = iter([False, True])

    with (
        store.locked(KEY),
        pytest.raises(LayerError, match="another process"),
        other.locked(KEY, is_cancelled=lambda: next(answers)),
    ):
        raise AssertionError("both held the lock")


def test_who_waits_for_a_lock_hears_what_its_holder_says(tmp_path: Path) -> None:
    heard: list[str] = []
    has_all = threading.Event()

    def on_line(line: str) -> None:
        heard.append(line)
        if line == "three":
            has_all.set()

    def wait() -> None:
        with LayerStore(tmp_path).locked(KEY, on_line=on_line) as say:
            say("mine")

    with LayerStore(tmp_path).locked(KEY) as say:
        say("one")
        waiting = threading.Thread(target=wait)
        waiting.start()
        say("two\udc80")
        say("three")
        assert has_all.wait(20)
    waiting.join(20)

    assert [heard[0], *heard[2:]] == ["one", "three", "mine"]
    said: list[str] = []
    with LayerStore(tmp_path).locked(KEY, on_line=said.append):
        assert not said


def test_names_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)

    for name in ("../x", "", "ly-/etc"):
        with pytest.raises(LayerError, match="no key or id"):
            store.get(name)


def test_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 100_000)
    before = tree_size_bytes(tmp_path)

    os.link(tmp_path / "one", tmp_path / "two")

    assert tree_size_bytes(tmp_path) == before


def test_layer_is_kept_as_one_image_where_those_are_mounted(tmp_path: Path) -> None:
    made = make_layer(LayerStore(tmp_path, is_packed=True))

    found = LayerStore(tmp_path, is_packed=True).find(KEY)

    assert found == made
    assert Path(made.path).name == "layer.erofs"
    assert sorted(os.listdir(Path(made.path).parent)) == ["layer.erofs", "manifest.json"]
    assert made.size_bytes == Path(made.path).stat().st_size
    with Image(Path(made.path)) as image:
        assert [entry.name for entry in image.entries(image.root)] == [b"file"]


def test_equal_trees_are_equal_images(tmp_path: Path) -> None:
    stores = [LayerStore(tmp_path / name, is_packed=True) for name in ("one", "two")]
    images = []
    for store in stores:
        with store.scratch() as scratch:
            tree = scratch.path / "fs"
            tree.mkdir()
            (tree / "file").write_text("x")
            for path in (tree / "file", tree):
                os.utime(path, ns=(1, 1))
            images.append(Path(store.commit(scratch, tree, KEY, {}, replaces=False).path).read_bytes())

    assert images[0] == images[1]


def test_image_is_unpacked_for_a_kernel_that_mounts_none(tmp_path: Path) -> None:
    packed = make_layer(LayerStore(tmp_path, is_packed=True))
    store = LayerStore(tmp_path)

    found = store.find(KEY)

    assert found is not None
    assert Path(found.path, "file").read_text() == "x"
    assert found.layer_id == packed.layer_id
    assert store.find(KEY) == found
    assert LayerStore(tmp_path, is_packed=True).find(KEY) == packed
    assert list((tmp_path / "layers/.scratch").iterdir()) == []


def test_image_that_is_cut_off_is_no_layer_where_it_has_to_be_unpacked(tmp_path: Path) -> None:
    packed = make_layer(LayerStore(tmp_path, is_packed=True))
    os.truncate(packed.path, 3_000)

    with pytest.raises(
        LayerError, match=rf"cannot use layer {packed.layer_id}: not an EROFS image: .*; remove .* and build again"
    ):
        LayerStore(tmp_path).find(KEY)
    assert not (Path(packed.path).parent / "fs").exists()


def test_tree_that_cannot_be_packed_is_no_layer(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, is_packed=True)

    with (
        store.scratch() as scratch,
        pytest.raises(LayerError, match=r"cannot keep what the step wrote: cannot pack .*No such file"),
    ):
        store.commit(scratch, scratch.path / "missing", KEY, {}, replaces=False)

    assert store.find(KEY) is None
    assert list((tmp_path / "layers/.scratch").iterdir()) == []


def test_layer_that_would_take_what_the_machine_keeps_free_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squall.agent.image.layer.store.space_of", lambda path: Space(2**60, 1, spare_bytes=2**59))

    with pytest.raises(LayerError, match=r"cannot keep what the step wrote: cannot write image .* MB are kept; free"):
        make_layer(LayerStore(tmp_path, is_packed=True))
    assert list((tmp_path / "layers/.scratch").iterdir()) == []


def test_directories_of_earlier_versions_are_used_beside_images(tmp_path: Path) -> None:
    old = make_layer(LayerStore(tmp_path))

    assert LayerStore(tmp_path, is_packed=True).find(KEY) == old


@pytest.mark.parametrize(
    ("command", "message"),
    [("kill -9 $$", "it ended with status -9"), ("exec sleep 60", "not packed after 0 s"), ("exit 3", "status 3")],
)
def test_packing_that_is_killed_or_hangs_leaves_no_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    monkeypatch.setattr(layers, "own_program", lambda *arguments: ("sh", "-c", f"exec 2>&-; {command}"))
    monkeypatch.setattr(layers, "_PACK_TIMEOUT_S", 0.3)
    store = LayerStore(tmp_path, is_packed=True)

    with pytest.raises(LayerError, match=f"cannot keep what the step wrote: .*{message}"):
        make_layer(store)

    assert store.find(KEY) is None
    assert store.list() == ()
    assert list((tmp_path / "layers/.scratch").iterdir()) == []


def test_what_packs_holds_the_lock_of_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    monkeypatch.setattr(layers, "own_program", lambda *arguments: ("sh", "-c", f"ls -l /proc/self/fd >{seen}; exit 1"))

    with pytest.raises(LayerError):
        make_layer(LayerStore(tmp_path / "data", is_packed=True))

    # Inherited: when whoever asked is killed, nobody sweeps it away meanwhile.
    assert f" {tmp_path}/data/layers/.scratch/" in seen.read_text()
