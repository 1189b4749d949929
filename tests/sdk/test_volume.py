"""`squall.Volume` outside containers, against a real server: what is put is read back, and nothing is half done."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

import squall
from squall.exception import AlreadyExistsError, ConflictError, DataLossError, InvalidError, NotFoundError
from squall.protocol import volume as wire
from squall.protocol.volume import BLOCK_BYTES, VolumeBlocksGet, VolumeList, VolumeListing
from squall.sdk import _blob, _client, _volume_content, _volume_reader
from squall.sdk._pending import iterate, run
from squall.sdk.types import FileEntryType
from squall.sdk.volume import MissingPath, PathExists
from tests.server_process import ServerProcess, running_server, used

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[ServerProcess]:
    """One server for all tests that do it no harm."""
    with running_server() as server:
        yield server


@pytest.fixture
def real_server(shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    """Where the SDK finds it."""
    with used(shared_server, monkeypatch):
        yield shared_server


@pytest.fixture
def own_server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    """One that a test may kill."""
    server = ServerProcess(data_dir)
    with used(server, monkeypatch):
        server.start()
        yield server
    server.stop()


@pytest.fixture
def volume(real_server: ServerProcess, request: pytest.FixtureRequest) -> squall.Volume:
    """An empty one."""
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:16]
    return squall.Volume.from_name(f"test-{name}", create_if_missing=True)


def put(volume: squall.Volume, path: str, data: bytes, *, force: bool = False) -> None:
    with volume.batch_upload(force=force) as batch:
        batch.put_file(io.BytesIO(data), path)


def read(volume: squall.Volume, path: str) -> bytes:
    return b"".join(volume.read_file(path))


def tree(volume: squall.Volume, path: str = "/") -> list[str]:
    return sorted(entry.path for entry in volume.iterdir(path))


# What is put is read back


SIZES = [0, 1, 1000, 256 * 1024, 256 * 1024 + 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES + 77]


@pytest.mark.long
def test_files_of_every_size_come_back_as_they_were(volume: squall.Volume, tmp_path: Path) -> None:
    contents = {f"size-{size}": os.urandom(size) for size in SIZES}
    contents["zeros"] = bytes(BLOCK_BYTES + 5)
    contents["few zeros"] = bytes(10)
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    with volume.batch_upload() as batch:
        batch.put_directory(tmp_path, "/in/here")
        batch.put_file(tmp_path / "zeros", PurePosixPath("again"))

    for name, data in contents.items():
        assert read(volume, f"in/here/{name}") == data, name
    assert read(volume, "/again") == contents["zeros"]
    sizes = {Path(one.path).name: one.size for one in volume.listdir("in/here")}
    assert sizes == {name: len(data) for name, data in contents.items()}


@pytest.mark.long
def test_holes_of_sparse_files_take_no_room(volume: squall.Volume, real_server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    size = 40 * BLOCK_BYTES + 3
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(10 * BLOCK_BYTES + 1)
        file.write(b"island")
    before = sum(one.stat().st_size for one in (real_server.data_dir / "blobs" / "content").rglob("*"))
    with volume.batch_upload() as batch:
        batch.put_file(path, "sparse")

    after = sum(one.stat().st_size for one in (real_server.data_dir / "blobs" / "content").rglob("*"))
    assert after - before <= BLOCK_BYTES + 2**20
    at = 0
    for piece in volume.read_file("sparse"):
        island = piece.find(b"island")
        assert piece.count(0) == len(piece) - (6 if island >= 0 else 0)
        assert island < 0 or at + island == 10 * BLOCK_BYTES + 1
        at += len(piece)
    assert at == size


def test_directories_links_modes_and_times_are_kept(volume: squall.Volume, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir(mode=0o750)
    (tmp_path / "empty").mkdir()
    tool = tmp_path / "bin" / "tool"
    tool.write_bytes(b"#!")
    tool.chmod(0o755)
    os.utime(tool, ns=(1, 1_700_000_000_123_456_789))
    (tmp_path / "link").symlink_to("bin/tool")
    (tmp_path / "folder-link").symlink_to("bin")
    (tmp_path / "broken").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "pipe")
    with volume.batch_upload() as batch:
        batch.put_directory(tmp_path, "/")
        batch.put_file(tool, "other", mode=0o600)

    kinds = {one.path: one.type for one in volume.iterdir("/")}
    assert kinds == {
        "bin": FileEntryType.DIRECTORY,
        "bin/tool": FileEntryType.FILE,
        "broken": FileEntryType.SYMLINK,
        "empty": FileEntryType.DIRECTORY,
        "folder-link": FileEntryType.SYMLINK,
        "link": FileEntryType.SYMLINK,
        "other": FileEntryType.FILE,
    }
    client = _client.current()
    listing = run(client.request("VolumeList", VolumeList(volume.object_id, "", is_deep=True), VolumeListing))
    found = {one.path: one for one in listing.entries}
    assert (found["bin/tool"].mode, found["bin/tool"].mtime_ns) == (0o755, 1_700_000_000_123_456_789)
    assert (found["bin"].mode, found["other"].mode) == (0o750, 0o600)
    assert found["link"].mtime_ns == (tmp_path / "link").lstat().st_mtime_ns
    assert (found["link"].target, found["folder-link"].target) == ("bin/tool", "bin")


def test_names_that_are_no_text_come_back(volume: squall.Volume, tmp_path: Path) -> None:
    name = b"caf\xe9 \xff\n'\""
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    with volume.batch_upload() as batch:
        batch.put_directory(os.fsencode(tmp_path), "d")  # type: ignore[arg-type]

    (entry,) = volume.listdir("d")
    assert os.fsencode(entry.path) == b"d/" + name
    assert read(volume, entry.path) == b"x"


def test_a_directory_without_what_is_deeper(volume: squall.Volume, tmp_path: Path) -> None:
    (tmp_path / "top").write_bytes(b"1")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "deep").write_bytes(b"2")
    with volume.batch_upload() as batch:
        batch.put_directory(tmp_path, "d", recursive=False)

    assert "d/top" in tree(volume)
    assert "d/below/deep" not in tree(volume)


class Trickle(io.RawIOBase):
    """As a pipe: what is read comes in small pieces."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        return self._data.readinto(memoryview(buffer)[:70_001])  # type: ignore[arg-type]


