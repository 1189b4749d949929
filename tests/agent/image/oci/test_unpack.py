"""Layers become one tree, and an archive that wants something else gets nowhere."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from squall.agent.image.oci.unpack import BadArchive, unpack
from tests.agent.image.archives import Entry, archive, directory, entry, hard_link, symlink, write_layers


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty tree with something precious beside it."""
    (tmp_path / "precious").write_text("untouched")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def lay(root: Path, *layers: tuple[Entry, ...]) -> None:
    unpack(str(root), write_layers(root.parent, *(archive(*entries) for entries in layers)))


def files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_files_keep_modes_times_and_links(root: Path) -> None:
    lay(
        root,
        (
            directory("bin", 0o711),
            entry("./bin/su", b"suid", mode=0o4755),
            hard_link("bin/su2", "bin/su"),
            symlink("bin/link", "/bin/su"),
            entry("fifo", kind=tarfile.FIFOTYPE),
        ),
    )

    assert stat.S_IMODE((root / "bin/su").stat().st_mode) == 0o4755
    assert stat.S_IMODE((root / "bin").stat().st_mode) == 0o711
    assert (root / "bin/su").stat().st_mtime == (root / "bin").stat().st_mtime == 1_600_000_000
    assert (root / "bin/su").stat().st_ino == (root / "bin/su2").stat().st_ino
    assert os.readlink(root / "bin/link") == "/bin/su"
    assert stat.S_ISFIFO((root / "fifo").stat().st_mode)


def test_owner_of_a_layer_is_kept(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")

    lay(root, (entry("mine", uid=33, gid=65_535), entry("link", kind=tarfile.SYMTYPE, link="x", uid=33, gid=1)))

    assert ((root / "mine").stat().st_uid, (root / "mine").stat().st_gid) == (33, 65_535)
    assert (root / "link").lstat().st_uid == 33


def test_attributes_the_kernel_trusts_are_left_out_and_capabilities_kept(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("capabilities of files need root")
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
    headers = {
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.redirect": "/etc",
    }

    lay(root, (entry("ping", b"x", pax_headers=headers),))

    assert os.getxattr(root / "ping", "security.capability") == capability
    assert [name for name in os.listxattr(root / "ping") if "overlay" in name] == []


@pytest.mark.parametrize("text", ["1600000000.123456789", "-1000000.000000001", "0.5", "1600000000"])
def test_times_are_kept_to_the_nanosecond(root: Path, text: str) -> None:
    lay(root, (directory("d"), entry("d/a", pax_headers={"mtime": text}), entry("l", kind=tarfile.SYMTYPE, link="x")))

    seconds, _, rest = text.lstrip("-").partition(".")
    wanted = (int(seconds) * 10**9 + int(rest.ljust(9, "0"))) * (-1 if text.startswith("-") else 1)
    assert (root / "d/a").stat().st_mtime_ns == wanted
    assert (root / "l").lstat().st_mtime_ns == 1_600_000_000 * 10**9


@pytest.mark.parametrize("text", ["nan", "inf", "soon"])
def test_time_that_is_none_is_refused(root: Path, text: str) -> None:
    with pytest.raises(BadArchive, match="no proper time"):
        lay(root, (entry("a", pax_headers={"mtime": text}),))


def test_access_list_is_kept(root: Path) -> None:
    # Version 2; owner rwx, user 33 r, group r, mask r, others nothing.
    entries = ((1, 7, -1), (2, 4, 33), (4, 4, -1), (16, 4, -1), (32, 0, -1))
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *one) for one in entries)
    probe = root.parent / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "system.posix_acl_access", value)
    except OSError:
        pytest.skip("needs a file system with access lists")

    header = {"SCHILY.xattr.system.posix_acl_access": value.decode("utf-8", "surrogateescape")}
    lay(root, (entry("shared", b"x", pax_headers=header),))

    assert os.getxattr(root / "shared", "system.posix_acl_access") == value


