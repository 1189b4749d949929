"""One layer seen as a directory and as an image: both say the same."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from squall.agent.image.layer.view import LayerView, layer_view
from squall.erofs.errors import BadImage
from squall.erofs.writer import pack


@pytest.fixture(params=["directory", "image"])
def view(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LayerView]:
    tree = tmp_path / "tree"
    (tree / "srv" / "app").mkdir(parents=True)
    (tree / "srv" / "app" / "main.py").write_text("x" * 7)
    (tree / "srv" / "app" / "main.py").chmod(0o640)
    (tree / "link").symlink_to("srv")
    (tree / os.fsdecode(b"\xff")).write_text("odd")
    path = tree
    if request.param == "image":
        path = tmp_path / "image"
        pack(str(tree), path)
    with ExitStack() as stack:
        yield stack.enter_context(layer_view(str(path)))


def test_what_is_there_is_found(view: LayerView) -> None:
    found = view.find(["srv", "app", "main.py"])

    assert found is not None
    assert (stat.S_IMODE(found.mode), found.uid, found.gid, found.size) == (0o640, os.getuid(), os.getgid(), 7)
    for name, kind in (("srv", stat.S_IFDIR), ("link", stat.S_IFLNK)):
        other = view.find([name])
        assert other is not None
        assert stat.S_IFMT(other.mode) == kind
    assert view.find([os.fsdecode(b"\xff")]) is not None


def test_what_is_not_there_or_behind_a_link_is_not_found(view: LayerView) -> None:
    assert view.find(["srv", "missing"]) is None
    assert view.find(["missing", "app"]) is None
    assert view.find(["link", "app"]) is None
    assert view.find(["srv", "app", "main.py", "below"]) is None


def test_plain_directories_have_no_marks(view: LayerView) -> None:
    assert not any(view.marks(["srv"]))
    assert not any(view.marks(["missing"]))


def test_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"no image" * 1_000)

    with pytest.raises(BadImage, match="not an EROFS image"), layer_view(str(tmp_path / "image")):
        pass
