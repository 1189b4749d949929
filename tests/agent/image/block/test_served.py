"""Layers that a daemon serves: who has one open reads it to the end, whatever becomes of it meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.agent.image.block import served as served_module
from squall.agent.image.block.manifest import layer_id_of
from squall.agent.image.block.put import Putter
from squall.agent.image.block.served import Served, ServedLayers
from squall.agent.image.layer.store import LayerStore
from squall.protocol.image import ImageConfig
from tests.agent.image.block.stores import make_layer, store_in

pytestmark = pytest.mark.long

IMAGE_ID = "im-" + "1" * 32


class Serving:
    """A layer of a store, served on a node that lacks it."""

    def __init__(self, top: Path) -> None:
        store = store_in(top / "store")
        made = make_layer(LayerStore(top / "first", is_packed=True))
        Putter(store).put_image(IMAGE_ID, ImageConfig(), [made])
        (self.digest,) = store.get_image(IMAGE_ID).layers
        self.name = layer_id_of(self.digest)
        self.bytes = Path(made.path).read_bytes()
        self.layers = LayerStore(top / "second", is_packed=True)
        self.served = ServedLayers(store, self.layers)

    def add(self) -> str:
        return self.served.add(IMAGE_ID, [self.digest], [self.digest])[self.digest]

    def open(self) -> Served:
        opened = self.served.open(self.name)
        assert opened is not None
        return opened

    def complete(self) -> None:
        found = self.served.find(self.name)
        assert found is not None
        assert self.served._complete(found)

    def reads(self, opened: Served) -> bool:
        return self.served.read(opened, 100, 2**17) == self.bytes[100 : 100 + 2**17]


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serving:
    monkeypatch.setattr(served_module, "QUIET_S", 0.0)
    return Serving(tmp_path)


def test_whole_layer_stays_for_who_was_told_of_it_and_who_has_it_open(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert serving.add() == serving.name
    serving.complete()
    serving.served.drop_unused()
    opened = serving.open()
    monkeypatch.setattr(served_module, "MOUNTED_WITHIN_S", -1.0)

    serving.served.drop_unused()
    assert serving.reads(opened)
    serving.served.close(opened)
    serving.served.drop_unused()

    assert serving.served.open(serving.name) is None
    assert serving.add() == str(serving.layers.get(serving.name).path)


def test_reading_of_others_keeps_no_whole_layer(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.add()
    serving.complete()
    monkeypatch.setattr(served_module, "MOUNTED_WITHIN_S", 60.0)
    served = serving.open()
    serving.served.close(served)
    served.kept_s = served.told_s = served.kept_s - 61.0

    serving.served._wanted_s += 1.0
    serving.served.drop_unused()

    assert serving.served.names() == []


def test_layer_that_was_removed_while_it_was_open_comes_anew(serving: Serving) -> None:
    serving.add()
    serving.complete()
    opened = serving.open()
    assert serving.layers.remove(serving.name)

    assert serving.add() == serving.name
    again = serving.open()
    serving.served.drop_unused()

    assert again is not opened
    assert (serving.reads(opened), serving.reads(again)) == (True, True)
    assert serving.served.state()["opens"] == 2
    serving.complete()
    assert Path(serving.add()).read_bytes() == serving.bytes
    serving.served.close(opened)
    serving.served.drop_unused()
    assert serving.served.state()["layers"] == 1