def test_streams_of_unknown_length(volume: squall.Volume, tmp_path: Path) -> None:
    data = os.urandom(BLOCK_BYTES + 100_000)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(data))
    feeder.start()
    with volume.batch_upload() as batch:
        batch.put_file(Trickle(data), "trickle")  # type: ignore[arg-type]
        batch.put_file(pipe, "pipe")
        batch.put_file("/proc/self/stat", "made up")
    feeder.join()

    assert read(volume, "trickle") == read(volume, "pipe") == data
    assert read(volume, "made up").startswith(b"%d (" % os.getpid())


def test_text_cannot_be_put(volume: squall.Volume) -> None:
    with pytest.raises(InvalidError, match="binary mode"), volume.batch_upload() as batch:
        batch.put_file(io.StringIO("text"), "a")  # type: ignore[arg-type]
    assert tree(volume) == []


# Nothing, or all of it


def test_what_is_there_is_replaced_by_force_only(volume: squall.Volume) -> None:
    put(volume, "a/b", b"one")
    with pytest.raises(FileExistsError, match="force=True") as caught:
        put(volume, "a/b", b"two")
    assert isinstance(caught.value, AlreadyExistsError)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), PathExists)
    assert read(volume, "a/b") == b"one"

    put(volume, "a/b", b"two", force=True)
    assert read(volume, "a/b") == b"two"
    with pytest.raises(ConflictError):
        put(volume, "a", b"in the place of a directory", force=True)
    with pytest.raises(ConflictError):
        put(volume, "a/b/c", b"in a file", force=True)
    assert tree(volume) == ["a", "a/b"]


