"""Files that a tree only has links to are in its image, if they are where links may lead."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from squall.erofs.tree import Lent
from squall.erofs.unpack import unpack
from squall.erofs.writer import pack

PREFIX = "/shared"
LARGE = os.urandom(3_000_000)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that lends, with a file beside it that it must not lend."""
    folder = tmp_path / "shared"
    (folder / "package").mkdir(parents=True)
    (folder / "package/small.py").write_text("small")
    (folder / "package/large.so").write_bytes(LARGE)
    (folder / "package/large.so").chmod(0o755)
    os.utime(folder / "package/small.py", ns=(1, 1_700_000_000_123_456_789))
    (folder / "package/out").symlink_to("../../secret")
    (folder / "elsewhere").symlink_to("..")
    (tmp_path / "secret").write_text("secret")
    return folder


def packed(tmp_path: Path, links: dict[str, str], *folders: Path) -> Path:
    """A tree of links, packed and unpacked."""
    (tmp_path / "tree").mkdir()
    for name, target in links.items():
        (tmp_path / "tree" / name).symlink_to(target)
    pack(str(tmp_path / "tree"), tmp_path / "image", Lent(PREFIX, [str(folder) for folder in folders]))
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "image", str(tmp_path / "out"))
    return tmp_path / "out"


def test_links_become_the_files_they_stand_for(tmp_path: Path, shared: Path) -> None:
    links = {"a.py": f"{PREFIX}/package/small.py", "b.so": f"{PREFIX}/package/large.so"}

    out = packed(tmp_path, links, shared)

    assert ((out / "a.py").read_text(), (out / "b.so").read_bytes()) == ("small", LARGE)
    found = {name: os.lstat(out / name) for name in links}
    assert all(stat.S_ISREG(one.st_mode) for one in found.values())
    assert found["a.py"].st_mtime_ns == 1_700_000_000_123_456_789
    assert stat.S_IMODE(found["b.so"].st_mode) == 0o755


def test_link_with_two_names_is_one_file(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/first").symlink_to(f"{PREFIX}/package/small.py")
    os.link(tmp_path / "tree/first", tmp_path / "tree/second", follow_symlinks=False)
    pack(str(tmp_path / "tree"), tmp_path / "image", Lent(PREFIX, [str(shared)]))
    (tmp_path / "out").mkdir()

    unpack(tmp_path / "image", str(tmp_path / "out"))

    assert (tmp_path / "out/first").read_text() == "small"
    assert (tmp_path / "out/first").samefile(tmp_path / "out/second")


@pytest.mark.parametrize(
    "target",
    [
        "/etc/hostname",
        "/shared2/package/small.py",
        f"{PREFIX}/package",
        f"{PREFIX}/package/missing",
        f"{PREFIX}/package/out",
        f"{PREFIX}/elsewhere/secret",
        f"{PREFIX}/../secret",
        f"{PREFIX}/package/../../secret",
        f"{PREFIX}//etc/hostname",
        "shared/package/small.py",
    ],
)
def test_what_leads_elsewhere_stays_a_link(tmp_path: Path, shared: Path, target: str) -> None:
    out = packed(tmp_path, {"link": target}, shared)

    assert os.readlink(out / "link") == target


def test_the_first_folder_that_has_it_lends_it(tmp_path: Path, shared: Path) -> None:
    own = tmp_path / "own"
    (own / "package").mkdir(parents=True)
    (own / "package/small.py").write_text("changed")
    (own / "package/large.so").symlink_to("/etc/hostname")

    out = packed(
        tmp_path, {"a": f"{PREFIX}/package/small.py", "b": f"{PREFIX}/package/large.so"}, own, shared
    )  # fmt: skip

    assert (out / "a").read_text() == "changed"
    assert (out / "b").is_symlink()
