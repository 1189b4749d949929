"""Directories as nodes: what is put is found, equals give equals, and little changes when little does."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.server.model.volume import MemoryNodes
from squall.server.volume.entry import DIRECTORY, FILE, SYMLINK, Entry, decode, encode
from squall.server.volume.nodes import (
    BLOCKS_INLINE_MAX,
    LEAF_ENTRIES_MAX,
    Directory,
    all_entries,
    blocks_of,
    find_entry,
    leaves_of,
    write_blocks,
    write_directory,
)

# Any bytes but those no file system takes in a name.
NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name)
TEXTS = NAMES.map(lambda name: name.decode("utf-8", "surrogateescape"))


def file(name: str, number: int = 1) -> Entry:
    return Entry(name, FILE, 0o600, 10**18 + number, size=number, blocks=(f"{number:064x}",))


def files(count: int) -> list[Entry]:
    return [file(f"file-{number:06}", number) for number in range(count)]


@given(st.lists(st.tuples(TEXTS, st.integers(0, 9)), max_size=40))
def test_entries_of_any_names_are_read_as_they_were_written(found: list[tuple[str, int]]) -> None:
    entries = [file(name, number) for name, number in found]
    entries += [Entry(name, SYMLINK, target=name) for name, _ in found]
    entries += [Entry(name, DIRECTORY, 0o755, node="x", below=3) for name, _ in found]

    assert decode(encode(entries)) == entries


@given(st.dictionaries(TEXTS, st.integers(0, 9), max_size=60), st.data())
def test_a_directory_is_the_same_however_it_came_about(names: dict[str, int], data: st.DataObject) -> None:
    entries = [file(name, number) for name, number in names.items()]
    nodes = MemoryNodes()
    at_once = write_directory(nodes, entries)

    node = ""
    for entry in data.draw(st.permutations(entries)):
        directory = Directory(nodes, node)
        directory.set(file("passing"))
        directory.set(entry)
        if entry.name != "passing":
            directory.remove("passing")
        node = directory.write()[0]

    assert node == at_once[0] or "passing" in names
    assert [one.name for one in all_entries(nodes, at_once[0])] == sorted(
        names, key=lambda name: name.encode("utf-8", "surrogateescape")
    )
    assert all(find_entry(nodes, at_once[0], one.name) == one for one in entries)
    assert at_once[1:] == (len(entries), sum(one.size for one in entries))


@pytest.mark.long
def test_many_changes_one_by_one_end_where_all_at_once_do() -> None:
    chance, nodes, node = random.Random(7), MemoryNodes(), ""
    known: dict[str, Entry] = {}
    for _ in range(300):
        directory = Directory(nodes, node)
        for _ in range(chance.randrange(1, 40)):
            entry = file(f"file-{chance.randrange(3_000)}", chance.randrange(100))
            if chance.random() < 0.3:
                directory.remove(entry.name)
                known.pop(entry.name, None)
            else:
                directory.set(entry)
                known[entry.name] = entry
        node = directory.write()[0]

    assert node == write_directory(nodes, known.values())[0]
    assert {one.name: one for one in all_entries(nodes, node)} == known


def test_one_change_among_many_writes_one_leaf() -> None:
    nodes = MemoryNodes()
    node, count, size = write_directory(nodes, files(50_000))
    before = set(nodes.made)

    directory = Directory(nodes, node)
    directory.set(file("file-025000", 7_777))
    changed, count_after, size_after = directory.write()

    assert len(set(nodes.made) - before) == 2, "a leaf, and the node that lists leaves"
    assert (count, count_after) == (50_000, 50_000)
    assert size_after - size == 7_777 - 25_000
    assert find_entry(nodes, changed, "file-025000") == file("file-025000", 7_777)
    assert find_entry(nodes, node, "file-025000") == file("file-025000", 25_000), "the one before is as it was"


def test_leaves_are_bounded_also_where_no_name_ends_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squall.server.volume.nodes.is_cut_after", lambda name: False)
    nodes = MemoryNodes()

    node, _, _ = write_directory(nodes, files(3 * LEAF_ENTRIES_MAX + 1))

    assert [leaf.entry_count for leaf in leaves_of(nodes, node)] == [LEAF_ENTRIES_MAX] * 3 + [1]


def test_going_on_after_a_name_reads_only_what_comes() -> None:
    nodes = MemoryNodes()
    node, _, _ = write_directory(nodes, files(20_000))

    assert next(all_entries(nodes, node, "file-019990")).name == "file-019991"
    assert next(all_entries(nodes, node, "file-01999")).name == "file-019990"
    assert next(all_entries(nodes, node, "a")).name == "file-000000"
    assert list(all_entries(nodes, node, "z")) == []


def test_nothing_is_the_empty_node() -> None:
    nodes = MemoryNodes()
    directory = Directory(nodes, write_directory(nodes, [file("one")])[0])
    directory.remove("one")
    directory.remove("other")

    assert directory.write() == ("", 0, 0)
    assert list(all_entries(nodes, "")) == []
    assert find_entry(nodes, "", "one") is None


def test_a_sparse_file_of_a_terabyte_lists_its_holes_by_number() -> None:
    nodes = MemoryNodes()
    blocks = ["a" * 64, *([""] * 131_072), "b" * 64, ""]

    inline, listed = write_blocks(nodes, blocks)

    assert inline == ()
    assert len(nodes.get(listed)) < 200
    assert blocks_of(nodes, Entry("sparse", FILE, block_list=listed)) == tuple(blocks)
    few = ["a" * 64] * BLOCKS_INLINE_MAX
    assert write_blocks(nodes, few) == (tuple(few), "")


@pytest.mark.long
def test_a_large_directory_is_read_in_little_memory() -> None:
    nodes = MemoryNodes()
    node, _, _ = write_directory(nodes, files(50_000))
    tracemalloc.start()
    try:
        count = sum(1 for _ in all_entries(nodes, node))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert count == 50_000
    assert peak < 100 * 2**20