def test_a_block_that_raises_puts_nothing(volume: squall.Volume) -> None:
    put(volume, "kept", b"kept")

    def put_and_raise() -> None:
        with volume.batch_upload(force=True) as batch:
            batch.put_file(io.BytesIO(b"changed"), "kept")
            batch.put_file(io.BytesIO(b"new"), "new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        put_and_raise()
    assert tree(volume) == ["kept"]
    assert read(volume, "kept") == b"kept"


def test_a_file_that_is_missing_here_puts_nothing(volume: squall.Volume, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(os.urandom(BLOCK_BYTES * 2))

    def put_both() -> None:
        with volume.batch_upload() as batch:
            batch.put_file(tmp_path / "here", "here")
            batch.put_file(tmp_path / "gone", "gone")

    with pytest.raises(FileNotFoundError, match="gone"):
        put_both()
    assert tree(volume) == []


@pytest.mark.parametrize("size", [1000, BLOCK_BYTES * 6])
def test_a_file_that_changes_meanwhile_puts_nothing(
    volume: squall.Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = tmp_path / "written"
    path.write_bytes(os.urandom(size))
    read_as_it_was = _volume_content._read

    def read_and_write(fd: int, name: str, at: int, count: int) -> bytes:
        data = read_as_it_was(fd, name, at, count)
        with path.open("ab") as file:
            file.write(b"more")
        return data

    monkeypatch.setattr(_volume_content, "_read", read_and_write)
    with pytest.raises(InvalidError, match="was changed while it was put"), volume.batch_upload() as batch:
        batch.put_file(path, "written")
    assert tree(volume) == []


def test_a_file_that_becomes_shorter_puts_nothing(
    volume: squall.Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shorter"
    path.write_bytes(os.urandom(BLOCK_BYTES * 6))
    read_as_it_was = _volume_content._read

    def cut_and_read(fd: int, name: str, at: int, count: int) -> bytes:
        os.truncate(path, BLOCK_BYTES)
        return read_as_it_was(fd, name, at, count)

    monkeypatch.setattr(_volume_content, "_read", cut_and_read)
    with pytest.raises(InvalidError, match=r"became shorter|was changed"), volume.batch_upload() as batch:
        batch.put_file(path, "shorter")
    assert tree(volume) == []


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_file_with_more_content_than_a_volume_takes_is_named_before_all_of_it_is_sent(
    volume: squall.Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stream: bool
) -> None:
    monkeypatch.setattr(wire, "BLOCK_LIST_BYTES_MAX", 100)
    path = tmp_path / "huge"
    path.write_bytes(os.urandom(BLOCK_BYTES * 2))

    def put_it() -> None:
        with path.open("rb") as file, volume.batch_upload() as batch:
            batch.put_file(file if is_stream else path, "huge")

    with pytest.raises(InvalidError, match=r"huge' cannot be put: a file has about 900 GB of content at most"):
        put_it()
    assert tree(volume) == []


@pytest.mark.parametrize("path", ["../a", "a/../../b", "a/..", "a\0b"])
def test_paths_that_lead_out_are_refused(volume: squall.Volume, tmp_path: Path, path: str) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(InvalidError), volume.batch_upload() as batch:
        batch.put_file(tmp_path / "f", path)
    with pytest.raises(InvalidError), volume.batch_upload() as batch:
        batch.put_directory(tmp_path, path)
    for change in (
        lambda: volume.remove_file(path),
        lambda: volume.copy_files([path], "x"),
        lambda: read(volume, path),
    ):
        with pytest.raises(InvalidError):
            change()
    assert tree(volume) == []


@pytest.mark.parametrize("path", ["", "/", "d/"])
def test_a_file_needs_a_name(volume: squall.Volume, path: str) -> None:
    with pytest.raises(InvalidError, match="name the file"), volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"x"), path)


@pytest.mark.parametrize("mode", ["644", -1, 0o100644])
def test_a_mode_is_permission_bits(volume: squall.Volume, mode: object) -> None:
    with pytest.raises(InvalidError, match="permission bits"), volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"x"), "x", mode=mode)  # type: ignore[arg-type]


