"""Stacked layers as one tree: which paths lead where. What overlayfs shows of them is asked in tests/kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.agent.image.layer.merged import Merged, Place, merged
from squall.erofs.writer import pack

pytestmark = pytest.mark.long


def make_layer(top: Path, *names: str) -> Path:
    """A layer of files with their own name as content, `name -> target` for links, `name/` for directories."""
    top.mkdir(parents=True)
    for name in names:
        path, _, target = name.partition(" -> ")
        place = top / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if target:
            place.symlink_to(target)
        elif path.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.write_text(f"{top.name}:{path}")
    return top


@pytest.fixture(params=["directories", "images"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Merged]:
    layers = [
        make_layer(tmp_path / "1", "usr/lib/a", "usr/lib/b", "lib -> usr/lib", "srv/x", "kind/was/directory", "etc/os"),
        make_layer(tmp_path / "2", "usr/lib/b", "usr/lib/c", "up -> ../../../etc", "round -> round", "kind"),
        make_layer(
            tmp_path / "3",
            "abs -> /lib/../lib/c",
            "chain -> abs",
            "kind/now/a/directory",
            "hanging -> lib/none",
            "void/",
        ),
    ]
    if request.param == "images":
        for number, layer in enumerate(layers):
            layers[number] = layer.with_suffix(".image")
            pack(str(layer), layers[number])
    with merged([str(layer) for layer in layers]) as found:
        yield found


def at(place: Place | None) -> str | None:
    return None if place is None else "/" + "/".join(place.names)


def names(tree: Merged, path: str) -> list[str]:
    place = tree.find(path)
    assert place is not None
    return [entry.names[-1] for entry in tree.entries(place)]


def test_a_directory_has_what_all_layers_have_of_it(tree: Merged) -> None:
    assert names(tree, "/usr/lib") == ["a", "b", "c"]
    assert names(tree, "/void") == []
    assert tree.read("/usr/lib/a", 100) == b"1:usr/lib/a"
    assert tree.read("/usr/lib/b", 100) == b"2:usr/lib/b"


def test_a_file_hides_the_directory_below_it_and_ends_what_one_above_has(tree: Merged) -> None:
    assert names(tree, "/kind") == ["now"]
    assert tree.find("/kind/was") is None


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", "/"),
        ("", "/"),
        ("//usr/./lib/", "/usr/lib"),
        ("/lib/a", "/usr/lib/a"),
        ("/lib", "/usr/lib"),
        ("/abs", "/usr/lib/c"),
        ("/chain", "/usr/lib/c"),
        ("/up/os", "/etc/os"),
        ("/../../etc/os", "/etc/os"),
        ("/lib/../../srv/x", "/srv/x"),
        ("/hanging", None),
        ("/usr/none", None),
        ("/usr/lib/a/below", None),
        ("/usr/lib/a/..", None),
    ],
)
def test_paths_lead_inside(tree: Merged, path: str, found: str | None) -> None:
    assert at(tree.find(path)) == found


def test_a_link_itself_is_found_when_it_is_not_to_be_followed(tree: Merged) -> None:
    place = tree.find("/chain", follows=False)

    assert at(place) == "/chain"
    assert place is not None
    assert tree.target(place) == "abs"
    assert at(tree.find("/lib/c", follows=False)) == "/usr/lib/c", "those on the way are followed"


def test_what_is_missing_is_told_behind_what_is_there(tree: Merged) -> None:
    place, missing = tree.resolve("/lib/new/../deeper")

    assert at(place) == "/usr/lib"
    assert missing == ("new", "..", "deeper")


def test_links_that_lead_round_are_given_up(tree: Merged) -> None:
    with pytest.raises(OSError, match="round") as caught:
        tree.find("/round")

    assert caught.value.errno == errno.ELOOP


def test_only_the_beginning_of_a_file_is_read(tree: Merged) -> None:
    assert tree.read("/usr/lib/a", 3) == b"1:u"
    assert tree.read("/usr/lib", 100) == b""
    assert tree.read("/none", 100) == b""


def test_holes_are_read_as_zeros(tmp_path: Path) -> None:
    layer = make_layer(tmp_path / "1")
    with (layer / "holes").open("wb") as file:
        file.seek(2**20)
        file.write(b"end")
    with merged([str(layer)]) as tree:
        data = tree.read("/holes", 2**21)

    assert len(data) == 2**20 + 3
    assert data.strip(b"\0") == b"end"


def test_no_layer_at_all_is_an_empty_directory() -> None:
    with merged([]) as tree:
        root = tree.find("/")

        assert root is not None
        assert root.is_directory
        assert list(tree.entries(root)) == []
        assert tree.find("/x") is None


def test_names_that_are_no_utf8_are_found(tmp_path: Path) -> None:
    layer = make_layer(tmp_path / "1")
    name = os.fsdecode(b"n\xff\n")
    (layer / name).write_text("odd")

    with merged([str(layer)]) as tree:
        assert tree.read(f"/{name}", 10) == b"odd"