def test_attribute_that_the_kernel_refuses_fails_the_image(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("capabilities of files need root")

    with pytest.raises(BadArchive, match="layer 1"):
        lay(root, (entry("a", pax_headers={"SCHILY.xattr.security.capability": "nonsense"}),))


def test_directory_of_an_upper_layer_has_the_attributes_of_that_layer(root: Path) -> None:
    def with_attribute(name: str, key: str) -> Entry:
        info, content = directory(name)
        info.pax_headers = {f"SCHILY.xattr.user.{key}": "x"}
        return info, content

    lay(root, (with_attribute("d", "old"), with_attribute(".", "old")), (with_attribute("d", "new"), directory(".")))

    assert os.listxattr(root / "d") == ["user.new"]
    assert os.listxattr(root) == []


def test_runs_of_zeros_take_no_place_on_the_disk(root: Path) -> None:
    content = b"begin" + bytes(16 * 2**20) + b"end"

    lay(root, (entry("sparse", content), entry("zeros", bytes(2**20)), entry("empty")))

    assert (root / "sparse").read_bytes() == content
    assert (root / "sparse").stat().st_blocks * 512 < 4 * 2**20
    assert ((root / "zeros").stat().st_size, (root / "empty").stat().st_size) == (2**20, 0)


def test_upper_layer_replaces_and_hides(root: Path) -> None:
    lay(
        root,
        (
            *(entry(name, b"old") for name in ("kept", "replaced", "hidden", "d/in", "o/a", "o/deep/b", "to-file/x")),
            symlink("to-directory", "/d"),
        ),
        (
            entry("replaced", b"new"),
            entry(".wh.hidden"),
            entry(".wh.d"),
            entry("o/new", b"new"),
            entry("o/.wh..wh..opq"),
            entry("to-file", b"file"),
            directory("to-directory"),
            entry(".wh.never-was"),
        ),
    )

    assert files_below(root) == {"kept", "replaced", "o", "o/new", "to-file", "to-directory"}
    assert (root / "replaced").read_bytes() == b"new"
    assert (root / "to-directory").is_dir()
    assert not (root / "to-directory").is_symlink()


def test_whiteouts_do_not_hide_what_their_own_layer_has(root: Path) -> None:
    lay(
        root,
        (entry("a", b"old"), entry("d/old"), entry("e/deep/old")),
        (entry("a", b"new"), entry(".wh.a"), entry("d/new"), entry(".wh.d"), entry("e/deep/new"), entry(".wh.e")),
    )

    assert files_below(root) == {"a", "d", "d/new", "e", "e/deep", "e/deep/new"}
    assert (root / "a").read_bytes() == b"new"


def test_last_of_several_entries_of_one_name_counts(root: Path) -> None:
    lay(
        root, (entry("a", b"1"), entry("a", b"2"), hard_link("b", "a"), hard_link("a", "b"), entry("c"), directory("c"))
    )

    assert (root / "a").read_bytes() == (root / "b").read_bytes() == b"2"
    assert (root / "c").is_dir()


def test_device_nodes_are_left_out(root: Path) -> None:
    lay(root, (entry("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3), entry("sda", kind=tarfile.BLKTYPE)))

    assert files_below(root) == set()


def test_absolute_names_and_links_stay_inside(root: Path) -> None:
    precious = str(root.parent / "precious")

    lay(
        root,
        (
            entry("/etc/passwd", b"inside"),
            directory(str(root.parent)),
            symlink("out", str(root.parent)),
            entry("out/precious", b"attack"),
            symlink("up", "../../../../../.."),
            entry(f"up{precious}", b"attack"),
            symlink("precious", precious),
            entry("precious", b"attack"),
        ),
        (symlink("again", str(root.parent)), entry("again/.wh.precious"), entry("again/.wh..wh..opq")),
    )

    assert (root / "etc/passwd").read_bytes() == b"inside"
    assert (root / "precious").read_bytes() == b"attack"
    assert Path(precious).read_text() == "untouched"
    assert {path.name for path in root.parent.iterdir()} == {"root", "precious", "layer-0.tar", "layer-1.tar"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ((entry("../precious", b"attack"),), "leads out"),
        ((entry("a/../../precious", b"attack"),), "leads out"),
        ((entry("../.wh.precious"),), "leads out"),
        ((entry(".wh..."),), "hides no file"),
        ((directory("d"), entry("d/.wh...")), "hides no file"),
        ((hard_link("stolen", "../precious"),), "leads out"),
        ((hard_link("stolen", "/precious"),), "not there"),
        ((directory("d"), hard_link("stolen", "d")), "cannot be a hard link"),
        ((hard_link("stolen", "."),), "hard link to nothing"),
        ((entry("x", uid=65_536),), "ids up to 65535"),
        ((entry("x", kind=b"Z"),), "unknown kind"),
        ((entry("a/" * 300 + "x"),), "deeper than"),
        ((symlink("loop", "loop"), entry("loop/x")), "symbolic links"),
        ((entry("file"), entry("file/x")), "ot a directory"),
    ],
)
def test_archive_that_names_what_it_may_not_is_refused(root: Path, entries: tuple[Entry, ...], message: str) -> None:
    with pytest.raises(BadArchive, match=message):
        lay(root, entries)

    assert (root.parent / "precious").read_text() == "untouched"


def test_hard_link_through_a_link_leads_nowhere_outside(root: Path) -> None:
    with pytest.raises(BadArchive, match="not there"):
        lay(root, (symlink("out", str(root.parent)), hard_link("stolen", "out/precious")))


def test_hard_link_to_a_link_is_another_link(root: Path) -> None:
    lay(root, (symlink("a", str(root.parent / "precious")), hard_link("b", "a")))

    assert (root / "b").is_symlink()


@pytest.mark.parametrize("cut", [100, 512, 700, 1_100])
def test_archive_that_is_cut_off_is_refused_even_with_its_own_digest(root: Path, cut: int) -> None:
    whole = archive(entry("a", b"x" * 300), entry("b", b"y" * 3_000))

    # 512 and less is less than the first header, 1100 is inside the second.
    with pytest.raises(BadArchive, match=r"no proper tar|cut off|unexpected end"):
        unpack(str(root), write_layers(root.parent, whole[:cut]))


def test_wrong_digest_is_refused(root: Path) -> None:
    ((path, digest),) = write_layers(root.parent, archive(entry("a")))
    Path(path).write_bytes(archive(entry("b")))

    with pytest.raises(BadArchive, match=f"should be {digest}"):
        unpack(str(root), [(path, digest)])


@pytest.mark.parametrize("content", [b"no archive" * 100, archive(entry("a"))[:512] + b"rubbish" * 1000])
def test_what_is_no_archive_is_refused(root: Path, content: bytes) -> None:
    with pytest.raises(BadArchive, match="no proper tar archive"):
        unpack(str(root), write_layers(root.parent, content))


@pytest.mark.long
def test_header_that_would_fill_the_memory_ends_the_program_with_a_reason(root: Path) -> None:
    header = tarfile.TarInfo("bomb")
    header.type, header.size = tarfile.XHDTYPE, 8 * 2**30
    path = root.parent / "bomb.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, 2 * 2**30)

    ended = subprocess.run(
        [sys.executable, "-m", "squall.agent.image.oci.unpack", str(root), f"{path}=sha256:0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert "MiB of memory" in ended.stdout
