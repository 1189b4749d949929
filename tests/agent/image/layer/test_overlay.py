"""Stacked layers as directories; whiteouts and opaque directories need root and are in tests/kernel."""

from __future__ import annotations

import os
from pathlib import Path

from squall.agent.image.layer.overlay import drop_mount_points, has_directory


def make_tree(root: Path, *names: str) -> str:
    """Directories end in a slash; `a -> b` is a link; everything else is an empty file."""
    root.mkdir(exist_ok=True)
    for name in names:
        path, _, target = name.partition(" -> ")
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if target:
            place.symlink_to(target)
        elif name.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.touch()
    return str(root)


def test_directory_is_found_in_any_layer(tmp_path: Path) -> None:
    layers = [make_tree(tmp_path / "1", "srv/app/"), make_tree(tmp_path / "2", "srv/other")]

    assert has_directory(layers, "/srv/app")
    assert has_directory(layers, "/")
    assert not has_directory(layers, "/srv/other")
    assert not has_directory(layers, "/srv/missing")


def test_directory_covered_by_something_else_is_none(tmp_path: Path) -> None:
    below = make_tree(tmp_path / "1", "srv/app/", "real/", "link -> real")

    assert not has_directory([below, make_tree(tmp_path / "2", "srv")], "/srv/app")
    assert not has_directory([below], "/link")


def test_mount_points_leave_no_trace(tmp_path: Path) -> None:
    lower = make_tree(tmp_path / "1", "opt/", "etc/resolv.conf")
    upper = make_tree(tmp_path / "2", ".build/", "opt/index/", "etc/resolv.conf", "etc/kept", "made")

    drop_mount_points(upper, [lower], ["/.build", "/opt/index", "/etc/resolv.conf", "/made", "/nowhere/at/all"])

    assert sorted(os.listdir(upper)) == ["etc"]
    assert os.listdir(tmp_path / "2/etc") == ["kept"]


def test_what_the_step_itself_changed_stays(tmp_path: Path) -> None:
    lower = make_tree(tmp_path / "1", "opt/", "srv/", "etc/hosts")
    upper = make_tree(tmp_path / "2", "opt/index/", "srv/x/kept")
    (tmp_path / "2/opt").chmod(0o700)
    (tmp_path / "1/etc/hosts").write_text("not empty")
    make_tree(tmp_path / "2", "etc/hosts")

    drop_mount_points(upper, [lower], ["/opt/index", "/srv/x", "/etc/hosts"])

    assert (tmp_path / "2/opt").is_dir()
    assert not (tmp_path / "2/opt/index").exists()
    assert (tmp_path / "2/srv/x/kept").exists()
    assert (tmp_path / "2/etc/hosts").exists()


def test_link_out_of_the_layer_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    make_tree(outside, "target/", "file")
    upper = make_tree(tmp_path / "2", f"opt -> {outside}")

    drop_mount_points(upper, [], ["/opt/target", "/opt/file", "/opt"])

    assert (outside / "target").is_dir()
    assert (outside / "file").exists()
    assert (tmp_path / "2/opt").is_symlink()
