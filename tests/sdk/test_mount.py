"""Odd things in a folder that is shipped: each has its word, or is left out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from squall.exception import Error, InvalidError, ServiceError
from squall.protocol.mount import BLOCK_BYTES
from squall.sdk import _client, _mount
from squall.sdk._pending import run
from tests.sdk.double import ServerDouble


def ship(folder: Path) -> list[str]:
    mount = _mount.make_mount(_mount.find_files(str(folder), "", lambda path: False), "the folder")
    return [file.path for file in mount.manifest.files]


def send(path: Path) -> None:
    """Ship one file."""
    mount = _mount.make_mount([_mount.LocalFile(str(path), "data.bin")], "the file")
    put(mount)


def put(mount: _mount.Mount) -> None:
    client = _client.current()
    run(client.connect())
    run(_mount.upload(client, mount))


@pytest.mark.long
def test_of_a_large_file_only_what_changed_is_sent_again(tmp_path: Path, server: ServerDouble) -> None:
    path = tmp_path / "data.bin"
    content = os.urandom(BLOCK_BYTES * 3 + 7)
    path.write_bytes(content)
    send(path)
    sent = set(server.blobs)
    path.write_bytes(content[:BLOCK_BYTES] + b"changed" + content[BLOCK_BYTES + 7 :])

    send(path)

    assert len(sent) == 4
    (new,) = set(server.blobs) - sent
    assert server.blobs[new][:7] == b"changed"
    assert len(server.blobs_put) == 5
    first, second = server.mounts.values()
    assert first.files[0].blocks[0] == second.files[0].blocks[0]
    assert b"".join(server.blobs[one] for one in second.files[0].blobs) == path.read_bytes()


@pytest.mark.parametrize("size_bytes", [10, BLOCK_BYTES, BLOCK_BYTES * 2 + 1])
@pytest.mark.parametrize("change", ["shorter", "other", "empty"])
def test_file_that_changes_while_it_is_sent_is_told(
    tmp_path: Path, server: ServerDouble, size_bytes: int, change: str
) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(size_bytes))
    mount = _mount.make_mount([_mount.LocalFile(str(path), "data.bin")], "the file")
    os.truncate(path, {"shorter": size_bytes - 1, "other": size_bytes, "empty": 0}[change])
    if change == "other":
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    with pytest.raises(Error) as caught:
        put(mount)

    assert str(caught.value) == f"cannot ship {path}: it changed while it was read; run again"


def test_file_that_is_gone_before_it_is_sent_is_told(tmp_path: Path, server: ServerDouble) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b"x")
    mount = _mount.make_mount([_mount.LocalFile(str(path), "data.bin")], "the file")
    path.unlink()

    with pytest.raises(
        ServiceError, match=r"cannot ship .*data\.bin: No such file or directory; it was there a moment"
    ):
        put(mount)


@pytest.mark.parametrize("difference_bytes", [-1, 1])
def test_file_that_grows_or_shrinks_while_it_is_hashed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference_bytes: int
) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b"--")
    before = os.stat(path)
    os.truncate(path, 2 + difference_bytes)
    monkeypatch.setattr(os, "stat", lambda path: before)

    with pytest.raises(ServiceError, match=r"cannot ship .*data\.bin: it changed while it was read; run again"):
        _mount.make_mount([_mount.LocalFile(str(path), "data.bin")], "the file")


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

    with pytest.warns(UserWarning, match="the biggest folders are") as warned:
        ship(tmp_path)

    assert "the biggest folders are data/raw (3 MiB), src (0 MiB); leave out" in str(warned[0].message)


def test_content_that_is_no_file_travels_as_one() -> None:
    mount = _mount.make_mount([], "a call", [_mount.Content(b"data", "root/call")])

    (file,) = mount.manifest.files
    assert (file.path, file.size_bytes, mount.contents[file.sha256]) == ("root/call", 4, b"data")


def test_tree_that_links_lead_into_again_and_again_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mount, "FILES_MAX", 200)
    names = [tmp_path / f"l{number}" for number in range(20)]
    for one, following in zip(names, [*names[1:], None], strict=True):
        one.mkdir()
        if following is not None:
            (one / "a").symlink_to(following)
            (one / "b").symlink_to(following)

    with pytest.raises(InvalidError, match=r"more than 200 directories.*as often as links lead to it"):
        list(_mount.find_files(str(tmp_path), "", lambda path: False))


def test_directory_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scan(path: str) -> object:
        if path.endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)

    with pytest.raises(InvalidError, match=r"cannot ship .*: .*/closed: Permission denied"):
        list(_mount.find_files(str(tmp_path), "", lambda path: False))
