"""Trees: changed by path, walked, and compared; against a plain dictionary of paths."""

from __future__ import annotations

import random

import pytest

from squall.server.model.volume import MemoryNodes
from squall.server.volume.entry import DIRECTORY, FILE, SYMLINK, Entry
from squall.server.volume.tree import (
    Change,
    Conflict,
    PathError,
    TreeEditor,
    change_counts,
    diff,
    find,
    parts_of,
    top_of,
    walk,
)


def file(number: int = 1) -> Entry:
    return Entry("", FILE, 0o644, number, size=number, blocks=(f"{number:064x}",))


def tree_of(nodes: MemoryNodes, files: dict[str, int], root: str = "") -> str:
    editor = TreeEditor(nodes, root)
    for path, number in files.items():
        editor.put(path, file(number))
    return editor.write()


def listed(nodes: MemoryNodes, root: str) -> dict[str, int | None]:
    """Path to the size of a file; directories are None."""
    found = walk(nodes, top_of(nodes, root), "", is_deep=True)
    return {path: None if entry.kind == DIRECTORY else entry.size for path, entry in found}


@pytest.mark.parametrize(
    ("path", "parts"),
    [("", ()), ("/", ()), ("a", ("a",)), ("/a/b", ("a", "b")), ("./a//b/", ("a", "b")), ("...", ("...",))],
)
def test_paths_begin_at_the_top_of_the_volume(path: str, parts: tuple[str, ...]) -> None:
    assert parts_of(path) == parts


@pytest.mark.parametrize(
    "path", ["..", "a/../../b", "/..", "a\0b", "x" * 256, "ä" * 128, "/".join(["x" * 100] * 41), "a/" * 300 + "a"]
)
def test_what_leads_out_or_no_file_system_has_is_no_path(path: str) -> None:
    with pytest.raises(PathError):
        parts_of(path)
    with pytest.raises(PathError):
        TreeEditor(MemoryNodes(), "").put(path, file())


def test_what_is_put_is_found_with_the_directories_on_the_way() -> None:
    nodes = MemoryNodes()
    root = tree_of(nodes, {"a/b/c": 3, "a/d": 4, "e": 5})

    assert listed(nodes, root) == {"a": None, "a/b": None, "a/b/c": 3, "a/d": 4, "e": 5}
    assert find(nodes, root, "/a/b/c") == file(3)._replace(name="c")
    top, deep = find(nodes, root, ""), find(nodes, root, "a")
    assert top is not None
    assert deep is not None
    assert (top.below, top.size, deep.below, deep.size) == (5, 12, 3, 7)
    assert find(nodes, root, "a/d/x") is find(nodes, root, "a/x") is find(nodes, root, "x/y") is None


def test_the_version_before_stays_as_it_is() -> None:
    nodes = MemoryNodes()
    before = tree_of(nodes, {"a/b": 1, "c": 2})
    after = tree_of(nodes, {"a/b": 9, "d": 4}, before)

    assert listed(nodes, before) == {"a": None, "a/b": 1, "c": 2}
    assert listed(nodes, after) == {"a": None, "a/b": 9, "c": 2, "d": 4}


def test_equal_trees_are_equal_nodes_however_they_came_about() -> None:
    nodes = MemoryNodes()
    one = tree_of(nodes, {"a/b": 1, "a/c/d": 2, "e": 3})
    editor = TreeEditor(nodes, tree_of(nodes, {"e": 3, "x/y/z": 1, "a/c/d": 7}))
    editor.remove("x")
    editor.put("a/b", file(1))
    editor.put("a/c/d", file(2))

    assert editor.write() == one


def test_a_file_in_the_way_is_replaced_where_that_is_forced_and_only_there() -> None:
    nodes = MemoryNodes()
    root = tree_of(nodes, {"a": 1, "d/e": 2})

    careful = TreeEditor(nodes, root)
    for path, entry in (("a/b", file()), ("d", file()), ("a", Entry("", DIRECTORY)), ("a/x/y", file())):
        with pytest.raises(Conflict, match=path.partition("/")[0]):
            careful.put(path, entry, is_forced=False)
    careful.put("a", file(7), is_forced=False)
    assert listed(nodes, careful.write()) == {"a": 7, "d": None, "d/e": 2}

    forced = TreeEditor(nodes, root)
    forced.put("a/b", file(3))
    forced.put("d", file(4))
    assert listed(nodes, forced.write()) == {"a": None, "a/b": 3, "d": 4}


def test_a_directory_that_comes_again_keeps_what_is_in_it() -> None:
    nodes = MemoryNodes()
    editor = TreeEditor(nodes, tree_of(nodes, {"a/b": 1}))
    editor.put("a/c", file(2))
    editor.put("a", Entry("", DIRECTORY, 0o700, 5))
    editor.put("new", Entry("", DIRECTORY, 0o711))
    root = editor.write()

    assert listed(nodes, root) == {"a": None, "a/b": 1, "a/c": 2, "new": None}
    assert [(one.mode, one.mtime_ns) for one in [find(nodes, root, "a")] if one is not None] == [(0o700, 5)]


def test_what_is_removed_is_gone_with_all_that_is_in_it() -> None:
    nodes = MemoryNodes()
    editor = TreeEditor(nodes, tree_of(nodes, {"a/b/c": 1, "a/d": 2, "e": 3}))

    assert editor.remove("a/b")
    assert not editor.remove("a/b/c")
    assert not editor.remove("x/y")
    assert editor.remove("e")
    with pytest.raises(PathError, match="top of the volume"):
        editor.remove("/")
    assert listed(nodes, editor.write()) == {"a": None, "a/d": 2}


