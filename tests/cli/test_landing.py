"""What comes from a volume comes into its directory, whatever a volume says that it is called."""

from __future__ import annotations

import fcntl
import os
from hashlib import sha256
from pathlib import Path

import click
import pytest

from squall.cli.landing import Landing, check_free, is_there, landed, part_name, put_link
from squall.protocol.volume import BLOCK_BYTES, FILE, VolumeBlocks, VolumeEntry

DATA = b"content"
PAGE = VolumeBlocks(len(DATA), (sha256(DATA).hexdigest(),))
ENTRY = VolumeEntry("f", FILE, 0o4755, 1_700_000_000_000_000_001, len(DATA))


def land(landing: Landing, parts: list[str], data: bytes = DATA) -> None:
    folder = landing.folder(parts[:-1])
    with landed(folder, parts[-1], ENTRY, PAGE) as file:
        file.add(data, len(data))


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", "a\0b", "\udc2f"])
def test_names_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    with Landing(str(tmp_path / "in")) as landing:
        for parts in ([name], [name, "f"], ["d", name]):
            with pytest.raises(click.ClickException, match="no file can have"):
                landing.folder(parts)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("target", ["..", "/tmp", "."])
def test_links_in_the_way_are_not_followed(tmp_path: Path, target: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "d").symlink_to(target)
    with Landing(str(tmp_path / "in")) as landing, pytest.raises(click.ClickException, match="is no directory"):
        landing.folder(["d"])


def test_a_link_at_a_files_place_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").write_bytes(b"mine")
    (tmp_path / "in" / "f").symlink_to("../outside")
    with Landing(str(tmp_path / "in")) as landing:
        folder = landing.folder([])
        assert not is_there(folder, "f", ENTRY)
        with pytest.raises(click.ClickException, match="--force"):
            check_free(folder, "f", "in/f", is_forced=False)
        check_free(folder, "f", "in/f", is_forced=True)
        land(landing, ["f"])
    assert (tmp_path / "outside").read_bytes() == b"mine"
    assert not (tmp_path / "in" / "f").is_symlink()
    assert (tmp_path / "in" / "f").read_bytes() == DATA


def test_no_file_gets_another_users_rights(tmp_path: Path) -> None:
    with Landing(str(tmp_path)) as landing:
        land(landing, ["f"])
    status = (tmp_path / "f").stat()
    assert (oct(status.st_mode & 0o7777), status.st_mtime_ns) == ("0o755", ENTRY.mtime_ns)


def test_links_are_put_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"mine")
    with Landing(str(tmp_path / "in")) as landing:
        folder = landing.folder([])
        put_link(folder, "l", "../outside")
        put_link(folder, "l", "/nowhere")
        (tmp_path / "in" / "d").mkdir()
        with pytest.raises(OSError, match="directory"):
            put_link(folder, "d", "x")
        assert os.listdir(tmp_path / "in") in (["l", "d"], ["d", "l"])
    assert (tmp_path / "in" / "l").readlink() == Path("/nowhere")


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "locked"])
def test_what_has_the_name_of_a_part_and_is_none_is_left_alone(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").write_bytes(b"mine")
    part = tmp_path / "in" / part_name(PAGE)
    if kind == "link":
        part.symlink_to("../outside")
    elif kind == "hard link":
        part.hardlink_to(tmp_path / "outside")
    elif kind == "pipe":
        os.mkfifo(part)
    else:
        part.write_bytes(b"half")
    with open(tmp_path / "outside", "rb") as other, Landing(str(tmp_path / "in")) as landing:
        if kind == "locked":
            with part.open("rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                land(landing, ["f"])
            assert part.read_bytes() == b"half"
        else:
            land(landing, ["f"])
        assert other.read() == b"mine"
    assert (tmp_path / "in" / "f").read_bytes() == DATA


def test_a_file_of_another_size_does_not_land(tmp_path: Path) -> None:
    with Landing(str(tmp_path)) as landing, pytest.raises(click.ClickException, match="another number of bytes"):
        land(landing, ["f"], b"short")
    assert os.listdir(tmp_path) == []


def test_directories_get_their_modes_and_times_at_the_end(tmp_path: Path) -> None:
    entry = VolumeEntry("d", "directory", 0o500, 1_600_000_000_000_000_000)
    (tmp_path / "there").mkdir(mode=0o711)
    with Landing(str(tmp_path)) as landing:
        landing.folder(["d"], entry)
        landing.folder(["there"], entry)
        land(landing, ["there", "f"])
        land(landing, ["d", "f"])
        land(landing, ["d", "e", "f"])
    found = (tmp_path / "d").stat()
    assert (oct(found.st_mode & 0o777), found.st_mtime_ns) == ("0o500", entry.mtime_ns)
    assert oct((tmp_path / "there").stat().st_mode & 0o777) == "0o711"
    assert (tmp_path / "d" / "e" / "f").read_bytes() == DATA


def test_holes_are_holes(tmp_path: Path) -> None:
    size = 3 * BLOCK_BYTES
    page = VolumeBlocks(size, ("", sha256(b"x").hexdigest(), ""))
    with Landing(str(tmp_path)) as landing:
        folder = landing.folder([])
        with landed(folder, "f", VolumeEntry("f", FILE, 0o644, 0, size), page) as file:
            file.add(b"", BLOCK_BYTES)
            file.add(b"x" * 4096, 4096)
            file.add(b"", size - BLOCK_BYTES - 4096)
    found = (tmp_path / "f").stat()
    assert (found.st_size, found.st_blocks * 512) == (size, 4096)
