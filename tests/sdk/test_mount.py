"""Odd things in a folder that is shipped: each has its word, or is left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from squall.exception import InvalidError
from squall.sdk import _mount


def ship(folder: Path) -> list[str]:
    mount = _mount.make_mount(_mount.find_files(str(folder), "", lambda path: False), "the folder")
    return [file.path for file in mount.manifest.files]


def test_links_in_circles_and_to_nothing_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "ping").symlink_to("pong")
    (tmp_path / "pong").symlink_to("ping")
    (tmp_path / "nothing").symlink_to("missing")
    (tmp_path / "up").symlink_to(tmp_path)

    assert ship(tmp_path) == ["kept"]


def test_name_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/bad-\xff.txt", "w"):
        pass

    with pytest.raises(InvalidError, match=r"cannot ship the folder: the name bad-\\xff\.txt is not UTF-8"):
        ship(tmp_path)


def test_very_large_folder_is_told_with_its_biggest_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mount, "LARGE_BYTES", 3 * 2**20)
    for name, size in (("data/raw/a", 2 * 2**20), ("data/raw/b", 2**20), ("src/c", 1000)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))

    with pytest.warns(UserWarning, match=r"the biggest folders are data/raw \(3 MiB\), src \(0 MiB\); leave out"):
        ship(tmp_path)


def test_content_that_is_no_file_travels_as_one() -> None:
    mount = _mount.make_mount([], "a call", [_mount.Content(b"data", "root/call")])

    (file,) = mount.manifest.files
    assert (file.path, file.size_bytes, mount.contents[file.sha256]) == ("root/call", 4, b"data")
