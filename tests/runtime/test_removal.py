"""A tree is deleted whole or, with a mount in it, not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.runtime.errors import RuntimeFailure
from squall.runtime.removal import mounts_below, remove_tree


def write_mountinfo(path: Path, *points: str) -> str:
    lines = [f"{36 + n} 35 98:0 / {point} rw,noatime shared:1 - ext4 /dev/x rw" for n, point in enumerate(points)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_tree_is_deleted_and_links_in_it_are_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("here")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(kept)

    remove_tree(str(tree))

    assert not tree.exists()
    assert (kept / "file").read_text() == "here"


def test_link_given_as_path_is_deleted_alone(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    link = tmp_path / "link"
    link.symlink_to(kept)

    remove_tree(str(link))

    assert not link.is_symlink()
    assert kept.is_dir()


def test_absent_path_is_no_error(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "absent"))


def test_tree_with_a_mount_below_is_left_whole(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "dev").mkdir(parents=True)
    (tree / "file").write_text("here")
    mountinfo = write_mountinfo(tmp_path / "mountinfo", "/", f"{tree}/dev")

    with pytest.raises(RuntimeFailure, match=f"mounted below it: {tree}/dev; unmount first"):
        remove_tree(str(tree), mountinfo)

    assert (tree / "file").read_text() == "here"


def test_mounts_are_listed_deepest_first_with_their_names_restored(tmp_path: Path) -> None:
    points = ["/", f"{tmp_path}/c", f"{tmp_path}/c/with\\040space/x", f"{tmp_path}/c/y", f"{tmp_path}/cousin"]
    mountinfo = write_mountinfo(tmp_path / "mountinfo", *points)

    found = mounts_below(f"{tmp_path}/c", mountinfo)

    assert found == [f"{tmp_path}/c/with space/x", f"{tmp_path}/c/y", f"{tmp_path}/c"]
