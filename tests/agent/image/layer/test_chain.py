"""Which layers of a deep chain are replaced by merged ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from squall.agent.image.layer import chain
from squall.agent.image.layer.chain import merges, shortened
from squall.agent.image.layer.store import Layer, LayerError, LayerStore
from squall.erofs.reader import Image


def layers(count: int) -> list[Layer]:
    return [Layer(f"ly-{number:032x}", f"{number:064x}", f"/layers/{number}", 1) for number in range(count)]


def test_short_chain_stays_as_it_is() -> None:
    short = layers(chain.DEPTH_MAX)

    assert merges(short) == []
    assert shortened(short, {}) == short


def test_whole_groups_above_the_base_are_merged_once_a_chain_is_deep() -> None:
    deep = layers(chain.DEPTH_MAX + 72)

    wanted = merges(deep)
    merged = {one.key: Layer(f"ly-{number}", one.key, f"/merged/{number}", 1) for number, one in enumerate(wanted)}
    found = shortened(deep, merged)

    assert [len(one.layers) for one in wanted] == [chain.GROUP] * 3
    assert [layer.path for layer in found[:4]] == ["/layers/0", "/merged/0", "/merged/1", "/merged/2"]
    assert found[4:] == deep[1 + 3 * chain.GROUP :]


def test_a_group_that_is_not_merged_yet_is_taken_as_it_is() -> None:
    deep = layers(chain.DEPTH_MAX + 1)
    _, second = merges(deep)

    found = shortened(deep, {second.key: Layer("ly-m", second.key, "/merged", 1)})

    assert found == [*deep[: 1 + chain.GROUP], found[1 + chain.GROUP]]
    assert found[-1].path == "/merged"


def test_images_with_the_same_first_layers_share_what_is_merged() -> None:
    one, other = layers(chain.DEPTH_MAX + 1), layers(chain.DEPTH_MAX + 40)
    other[-1] = Layer("ly-another", "f" * 64, "/another", 1)
    rebuilt = [*one[:5], Layer("ly-rebuilt", one[5].key, "/rebuilt", 1), *one[6:]]

    assert [wanted.key for wanted in merges(one)] == [wanted.key for wanted in merges(other)][:2]
    assert merges(rebuilt)[0].key != merges(one)[0].key
    assert merges(rebuilt)[1].key == merges(one)[1].key


def test_no_chain_is_deeper_than_the_kernel_stacks() -> None:
    for count in (chain.DEPTH_MAX, 1_000, 10_000):
        deep = layers(count)
        merged = {one.key: deep[0] for one in merges(deep)}
        # Up to two more come on top: the files of mounts, and the packages that builds share.
        assert len(shortened(deep, merged)) + 2 <= 500


@pytest.mark.long
@pytest.mark.parametrize("is_packed", [True, False])
def test_merged_layer_is_made_once_and_kept_as_the_others_are(tmp_path: Path, is_packed: bool) -> None:
    store = LayerStore(tmp_path, is_packed=is_packed)
    made = [make_layer(store, f"{number}" * 64, number) for number in (1, 2)]

    merged = store.merge(made, "f" * 64)
    again = store.merge(made, "f" * 64)

    assert again == merged == store.find("f" * 64)
    assert names(merged) == {"both", "only-1", "only-2"}
    assert len(store.list()) == 3
    assert os.listdir(tmp_path / "layers/.scratch") == []


def test_merging_what_is_damaged_leaves_nothing(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, is_packed=True)
    made = [make_layer(store, f"{number}" * 64, number) for number in (1, 2)]
    Path(made[0].path).write_bytes(b"damaged" * 1_000)

    with pytest.raises(LayerError, match="cannot keep what the step wrote: not an EROFS image"):
        store.merge(made, "f" * 64)

    assert store.find("f" * 64) is None
    assert os.listdir(tmp_path / "layers/.scratch") == []


def make_layer(store: LayerStore, key: str, number: int) -> Layer:
    with store.scratch() as scratch:
        tree = scratch.path / "tree"
        tree.mkdir()
        (tree / "both").write_text(f"{number}")
        (tree / f"only-{number}").write_text("x")
        return store.commit(scratch, tree, key, {}, replaces=False)


def names(layer: Layer) -> set[str]:
    """The names at the top of a layer."""
    if os.path.isdir(layer.path):
        return set(os.listdir(layer.path))
    with Image(Path(layer.path)) as image:
        return {os.fsdecode(entry.name) for entry in image.entries(image.root)}