def test_names_no_file_system_has_are_refused(volume: squall.Volume) -> None:
    with pytest.raises(InvalidError, match="255 bytes"):
        put(volume, "n" * 256, b"x")


# Looking and changing


def test_what_is_missing_is_a_file_not_found_error(volume: squall.Volume) -> None:
    put(volume, "there", b"x")
    for path in ("gone", "it's"):
        looks = (
            lambda path=path: read(volume, path),
            lambda path=path: volume.listdir(path),
            lambda path=path: list(volume.iterdir(path)),
            lambda path=path: volume.read_file_into_fileobj(path, io.BytesIO()),
            lambda path=path: volume.remove_file(path),
            lambda path=path: volume.copy_files([path], "b"),
        )
        for look in looks:
            with pytest.raises(FileNotFoundError) as caught:
                look()
            assert isinstance(caught.value, NotFoundError)
            again = pickle.loads(pickle.dumps(caught.value))
            assert isinstance(again, MissingPath)
            assert str(again) == str(caught.value)


def test_a_volume_or_version_that_is_missing_is_no_path(volume: squall.Volume) -> None:
    put(volume, "there", b"x")
    handles = (squall.Volume.from_name("no-such-volume"), squall.Volume.from_name(str(volume.name), version=99))
    for handle in handles:
        with pytest.raises(NotFoundError) as caught:
            handle.listdir("/")
        assert not isinstance(caught.value, FileNotFoundError)


def test_versions_are_read_and_never_changed(volume: squall.Volume) -> None:
    put(volume, "a", b"one")
    put(volume, "a", b"two", force=True)
    volume.remove_file("a")

    first = pickle.loads(pickle.dumps(squall.Volume.from_name(str(volume.name), version=1)))
    second = squall.Volume.from_name(str(volume.name), version=2)
    assert (read(first, "a"), read(second, "a"), tree(volume)) == (b"one", b"two", [])
    assert tree(first) == ["a"]
    changes = (
        lambda: put(first, "b", b"x"),
        lambda: first.remove_file("a"),
        lambda: first.copy_files(["a"], "b"),
    )
    for change in changes:
        with pytest.raises(InvalidError, match="version 1, which stays as it is"):
            change()
    for version in (0, -1, True, "1"):
        with pytest.raises(InvalidError, match="number of a version"):
            squall.Volume.from_name("x", version=version)  # type: ignore[arg-type]


def test_copies_and_removals_are_as_those_of_cp_and_rm(volume: squall.Volume) -> None:
    put(volume, "d/a", b"a")
    put(volume, "b", b"b")
    volume.copy_files(["d/a", "b"], "d")
    with pytest.raises(InvalidError, match="recursive"):
        volume.copy_files(["d"], "e")
    volume.copy_files(["d"], "e", recursive=True)
    assert tree(volume) == ["b", "d", "d/a", "d/b", "e", "e/a", "e/b"]
    with pytest.raises(ConflictError, match="recursive"):
        volume.remove_file("d")
    volume.remove_file("d", recursive=True)
    volume.remove_file("e/b")
    assert tree(volume) == ["b", "e", "e/a"]
    with pytest.raises(InvalidError, match="give a list"):
        volume.copy_files("d/a", "x")
    with pytest.raises(InvalidError, match="at least one"):
        volume.copy_files([], "x")


def test_patterns_are_not_expanded(volume: squall.Volume) -> None:
    with pytest.raises(InvalidError, match="patterns"):
        volume.listdir("*.bin")


def test_progress_of_a_read_is_told(volume: squall.Volume) -> None:
    data = os.urandom(2 * BLOCK_BYTES + 10)
    put(volume, "a", data)
    told: list[int] = []
    into = io.BytesIO()
    assert volume.read_file_into_fileobj("a", into, told.append) == len(data)
    assert (into.getvalue(), told) == (data, [BLOCK_BYTES, BLOCK_BYTES, 10])


