"""Layers in use are kept, by whomever in whichever process."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.lock import try_lock
from squall.agent.image.layer.store import LayerError, LayerStore
from tests.agent.image.layer.test_store import KEY, make_layer


def test_held_layer_stays_and_its_users_are_named(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = make_layer(store)
    holds = LayerHolds(store)
    first, second = holds.begin("container ct-1"), holds.begin("build of im-1")

    assert first.add(layer.layer_id)
    assert second.add_paths([layer.path, "/elsewhere/fs"])
    users = holds.users(layer.layer_id)
    first.release()

    assert users == ("build of im-1", "container ct-1")
    with pytest.raises(LayerError, match="it is in use"):
        LayerStore(tmp_path).remove(layer.layer_id)
    second.release()
    second.release()
    assert holds.users(layer.layer_id) == ()
    assert store.remove(layer.layer_id)


def test_what_is_gone_cannot_be_held(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = make_layer(store)
    store.remove(layer.layer_id)
    hold = LayerHolds(store).begin("late")

    assert not hold.add(layer.layer_id)
    assert not hold.add_paths([layer.path])
    hold.release()


def test_layer_is_held_on_a_disk_that_has_no_room_for_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_full(place: int | str) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    store = LayerStore(tmp_path)
    layer = make_layer(store)
    holds = LayerHolds(store)
    monkeypatch.setattr(os, "utime", is_full)
    hold = holds.begin("container ct-1")

    assert hold.add(layer.layer_id)
    assert holds.users(layer.layer_id) == ("container ct-1",)
    hold.release()
    monkeypatch.undo()
    assert store.remove(layer.layer_id)


def test_layer_removed_between_opening_and_locking_it_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LayerStore(tmp_path)
    layer = make_layer(store)

    def remove_first(descriptor: int, kind: int) -> bool:
        monkeypatch.setattr("squall.agent.image.layer.store.try_lock", try_lock)
        assert store.remove(layer.layer_id)
        return try_lock(descriptor, kind)

    monkeypatch.setattr("squall.agent.image.layer.store.try_lock", remove_first)

    assert not LayerHolds(store).begin("late").add(layer.layer_id)


def test_taking_and_letting_go_count_as_use(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = make_layer(store)
    manifest = Path(layer.path).parent / "manifest.json"
    hold = LayerHolds(store).begin("long")
    used_at = []

    for change in (lambda: hold.add(layer.layer_id), hold.release):
        os.utime(manifest, (1, 1))
        change()
        used_at.append(store.used_at(layer.layer_id))

    assert min(used_at) > 1


def test_layer_used_since_is_not_removed(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = make_layer(store)
    os.utime(Path(layer.path).parent / "manifest.json", (100, 100))

    assert not store.remove(layer.layer_id, used_before=100)
    assert store.remove(layer.layer_id, used_before=101)


def test_layer_whose_key_is_being_built_is_not_removed(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = make_layer(store)

    with store.locked(KEY), pytest.raises(LayerError, match="it is being built anew"):
        store.remove(layer.layer_id)

    assert store.find(KEY) == layer


def test_other_process_keeps_a_layer_until_it_is_killed(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = make_layer(store)
    ours, theirs = multiprocessing.Pipe()
    arguments = (tmp_path, layer.layer_id, theirs)
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=arguments, daemon=True)
    process.start()
    assert ours.poll(30)
    assert ours.recv()

    with pytest.raises(LayerError, match="it is in use"):
        store.remove(layer.layer_id)
    process.kill()
    process.join(30)

    assert store.remove(layer.layer_id)


def _hold(data_dir: Path, layer_id: str, told: Connection) -> None:
    told.send(LayerHolds(LayerStore(data_dir)).begin("other").add(layer_id))
    time.sleep(60)


@pytest.mark.parametrize("at", ["rename", "unlink"])
def test_removal_killed_half_way_leaves_a_whole_layer_or_none(tmp_path: Path, at: str) -> None:
    store = LayerStore(tmp_path)
    layer = make_layer(store)
    process = multiprocessing.get_context("spawn").Process(target=_die_removing, args=(tmp_path, layer.layer_id, at))
    process.start()
    process.join(30)
    assert process.exitcode == 9

    left = LayerStore(tmp_path)
    left.sweep()

    assert left.find(KEY) is None
    assert list((tmp_path / "layers/.scratch").iterdir()) == []
    for found in left.list():
        assert Path(found.path, "file").read_text() == "x"
    assert make_layer(left, text="again").key == KEY
    assert left.find(KEY) is not None


def _die_removing(data_dir: Path, layer_id: str, at: str) -> None:
    store, rename = LayerStore(data_dir), os.rename

    def die_renaming(source: Path, target: Path) -> None:
        if layer_id in str(source):
            os._exit(9)
        rename(source, target)

    with pytest.MonkeyPatch.context() as monkeypatch:
        if at == "rename":
            monkeypatch.setattr(os, "rename", die_renaming)
        else:
            monkeypatch.setattr("squall.agent.image.layer.scratch.remove_tree", lambda path: os._exit(9))
        store.remove(layer_id)


@pytest.mark.long
def test_what_is_held_is_there_however_many_take_and_remove(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    holds = LayerHolds(store)
    wrong: list[str] = []
    is_over = threading.Event()

    def use() -> None:
        while not is_over.is_set():
            with store.locked(KEY):
                layer = store.find(KEY) or make_layer(store)
            hold = holds.begin("user")
            if hold.add(layer.layer_id) and not Path(layer.path, "file").exists():
                wrong.append(layer.layer_id)
            hold.release()

    users = [threading.Thread(target=use) for _ in range(4)]
    for thread in users:
        thread.start()
    removed = 0
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        for layer in store.list():
            try:
                removed += LayerStore(tmp_path).remove(layer.layer_id)
            except LayerError:
                continue
    is_over.set()
    for thread in users:
        thread.join(30)

    assert removed > 5
    assert wrong == []
