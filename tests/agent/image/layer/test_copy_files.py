"""Files laid over layers by no container: what goes where, and what is refused. Whiteouts need root: tests/kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent.image.layer.copy_files import CopyFailed, CopyPlan, copy_files, parse_plan
from tests.agent.image.layer.test_overlay import make_tree

pytestmark = pytest.mark.long


class Desk:
    """A stack of two layers to copy onto, and a tree to copy from."""

    def __init__(self, top: Path) -> None:
        self.below = (
            make_tree(top / "1", "usr/lib/kept", "lib -> usr/lib", "srv/app/old", "out -> ../../..", "loop -> loop"),
            make_tree(top / "2", "opt/", "srv/app/newer", "file"),
        )
        self.source = make_tree(top / "source", "a", "sub/b", "sub/deep/c", "empty/", "link -> sub/b")
        self.tree = top / "tree"
        self.tree.mkdir()

    def plan(self, path: str, *sources: str, is_directory: bool = False) -> CopyPlan:
        return CopyPlan(str(self.tree), self.below, path, (self.source,), sources or ("/",), is_directory)

    def copy(self, path: str, *sources: str, is_directory: bool = False) -> list[str]:
        copy_files(self.plan(path, *sources, is_directory=is_directory))
        return self.made()

    def made(self) -> list[str]:
        """What is in the new layer; directories end in a slash when they are empty."""
        found = []
        for place, directories, files in os.walk(self.tree):
            name = os.path.relpath(place, self.tree)
            found += [os.path.normpath(f"{name}/{file}") for file in files]
            found += [f"{name}/"] if not directories and not files else []
            found += [os.path.normpath(f"{name}/{one}") for one in directories if os.path.islink(f"{place}/{one}")]
        return sorted(found)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


EVERYTHING = ["a", "empty/", "link", "sub/b", "sub/deep/c"]


@pytest.mark.parametrize(
    ("path", "sources", "is_directory", "made"),
    [
        ("/new/place", ("/",), False, [f"new/place/{name}" for name in EVERYTHING]),
        ("/", ("/",), False, EVERYTHING),
        ("/srv/app/a2", ("/a",), False, ["srv/app/a2"]),
        ("/srv/app", ("/a",), False, ["srv/app/a"]),
        ("/srv/app", ("a",), True, ["srv/app/a"]),
        ("/new", ("/a",), True, ["new/a"]),
        ("/new", ("/sub",), False, ["new/b", "new/deep/c"]),
        ("/new", ("/a", "/sub/b"), False, ["new/a", "new/b"]),
        ("/new", ("/*",), False, ["new/a", "new/b", "new/b", "new/deep/c"]),
        ("/new", ("/sub/[ab]",), False, ["new"]),
        ("/new", ("/link",), False, ["new"]),
        ("/lib", ("/a",), False, ["usr/lib/a"]),
        ("/out/x", ("/a",), False, ["x"]),
        ("/file", ("/a",), False, ["file"]),
    ],
)
def test_sources_land_where_a_dockerfile_says(
    desk: Desk, path: str, sources: tuple[str, ...], is_directory: bool, made: list[str]
) -> None:
    assert desk.copy(path, *sources, is_directory=is_directory) == sorted(set(made))


@pytest.mark.parametrize(
    ("path", "sources", "message"),
    [
        ("/new", ("/missing",), "cannot copy /missing: no such file"),
        ("/new", ("/sub/*.py",), r"cannot copy /sub/\*.py: no such file"),
        ("/new", ("/../../etc/passwd",), "no such file"),
        ("/file/x", ("/a",), "/file is none"),
        ("/srv", ("/sub",), ""),
        ("/opt/../../x", ("/a",), ""),
        ("/loop/x", ("/a",), "Too many levels"),
    ],
)
def test_what_cannot_be_copied_is_named(desk: Desk, path: str, sources: tuple[str, ...], message: str) -> None:
    if not message:
        desk.copy(path, *sources)
        return
    with pytest.raises((CopyFailed, OSError), match=message):
        desk.copy(path, *sources)


def test_file_does_not_replace_a_directory_nor_the_other_way_round(desk: Desk) -> None:
    make_tree(Path(desk.source), "clash/file/x")

    with pytest.raises(CopyFailed, match="/srv/app: that is a directory"):
        copy_files(
            replace(desk.plan("/srv"), sources=("/only",), layers=(make_tree(desk.tree.parent / "s", "only/app"),))
        )
    with pytest.raises(CopyFailed, match="/file is none"):
        desk.copy("/", "/clash")


def test_directories_that_are_covered_look_as_before(desk: Desk) -> None:
    Path(desk.below[1], "srv").chmod(0o710)
    os.utime(Path(desk.below[1], "srv"), ns=(1, 5_000_000_000))

    desk.copy("/srv/new", "/a")

    assert (desk.tree / "srv").stat().st_mode & 0o7777 == 0o710
    assert (desk.tree / "srv").stat().st_mtime_ns == 5_000_000_000
    assert not (desk.tree / "srv/app").exists()


def test_permissions_times_links_and_holes_are_kept(desk: Desk) -> None:
    source = Path(desk.source)
    (source / "a").chmod(0o4711)
    os.utime(source / "a", ns=(1, 7_000_000_007))
    os.link(source / "a", source / "sub/again")
    os.utime(source / "sub", ns=(1, 9_000_000_009))

    desk.copy("/new")

    made = desk.tree / "new"
    assert (made / "a").stat().st_mode & 0o7777 == 0o4711
    assert (made / "a").stat().st_mtime_ns == 7_000_000_007
    assert (made / "sub").stat().st_mtime_ns == 9_000_000_009
    assert (made / "a").stat().st_ino == (made / "sub/again").stat().st_ino
    assert os.readlink(made / "link") == "sub/b"


def test_owner_and_permissions_may_be_said(desk: Desk) -> None:
    copy_files(replace(desk.plan("/new"), owner=(os.getuid(), os.getgid()), mode=0o640))

    assert (desk.tree / "new/a").stat().st_mode & 0o7777 == 0o640
    assert (desk.tree / "new/sub").stat().st_mode & 0o7777 == 0o750


def test_link_made_by_the_copy_itself_is_no_way_out(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    source = make_tree(tmp_path / "evil", f"1/a -> {tmp_path}/outside", "2/a/file")

    with pytest.raises(CopyFailed, match="is a link to nothing"):
        copy_files(CopyPlan(str(desk.tree), desk.below, "/x", (source,), ("/1", "/2"), True))

    assert os.listdir(tmp_path / "outside") == []


def test_links_and_empty_directories_are_made_below_the_target(desk: Desk) -> None:
    links = {"sub/new/up": "../../a", "old": "/etc/passwd", "newer": "../sub"}
    copy_files(replace(desk.plan("/srv/app"), links=links, directories=("void/inner", "sub/deep")))

    assert [name for name in desk.made() if name not in [f"srv/app/{one}" for one in EVERYTHING]] == [
        "srv/app/newer",
        "srv/app/old",
        "srv/app/sub/new/up",
        "srv/app/void/inner/",
    ]
    assert {path: os.readlink(desk.tree / "srv/app" / path) for path in links} == links


def test_link_does_not_lead_out_of_the_layer_nor_replace_a_directory(desk: Desk) -> None:
    copy_files(replace(desk.plan("/"), links={"away": "../../..", "away2": "away"}))

    assert os.readlink(desk.tree / "away") == "../../.."
    with pytest.raises(CopyFailed, match=r"a link to /srv/app: that is a directory"):
        copy_files(replace(desk.plan("/"), links={"srv/app": "x"}))


def test_program_says_why(desk: Desk, tmp_path: Path) -> None:
    plan = replace(desk.plan("/new", "/missing"), links={"a": "b"}, directories=("c",))
    assert parse_plan(plan.written()) == plan
    (tmp_path / "plan").write_text(plan.written())

    done = subprocess.run(
        [sys.executable, "-m", "squall.agent.image.layer.copy_files", str(tmp_path / "plan")],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": "src"},
    )

    assert (done.returncode, done.stderr) == (1, "")
    assert "cannot copy /missing" in done.stdout