async def test_async_forms(real_server: ServerProcess) -> None:
    async with squall.Volume.ephemeral() as volume:
        async with volume.batch_upload.aio() as batch:
            batch.put_file(io.BytesIO(b"a" * (BLOCK_BYTES + 1)), "d/a")
        await volume.copy_files.aio(["d/a"], "b")
        assert [one.path async for one in volume.iterdir.aio("/")] == ["b", "d", "d/a"]
        assert [one.path for one in await volume.listdir.aio("d")] == ["d/a"]
        assert b"".join([piece async for piece in volume.read_file.aio("b")]) == b"a" * (BLOCK_BYTES + 1)
        await volume.remove_file.aio("d", recursive=True)
        assert await volume.read_file_into_fileobj.aio("b", io.BytesIO()) == BLOCK_BYTES + 1
        with pytest.raises(FileNotFoundError):
            await volume.listdir.aio("d")
        # Several at a time.
        uploads = [asyncio.create_task(_put_aio(volume, f"n/{n}", os.urandom(300_000))) for n in range(5)]
        await asyncio.gather(*uploads)
        assert len(await volume.listdir.aio("n")) == 5


async def _put_aio(volume: squall.Volume, path: str, data: bytes) -> None:
    async with volume.batch_upload.aio() as batch:
        batch.put_file(io.BytesIO(data), path)


def test_renamed_listed_and_deleted(real_server: ServerProcess) -> None:
    squall.Volume.objects.create("old-name")
    volume = squall.Volume.from_name("old-name")
    assert volume.info().name == "old-name"
    put(volume, "a", b"x")
    squall.Volume.rename("old-name", "new-name")
    assert read(volume, "a") == read(squall.Volume.from_name("new-name"), "a") == b"x"
    assert "new-name" in [one.name for one in squall.Volume.objects.list()]
    squall.Volume.objects.delete("new-name")
    with pytest.raises(NotFoundError):
        squall.Volume.objects.delete("new-name")
    squall.Volume.objects.delete("new-name", allow_missing=True)


# Faults


@pytest.mark.long
def test_twenty_thousand_small_files(volume: squall.Volume, tmp_path: Path) -> None:
    for folder in range(20):
        (tmp_path / str(folder)).mkdir()
        for number in range(1000):
            (tmp_path / str(folder) / str(number)).write_bytes(b"%d/%d" % (folder, number))
    with volume.batch_upload() as batch:
        batch.put_directory(tmp_path, "many")
    entries = list(volume.iterdir("many"))
    assert len(entries) == 20 * 1001
    assert read(volume, "many/7/777") == b"7/777"


@pytest.mark.long
def test_a_damaged_block_is_named_and_never_handed_out(volume: squall.Volume, real_server: ServerProcess) -> None:
    for size in (1000, BLOCK_BYTES * 3):
        data = os.urandom(size)
        path = f"damaged-{size}"
        put(volume, path, data)
        sha256 = hashlib.sha256(data[-BLOCK_BYTES:]).hexdigest()
        block = real_server.blob_path(sha256)
        block.chmod(0o644)
        whole = block.read_bytes()
        block.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
        with pytest.raises(DataLossError, match=sha256) as caught:
            read(volume, path)
        assert path in str(caught.value)
        # The store has looked, and has forgotten it: it is whole again when the same is put again.
        with pytest.raises(DataLossError, match=f"{sha256}.*not in the store"):
            read(volume, path)
        put(volume, path, data, force=True)
        assert read(volume, path) == data
        block.chmod(0o644)
        block.write_bytes(whole[:-1])
        with pytest.raises(DataLossError, match=sha256):
            read(volume, path)
        put(volume, f"again-{size}", data)
        assert read(volume, path) == data


