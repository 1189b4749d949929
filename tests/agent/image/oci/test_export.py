"""An image becomes one of a registry's form, and what is unpacked of that is the image again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from squall.agent.image.oci.export import ImageToExport, export
from squall.agent.image.oci.image_directory import architecture
from squall.agent.image.oci.layer_archive import CannotExport
from squall.agent.image.oci.unpack import unpack
from squall.erofs.writer import pack
from tests.erofs.trees import facts, make_everything, set_times

CAPABILITY = b"\x01\x00\x00\x02\x00\x04\xff\x00" + bytes(12)


def manifest_of(layout: Path) -> dict[str, Any]:
    (named,) = json.loads((layout / "index.json").read_text())["manifests"]
    return dict(json.loads(blob(layout, named["digest"])))


def blob(layout: Path, digest: str) -> bytes:
    content = (layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest.removeprefix("sha256:")
    return content


def exported(place: Path, *layers: Path) -> tuple[Path, Path]:
    """The layout and what it is unpacked to."""
    layout, root = place / "layout", place / "back"
    place.mkdir()
    root.mkdir()
    export(ImageToExport(tuple(map(str, layers)), ()), layout)
    archives = manifest_of(layout)["layers"]
    unpack(str(root), [(str(layout / "blobs/sha256" / one["digest"][7:]), one["digest"]) for one in archives])
    return layout, root


def as_images(place: Path, *layers: Path) -> list[Path]:
    place.mkdir()
    packed = [place / f"{number}.erofs" for number in range(len(layers))]
    for layer, image in zip(layers, packed, strict=True):
        pack(str(layer), image)
    return packed


def names_in(layout: Path, number: int) -> list[str]:
    path = layout / "blobs/sha256" / manifest_of(layout)["layers"][number]["digest"][7:]
    with tarfile.open(path) as tar:
        return tar.getnames()


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("marks of overlayfs need root")


def make_layer(path: Path) -> Path:
    make_everything(path)
    # Archives have no sockets.
    (path / "socket").unlink()
    with (path / "sparse").open("wb") as file:
        file.seek(5 * 2**20)
        file.write(b"end")
        file.truncate(9 * 2**20)
    os.setxattr(path / "sub", "user.of-directory", bytes(range(256)))
    if os.geteuid() == 0:
        os.chown(path / "sub/program", 33, 65_535)
        os.setxattr(path / "sub/program", "security.capability", CAPABILITY)
        os.setxattr(path / "sub", "trusted.overlay.origin", b"x")
    set_times(path)
    return path


@pytest.mark.long
def test_everything_comes_back_from_directories_and_from_images(tmp_path: Path) -> None:
    layer = make_layer(tmp_path / "layer")
    wanted = facts(layer)
    if os.geteuid() == 0:
        os.removexattr(layer / "sub", "trusted.overlay.origin")
        wanted = facts(layer)
        os.setxattr(layer / "sub", "trusted.overlay.origin", b"x")

    first, back = exported(tmp_path / "of-directory", layer)
    second, same = exported(tmp_path / "of-image", *as_images(tmp_path / "images", layer))

    assert facts(back) == wanted
    assert facts(same) == wanted
    assert (first / "index.json").read_bytes() == (second / "index.json").read_bytes()
    assert (back / "sparse").stat().st_blocks < 9 * 2**20 // 512 // 2


@pytest.mark.long
def test_the_same_image_gives_the_same_bytes_at_any_time(tmp_path: Path) -> None:
    layer = make_layer(tmp_path / "layer")
    first, copied = exported(tmp_path / "first", layer)
    time.sleep(0.01)
    second, _ = exported(tmp_path / "second", copied)

    assert (first / "index.json").read_bytes() == (second / "index.json").read_bytes()
    _, *names = names_in(first, 0)
    assert names == sorted(names, key=lambda name: os.fsencode(name).split(b"/"))


@pytest.mark.parametrize("is_packed", [False, True])
def test_marks_of_overlayfs_become_names(tmp_path: Path, is_packed: bool) -> None:
    needs_root()
    below, above = tmp_path / "below", tmp_path / "above"
    for name in ("kept", "hidden", "opaque/old", "merged/old"):
        (below / name).parent.mkdir(parents=True, exist_ok=True)
        (below / name).write_text("old")
    for name in ("opaque", "merged"):
        (above / name).mkdir(parents=True)
        (above / name / "new").write_text("new")
    os.mknod(above / "hidden", 0o020000, os.makedev(0, 0))
    os.setxattr(above / "opaque", "trusted.overlay.opaque", b"y")
    layers = as_images(tmp_path / "images", below, above) if is_packed else [below, above]

    layout, back = exported(tmp_path / "out", *layers)

    assert names_in(layout, 1) == [
        ".", ".wh.hidden", "merged", "merged/new", "opaque", "opaque/.wh..wh..opq", "opaque/new"
    ]  # fmt: skip
    found = {str(path.relative_to(back)) for path in back.rglob("*")}
    assert found == {"kept", "opaque", "opaque/new", "merged", "merged/new", "merged/old"}


@pytest.mark.parametrize("is_packed", [False, True])
def test_renamed_directory_brings_all_that_shows_in_it(tmp_path: Path, is_packed: bool) -> None:
    needs_root()
    below, middle, above = (tmp_path / name for name in ("below", "middle", "above"))
    for name in ("was/deep/file", "was/gone", "was/deep/same", "at/hidden"):
        (below / name).parent.mkdir(parents=True, exist_ok=True)
        (below / name).write_text("old")
    os.link(below / "was/deep/same", below / "was/other-name")
    (middle / "was/deep").mkdir(parents=True)
    (middle / "was/deep/file").write_text("of the middle")
    # Moved from /was to /at/now, over what is at /at, with one file less and one more.
    (above / "at/now").mkdir(parents=True)
    os.setxattr(above / "at/now", "trusted.overlay.redirect", b"/was")
    os.mknod(above / "at/now/gone", 0o020000, os.makedev(0, 0))
    (above / "at/now/more").write_text("new")
    os.mknod(above / "was", 0o020000, os.makedev(0, 0))
    layers = [below, middle, above]

    layout, back = exported(tmp_path / "out", *(as_images(tmp_path / "images", *layers) if is_packed else layers))

    found = {str(path.relative_to(back)): path.read_text() for path in back.rglob("*") if path.is_file()}
    assert found == {
        "at/hidden": "old",
        "at/now/deep/file": "of the middle",
        "at/now/deep/same": "old",
        "at/now/more": "new",
        "at/now/other-name": "old",
    }
    assert (back / "at/now/deep/same").stat().st_ino == (back / "at/now/other-name").stat().st_ino
    assert "at/now/.wh..wh..opq" in names_in(layout, 2)


def test_configuration_says_how_programs_start(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    image = ImageToExport(
        layers=(str(layer), str(layer)),
        titles=("debian_slim 3.11", "run_commands true"),
        env={"B": "2", "A": "1"},
        workdir="/srv",
        user="app",
        entrypoint=("/entry",),
        cmd=("serve",),
        shell=("/bin/bash", "-c"),
        python_path="/usr/bin/python3",
    )

    digest = export(image, tmp_path / "layout")

    manifest = manifest_of(tmp_path / "layout")
    config = json.loads(blob(tmp_path / "layout", manifest["config"]["digest"]))
    assert digest == json.loads((tmp_path / "layout/index.json").read_text())["manifests"][0]["digest"]
    assert (config["os"], config["architecture"]) == ("linux", architecture())
    assert config["config"] == {
        "Env": ["A=1", "B=2"],
        "WorkingDir": "/srv",
        "User": "app",
        "Entrypoint": ["/entry"],
        "Cmd": ["serve"],
        "Shell": ["/bin/bash", "-c"],
        "Labels": {"squall.python": "/usr/bin/python3"},
    }
    assert config["history"] == [{"created_by": "debian_slim 3.11"}, {"created_by": "run_commands true"}]
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]


def test_name_that_would_hide_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer/.wh.innocent").touch()

    with pytest.raises(CannotExport, match=r"\.wh\.innocent' begins with \.wh\."):
        export(ImageToExport((str(tmp_path / "layer"),), ()), tmp_path / "layout")


@pytest.mark.long
def test_program_says_what_is_left_out_and_why_it_cannot(tmp_path: Path) -> None:
    make_everything(tmp_path / "layer")
    good = run(tmp_path, ImageToExport((str(tmp_path / "layer"),), ()), "good")
    bad = run(tmp_path, ImageToExport((str(tmp_path / "none"),), ()), "bad")

    assert (good.returncode, good.stdout) == (0, "layer 1: left out: 'socket' is a socket\n")
    assert bad.returncode == 1
    assert str(tmp_path / "none") in bad.stdout


def run(place: Path, image: ImageToExport, name: str) -> subprocess.CompletedProcess[str]:
    (place / "image.json").write_text(image.to_json())
    command = [sys.executable, "-m", "squall.agent.image.oci.export", str(place / name), str(place / "image.json")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
