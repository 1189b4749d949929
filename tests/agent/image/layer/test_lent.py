"""A tree that becomes a layer as it is has the files that it had links to."""

from __future__ import annotations

import os
from pathlib import Path

from squall.agent.image.layer.lent import bring_in


def test_files_take_the_place_of_links_to_them_and_other_links_stay(tmp_path: Path) -> None:
    shared, tree = tmp_path / "shared", tmp_path / "tree"
    (shared / "package").mkdir(parents=True)
    (shared / "package/code.py").write_text("code")
    (shared / "package/code.py").chmod(0o755)
    os.utime(shared / "package/code.py", ns=(5, 1_700_000_000_000_000_007))
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/code.py").symlink_to("/lent/package/code.py")
    (tree / "folder").symlink_to("/lent/package")
    (tree / "other").symlink_to("/etc/hostname")

    # Whatever name a stranger guesses: nothing outside is written to.
    (tmp_path / "outside").write_text("kept")
    (tree / "deep/code.py.squall-new").symlink_to(tmp_path / "outside")

    bring_in(tree, "/lent", [str(tmp_path / "missing"), str(shared)])

    assert (tmp_path / "outside").read_text() == "kept"
    (tree / "deep/code.py.squall-new").unlink()
    found = (tree / "deep/code.py").lstat()
    assert ((tree / "deep/code.py").read_text(), oct(found.st_mode)) == ("code", "0o100755")
    assert found.st_mtime_ns == 1_700_000_000_000_000_007
    assert (os.readlink(tree / "folder"), os.readlink(tree / "other")) == ("/lent/package", "/etc/hostname")
    assert sorted(path.name for path in tree.rglob("*")) == ["code.py", "deep", "folder", "other"]