def test_small_files_of_one_block_ask_for_it_once(volume: squall.Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    with volume.batch_upload() as batch:
        for number in range(10):
            batch.put_file(io.BytesIO(b"%d" % number), f"streams/{number}")
    asked: list[str] = []
    get = _blob.get

    async def noted(client: object, sha256: str) -> list[bytes]:
        asked.append(sha256)
        return await get(client, sha256)  # type: ignore[arg-type]

    monkeypatch.setattr(_blob, "get", noted)
    reader = _volume_reader.VolumeReader(_client.current())
    for number in range(10):
        pieces = reader.read(VolumeBlocksGet(volume.object_id, f"streams/{number}"))
        assert list(iterate(pieces)) == [(b"%d" % number, 1)]
    assert len(asked) == 1


@pytest.mark.long
def test_a_server_killed_in_the_middle_of_an_upload(
    own_server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = squall.Volume.from_name("killed", create_if_missing=True)
    put(volume, "before", b"before")
    path = tmp_path / "large"
    path.write_bytes(os.urandom(BLOCK_BYTES * 8))
    read_as_it_was = _volume_content._read
    killed = threading.Event()

    def read_and_kill(fd: int, name: str, at: int, count: int) -> bytes:
        if at == 6 * BLOCK_BYTES and not killed.is_set():
            killed.set()
            own_server.kill()
            own_server.start()
        return read_as_it_was(fd, name, at, count)

    monkeypatch.setattr(_volume_content, "_read", read_and_kill)
    with volume.batch_upload() as batch:
        batch.put_file(path, "large")
        batch.put_directory(tmp_path, "d")
    assert killed.is_set()
    assert read(volume, "large") == read(volume, "d/large") == path.read_bytes()
    assert tree(squall.Volume.from_name("killed", version=1)) == ["before"]
    assert tree(squall.Volume.from_name("killed", version=2)) == ["before", "d", "d/large", "large"]
    with pytest.raises(NotFoundError):
        squall.Volume.from_name("killed", version=3).listdir("/")


@pytest.mark.long
def test_an_upload_that_was_cut_off_is_repeated_without_sending_what_came(
    volume: squall.Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(BLOCK_BYTES * 12))
    read_as_it_was = _volume_content._read

    def cut_off(fd: int, name: str, at: int, count: int) -> bytes:
        if at == 11 * BLOCK_BYTES:
            raise OSError(5, "Input/output error", name)
        return read_as_it_was(fd, name, at, count)

    monkeypatch.setattr(_volume_content, "_read", cut_off)
    with pytest.raises(OSError, match="large"), volume.batch_upload() as batch:
        batch.put_file(path, "large")
    assert tree(volume) == []

    monkeypatch.setattr(_volume_content, "_read", read_as_it_was)
    sent: list[str] = []
    add = _blob.Uploads.add

    async def noted(self: _blob.Uploads, sha256: str, pieces: list[bytes]) -> None:
        sent.append(sha256)
        await add(self, sha256, pieces)

    monkeypatch.setattr(_blob.Uploads, "add", noted)
    with volume.batch_upload() as batch:
        batch.put_file(path, "large")
    assert 1 <= len(sent) <= 9  # of 12: seven were sent, and the last of these may have been on their way
    assert read(volume, "large") == path.read_bytes()


UPLOADER = """
import sys, squall
volume = squall.Volume.from_name("memory", create_if_missing=True)
with volume.batch_upload(force=True) as batch:
    batch.put_file(sys.argv[1], "large")
print(open("/proc/self/status").read())
"""


@pytest.mark.long
def test_memory_of_an_upload_is_bounded(real_server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "large"
    block = os.urandom(BLOCK_BYTES)
    with path.open("wb") as file:
        for number in range(60):
            file.write(block[:-1] + bytes([number]))
    environ = {**os.environ, "SQUALL_DATA_DIR": str(real_server.data_dir)}
    ended = subprocess.run(
        [sys.executable, "-c", UPLOADER, str(path)], env=environ, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    # Not `ru_maxrss`, which counts what this process had when it forked.
    (peak_kib,) = re.findall(r"VmHWM:\s*(\d+) kB", ended.stdout)
    assert int(peak_kib) < 200 * 1024
