"""What counts as a change of what is watched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from squall.cli.watch import Watch, describe, is_noise
from squall.sdk import _mount, _shipped


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "pkg" / "inner").mkdir(parents=True)
    for name in ("pkg/__init__.py", "pkg/inner/deep.py", "alone.txt"):
        (tmp_path / name).write_text("1")
    return tmp_path


def watch_of(tree: Path) -> Watch:
    files = [tree / name for name in ("pkg/__init__.py", "pkg/inner/deep.py", "alone.txt")]
    stamps = {str(path): _shipped.stamp_of(path.stat()) for path in files}
    return Watch(stamps, [str(tree / "pkg"), str(tree / "pkg" / "inner")])


def write(path: Path, text: str) -> None:
    path.write_text(text)
    # Of the same size within one tick of the clock's: not what is tried here.
    os.utime(path, ns=(1, 1))


def replace_by_another(path: Path) -> None:
    beside = path.with_name(".new")
    beside.write_text("2")
    beside.replace(path)


CHANGES: list[tuple[Callable[[Path], object], list[str]]] = [
    (lambda tree: write(tree / "pkg/inner/deep.py", "22"), ["pkg/inner/deep.py"]),
    (lambda tree: write(tree / "alone.txt", "2"), ["alone.txt"]),
    (lambda tree: replace_by_another(tree / "alone.txt"), ["alone.txt"]),
    (lambda tree: (tree / "alone.txt").unlink(), ["alone.txt"]),
    (lambda tree: write(tree / "pkg/new.py", ""), ["pkg/new.py"]),
    (lambda tree: (tree / "pkg/new").mkdir(), ["pkg/new"]),
    (lambda tree: (tree / "pkg/inner/deep.py").unlink(), ["pkg/inner/deep.py"]),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_change_is_told_once(tree: Path, change: Callable[[Path], object], expected: list[str]) -> None:
    watch = watch_of(tree)
    assert watch.changes() == []

    change(tree)

    assert watch.changes() == [str(tree / name) for name in expected]
    assert watch.changes() == []


def test_what_is_not_shipped_is_no_change(tree: Path) -> None:
    watch = watch_of(tree)

    write(tree / "beside_alone.txt", "")
    write(tree / "pkg" / ".hidden", "")
    write(tree / "pkg" / "cache.pyc", "")
    (tree / "pkg" / "__pycache__").mkdir()

    assert watch.changes() == []


def test_change_between_reading_and_watching_is_told(tree: Path) -> None:
    before = _shipped.stamp_of((tree / "alone.txt").stat())
    write(tree / "alone.txt", "edited while the app was made")

    assert Watch({str(tree / "alone.txt"): before}, ()).changes() == [str(tree / "alone.txt")]


def test_what_is_shipped_is_known(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shipped, "files", {})
    monkeypatch.setattr(_shipped, "directories", set())

    _mount.make_mount(list(_mount.find_files(str(tree / "pkg"), "pkg", _mount.is_code_noise)), "pkg")
    _mount.make_mount([_mount.LocalFile(str(tree / "alone.txt"), "alone.txt")], "a file")

    assert set(_shipped.files) == {
        str(tree / "pkg/__init__.py"),
        str(tree / "pkg/inner/deep.py"),
        str(tree / "alone.txt"),
    }
    assert _shipped.directories == {str(tree / "pkg"), str(tree / "pkg/inner")}


def test_watched_paths_are_shown_as_a_tree(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    files = [str(tree / name) for name in ("pkg/__init__.py", "pkg/inner/deep.py", "alone.txt")]

    assert describe(files, [str(tree / "pkg"), str(tree / "pkg/inner")]) == ["├─ pkg/ (2 files)", "└─ alone.txt"]
    assert describe(["/elsewhere/x.py"], []) == ["└─ /elsewhere/x.py"]
    assert describe([], []) == []


@pytest.mark.parametrize("name", [".git", "__pycache__", "a.pyc", "a.py~", ".a.py.swp", "x.tmp"])
def test_noise_of_editors_is_none_of_ours(name: str) -> None:
    assert is_noise(name)
    assert not is_noise("a.py")