def test_removing_what_was_seen_leaves_what_has_come_since() -> None:
    nodes = MemoryNodes()
    seen_root = tree_of(nodes, {"a/old": 1, "a/deep/old": 2, "b/old": 3, "c": 4})
    now = tree_of(nodes, {"a/new": 5, "a/deep/new": 6, "a/old": 7}, seen_root)
    editor = TreeEditor(nodes, now)

    for path in ("a", "b", "c"):
        seen = find(nodes, seen_root, path)
        assert seen is not None
        editor.remove_seen(path, seen)

    assert listed(nodes, editor.write()) == {"a": None, "a/deep": None, "a/deep/new": 6, "a/new": 5}


def test_a_removed_directory_that_nobody_else_changed_is_gone_whole() -> None:
    nodes = MemoryNodes()
    root = tree_of(nodes, {"a/b/c": 1, "d": 2})
    seen = find(nodes, root, "a")
    assert seen is not None
    editor = TreeEditor(nodes, root)
    editor.remove_seen("a", seen)
    editor.remove_seen("a", seen)

    assert listed(nodes, editor.write()) == {"d": 2}


def test_walks_go_on_from_any_path() -> None:
    nodes = MemoryNodes()
    root = tree_of(nodes, {"a/b/c": 1, "a/b/d": 2, "a-b": 3, "a/e": 4, "f": 5})
    top = top_of(nodes, root)
    whole = [path for path, _ in walk(nodes, top, "", is_deep=True)]

    for number, path in enumerate(whole):
        assert [one for one, _ in walk(nodes, top, "", is_deep=True, after=path)] == whole[number + 1 :], path
    below = find(nodes, root, "a")
    assert below is not None
    assert [one for one, _ in walk(nodes, below, "a", is_deep=True, after="a/b/c")] == ["a/b/d", "a/e"]
    assert [one for one, _ in walk(nodes, below, "a", is_deep=False, after="a/b")] == ["a/e"]


def test_differences_are_what_makes_one_tree_the_other() -> None:
    nodes = MemoryNodes()
    before = tree_of(nodes, {"a/same": 1, "a/changed": 2, "gone/x": 3, "file": 4})
    editor = TreeEditor(nodes, before)
    editor.put("a/changed", file(9))
    editor.remove("gone")
    editor.put("file", Entry("", SYMLINK, target="a"))
    editor.put("new/y", file(5))
    after = editor.write()

    changes = list(diff(nodes, before, after))

    said = [(one.path, one.before and one.before.kind, one.after and one.after.kind) for one in changes]
    assert said == [
        ("a/changed", FILE, FILE), ("file", FILE, SYMLINK), ("gone/x", FILE, None), ("gone", DIRECTORY, None),
        ("new", None, DIRECTORY), ("new/y", None, FILE),
    ]  # fmt: skip
    assert change_counts(nodes, before, after) == (4, 2)
    assert list(diff(nodes, after, after)) == []


def test_a_difference_of_one_among_many_reads_few_nodes() -> None:
    nodes = MemoryNodes()
    before = tree_of(nodes, {f"{number % 100}/{number}": number for number in range(20_000)})
    after = tree_of(nodes, {"7/107": 1}, before)
    counting = _Counting(nodes)

    assert [one.path for one in diff(counting, before, after)] == ["7/107"]
    assert counting.read_count <= 8


class _Counting(MemoryNodes):
    def __init__(self, below: MemoryNodes) -> None:
        super().__init__(below)
        self.read_count = 0

    def get(self, sha256: str) -> bytes:
        self.read_count += 1
        return super().get(sha256)


@pytest.mark.parametrize("seed", range(5))
def test_chance_changes_leave_what_a_dictionary_has_and_differences_carry_over(seed: int) -> None:
    chance, nodes, root = random.Random(seed), MemoryNodes(), ""
    known: dict[str, int] = {}
    for _ in range(60):
        editor, before = TreeEditor(nodes, root), root
        for _ in range(chance.randrange(1, 12)):
            path = "/".join(chance.choice("abcd") for _ in range(chance.randrange(1, 5)))
            if chance.random() < 0.3:
                editor.remove(path)
            else:
                number = chance.randrange(1, 99)
                editor.put(path, file(number))
                for above in [path[:end] for end, letter in enumerate(path) if letter == "/"]:
                    known.pop(above, None)
            known = {one: size for one, size in known.items() if one != path and not one.startswith(path + "/")}
            found = editor.find(path)
            if found is not None:
                known[path] = found.size
        root = editor.write()
        assert {path: size for path, size in listed(nodes, root).items() if size is not None} == known
        assert _carried_over(nodes, before, root) == root
        changes = list(diff(nodes, before, root))
        put_count = sum(one.after is not None for one in changes)
        assert change_counts(nodes, before, root) == (put_count, len(changes) - put_count)


def _carried_over(nodes: MemoryNodes, before: str, after: str) -> str:
    """The tree before, with the differences to the other one."""
    editor = TreeEditor(nodes, before)
    for change in list(diff(nodes, before, after)):
        _carry(editor, change)
    return editor.write()


def _carry(editor: TreeEditor, change: Change) -> None:
    if change.after is None:
        editor.remove(change.path)
    elif change.after.kind == DIRECTORY:
        editor.put(change.path, change.after._replace(node="", below=0, size=0))
    else:
        editor.put(change.path, change.after)
