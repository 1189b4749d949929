"""Grafts: beside what is there, as one by one; never longer than a path may be; as cheap as the store is small."""

from __future__ import annotations

import random

import pytest

from squall.protocol.volume import DEPTH_MAX, PATH_BYTES_MAX
from squall.server.model.volume import MemoryNodes
from squall.server.volume import graft as module
from squall.server.volume.entry import DIRECTORY, Entry
from squall.server.volume.graft import Graft, TooMany
from squall.server.volume.tree import PathError, TreeEditor, change_counts, find, parts_of, top_of, walk
from tests.server.volume.test_tree import listed, tree_of


def entry_at(nodes: MemoryNodes, root: str, path: str) -> Entry:
    found = find(nodes, root, path)
    assert found is not None
    return found


def grafted(nodes: MemoryNodes, root: str, source: str, path: str, *, is_trimmed: bool = False) -> tuple[str, int]:
    """The tree, and how much was left out."""
    editor = TreeEditor(nodes, root)
    graft = Graft(editor, nodes)
    graft.put(entry_at(nodes, root, source), path, is_forced=True, is_trimmed=is_trimmed)
    return editor.write(), graft.left_out_count


@pytest.mark.parametrize("seed", range(20))
def test_a_directory_comes_beside_what_is_there_as_its_entries_would_one_by_one(seed: int) -> None:
    chance, nodes = random.Random(seed), MemoryNodes()
    files = {}
    for _ in range(30):
        files["/".join(chance.choice("abc") for _ in range(chance.randrange(1, 5)))] = chance.randrange(1, 99)
    root = tree_of(nodes, {f"{top}/{path}": number for path, number in files.items() for top in "xy"})
    root = tree_of(nodes, {f"x/{chance.choice('abcd')}/{chance.choice('abcd')}": 100 for _ in range(5)}, root)
    one_by_one = TreeEditor(nodes, root)
    for path, entry in list(walk(nodes, entry_at(nodes, root, "x"), "y", is_deep=True)):
        is_directory = entry.kind == DIRECTORY
        one_by_one.put(path, entry._replace(node="", below=0, size=0) if is_directory else entry)

    assert grafted(nodes, root, "x", "y")[0] == one_by_one.write()


def test_an_empty_directory_that_is_there_stays_what_it_is_and_takes_all() -> None:
    nodes = MemoryNodes()
    editor = TreeEditor(nodes, tree_of(nodes, {"a/b/c": 1}))
    editor.put("there", Entry("", DIRECTORY, 0o700))
    editor.put("a/b", Entry("", DIRECTORY, 0o711))
    root, _ = grafted(nodes, editor.write(), "a", "there")

    assert entry_at(nodes, root, "there").mode == 0o700
    assert entry_at(nodes, root, "there/b").mode == 0o711
    assert listed(nodes, root)["there/b/c"] == 1


@pytest.mark.parametrize(
    ("inner", "to"),
    [
        ("/".join("d" * 200), "/".join("t" * 56)),
        ("/".join(["n" * 200] * 10), "/".join(["m" * 200] * 10)),
    ],
)
def test_no_path_gets_longer_than_it_may_be(inner: str, to: str) -> None:
    nodes = MemoryNodes()
    root = tree_of(nodes, {f"a/{inner}/last": 1, "a/first": 2})
    fitting, left_out = grafted(nodes, root, "a", to.rpartition("/")[0])
    assert left_out == 0
    assert f"{to.rpartition('/')[0]}/{inner}/last" in listed(nodes, fitting)

    with pytest.raises(PathError, match="paths below it would be too long"):
        grafted(nodes, root, "a", f"{to}/{'t' * 90}/t/t")
    kept, left_out = grafted(nodes, root, "a", f"{to}/{'t' * 90}/t/t", is_trimmed=True)

    found = listed(nodes, kept)
    assert all(parts_of(path) for path in found)
    assert max(len(path.split("/")) for path in found) == DEPTH_MAX or "n" in inner
    assert max(len(path) + 1 for path in found) > PATH_BYTES_MAX - 202 or "d" in inner
    assert found[f"{to}/{'t' * 90}/t/t/first"] == 2
    assert left_out == entry_at(nodes, root, "a").below - entry_at(nodes, kept, f"{to}/{'t' * 90}/t/t").below > 0


def test_copies_of_copies_cost_what_is_stored_of_them() -> None:
    nodes = MemoryNodes()
    root, other = tree_of(nodes, {"d/file": 1}), tree_of(nodes, {"d/file": 2})

    def doubled(root: str) -> str:
        for _ in range(60):
            editor = TreeEditor(nodes, root)
            graft = Graft(editor, nodes)
            for name in ("e/a", "e/b"):
                graft.put(entry_at(nodes, root, "d"), name, is_forced=True)
            editor.remove("d")
            root = TreeEditor(nodes, editor.write()).write()
            editor = TreeEditor(nodes, root)
            Graft(editor, nodes).put(entry_at(nodes, root, "e"), "d", is_forced=True)
            editor.remove("e")
            root = editor.write()
        return root

    one, two = doubled(root), doubled(other)

    assert top_of(nodes, one).below > 2**60
    assert change_counts(nodes, "", one) == (top_of(nodes, one).below, 0)
    assert change_counts(nodes, one, two) == (2**60, 0)


def test_directories_are_merged_up_to_as_much_as_a_commit_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_CHANGES_MAX", 3)
    nodes = MemoryNodes()
    root = tree_of(
        nodes, {"three/1": 1, "three/2": 1, "three/3": 1, "four/1": 1, "four/2": 1, "four/3": 1, "four/4": 1}
    )

    assert len(listed(nodes, grafted(nodes, root, "three", "four")[0])) == 9
    with pytest.raises(TooMany, match="more than 3 paths"):
        grafted(nodes, root, "four", "three")
