"""`squall volume` against a real server: what is typed, what it does, and what it says."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from squall.cli import main
from squall.cli.landing import part_name
from squall.cli.progress import Progress
from squall.cli.server_calls import ask
from squall.cli.volume_target import asset_of
from squall.exception import DataLossError, Error
from squall.protocol.volume import BLOCK_BYTES, VolumeBlocks, VolumeBlocksGet
from squall.sdk._volume_reader import VolumeReader
from squall.server.dispatch.asset.volumes import BLOCKS_MAX
from tests.server_process import ServerProcess, running_server, used

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[ServerProcess]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    monkeypatch.delenv("SQUALL_ENVIRONMENT", raising=False)
    with used(shared_server, monkeypatch):
        yield shared_server


class Said:
    """What a command printed."""

    def __init__(self, code: int, out: bytes, err: str) -> None:
        self.code = code
        self.bytes = out
        self.out = out.decode("utf-8", "surrogateescape")
        self.err = err

    def rows(self) -> list[list[str]]:
        """Of a table."""
        return [line.split() for line in self.out.splitlines()[1:]]


def ran(*arguments: object, piped: bytes = b"") -> Said:
    """A command that does what it should."""
    said = tried(*arguments, piped=piped)
    assert said.code == 0, said.err
    return said


def tried(*arguments: object, piped: bytes = b"") -> Said:
    """`squall volume …`, however it ends."""
    result = CliRunner().invoke(main.squall, ["volume", *map(str, arguments)], input=piped)
    if isinstance(result.exception, Error):
        return Said(1, result.stdout_bytes, f"{result.stderr}{result.exception}")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Said(result.exit_code, result.stdout_bytes, result.stderr)


@pytest.fixture
def name(server: ServerProcess, request: pytest.FixtureRequest) -> str:
    """Of an empty volume."""
    found = "cli-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:16]
    ran("create", found)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with one of each."""
    folder = tmp_path / "source"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "one").write_bytes(b"one")
    (folder / "a" / "tool").write_bytes(b"#!")
    (folder / "a" / "tool").chmod(0o755)
    (folder / "a" / "link").symlink_to("one")
    (folder / "large").write_bytes(os.urandom(2 * BLOCK_BYTES + 7))
    with (folder / "sparse").open("wb") as file:
        file.truncate(5 * BLOCK_BYTES)
        file.seek(3 * BLOCK_BYTES)
        file.write(b"island")
    (folder / os.fsdecode(b"caf\xe9")).write_bytes(b"no UTF-8")
    os.utime(folder / "a" / "b", ns=(0, 1_600_000_000_000_000_001))
    return folder


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """What is in a directory, with all that is kept."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what: object = None
        if path.is_symlink():
            what = path.readlink()
        elif path.is_file():
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        times = () if path.is_symlink() else (status.st_mtime_ns,)
        found[str(path.relative_to(folder))] = (oct(status.st_mode), what, *times)
    return found


# There and back


@pytest.mark.long
def test_a_directory_there_and_back(name: str, source: Path, tmp_path: Path) -> None:
    said = ran("put", name, source, "in/here")
    assert said.err.startswith(f"Uploaded {source} to in/here: 5 files, 59 MB. ")
    said = ran("get", name, "in/here", tmp_path / "back")
    assert said.err.startswith(f"Finished downloading in/here of volume {name}, version 1: 6 files, 59 MB.")
    assert tree(tmp_path / "back") == tree(source)
    sparse = (tmp_path / "back" / "sparse").stat()
    assert sparse.st_blocks * 512 <= BLOCK_BYTES

    # What is there is left alone, and what is another one is not replaced unasked.
    said = ran("get", name, "in/here", tmp_path / "back")
    assert "0 files, 0 kB; 6 files had come before" in said.err
    (tmp_path / "back" / "a" / "one").write_bytes(b"mine")
    refused = tried("get", name, "in/here", tmp_path / "back")
    assert refused.code == 1
    assert f"{tmp_path}/back/a/one is there already; --force replaces it" in refused.err
    assert (tmp_path / "back" / "a" / "one").read_bytes() == b"mine"
    ran("get", name, "in/here", tmp_path / "back", "--force")
    assert tree(tmp_path / "back")["a/one"] == tree(source)["a/one"]
    assert not list(tmp_path.rglob(".squall-*"))


def test_where_a_file_comes_to(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").write_bytes(b"f")
    for remote in ("/", "d/", "d/e/g", "h"):
        ran("put", name, "f", remote)
    assert [row[0] for row in ran("ls", name, "-r").rows()] == ["d", "d/e", "d/e/g", "d/f", "f", "h"]
    os.mkdir("in")
    ran("get", name, "h")
    ran("get", name, "h", "in")
    ran("get", name, "h", "new/")
    ran("get", name, "h", "in/other")
    assert sorted(str(path) for path in Path().rglob("*") if path.is_file()) == ["f", "h", "in/h", "in/other", "new/h"]


def test_pipes(name: str) -> None:
    data = os.urandom(BLOCK_BYTES + 10)
    ran("put", name, "-", "a/piped", piped=data)
    assert ran("get", name, "a/piped", "-").bytes == data
    for where in ("/", "a/"):
        unnamed = tried("put", name, "-", where, piped=data)
        assert unnamed.code == 2
        assert "what is piped in has no name" in unnamed.err
    assert "only a file can go to -" in tried("get", name, "a", "-").err


def test_what_cannot_be_put(name: str, tmp_path: Path) -> None:
    assert f"there is no '{tmp_path}/gone' on this machine" in tried("put", name, tmp_path / "gone").err
    (tmp_path / "f").write_bytes(b"f")
    ran("put", name, tmp_path / "f")
    assert "force=True (-f) replaces it" in tried("put", name, tmp_path / "f").err
    ran("put", name, tmp_path / "f", "-f")
    assert "leads out of the volume" in tried("put", name, tmp_path / "f", "../f").err
    (tmp_path / "empty").mkdir()
    assert "nothing in" in ran("put", name, tmp_path / "empty").err
    assert "there is no volume 'no-such'" in tried("put", "no-such", tmp_path / "f").err


def test_a_reader_of_the_pipe_that_has_enough_is_no_failure(name: str, source: Path) -> None:
    ran("put", name, source / "large")
    reader, writer = os.pipe()
    os.close(reader)
    command = [str(Path(sys.executable).with_name("squall")), "volume", "get", name, "large", "-"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.long
def test_a_get_that_is_killed_goes_on(name: str, source: Path, tmp_path: Path) -> None:
    ran("put", name, source)
    # All but the end: as kill -9 leaves it between two blocks.
    ran("get", name, "/", tmp_path / "back")
    (tmp_path / "back" / "large").rename(tmp_path / "back" / part_of(name, "large"))
    os.truncate(tmp_path / "back" / part_of(name, "large"), BLOCK_BYTES + 5)
    said = ran("get", name, "/", tmp_path / "back")
    assert "1 file, 8.4 MB; 5 files had come before" in said.err
    assert (tmp_path / "back" / "large").read_bytes() == (source / "large").read_bytes()
    assert not list(tmp_path.rglob(".squall-*"))


def test_a_large_file_that_is_mostly_holes(name: str, server: ServerProcess, tmp_path: Path) -> None:
    path, size = tmp_path / "disk", 20 * 2**30 + 5
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(13 * 2**30 + 5)
        file.write(b"island")
    before = _stored_bytes(server)
    ran("put", name, path)
    assert _stored_bytes(server) - before <= BLOCK_BYTES + 2**20
    ran("get", name, "disk", tmp_path / "back")
    with (tmp_path / "back").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == size
        assert os.fstat(file.fileno()).st_blocks * 512 <= BLOCK_BYTES
        file.seek(13 * 2**30 + 5)
        assert file.read(7) == b"island\0"

    # Cut off within the holes behind it.
    (tmp_path / "back").rename(tmp_path / part_of(name, "disk"))
    os.truncate(tmp_path / part_of(name, "disk"), 13 * 2**30 + 5 * BLOCK_BYTES)
    ran("get", name, "disk", tmp_path / "back")
    assert (tmp_path / "back").stat().st_size == size


def _stored_bytes(server: ServerProcess) -> int:
    return sum(path.stat().st_size for path in (server.data_dir / "blobs" / "content").rglob("*"))


def test_half_a_file_goes_on(name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran("put", name, source / "large")
    blocks: list[int] = []
    read = VolumeReader.read_from

    async def one_block(self: VolumeReader, *arguments: object) -> object:
        pieces = read(self, *arguments)  # type: ignore[arg-type]
        async for data, size in pieces:
            if len(blocks) == 1:
                raise DataLossError("the machine went down")
            blocks.append(size)
            yield data, size
        await pieces.aclose()

    monkeypatch.setattr(VolumeReader, "read_from", one_block)
    assert "went down" in tried("get", name, "large", tmp_path).err
    (half,) = tmp_path.glob(".squall-*.part")
    assert half.stat().st_size == BLOCK_BYTES
    assert not (tmp_path / "large").exists()

    blocks.clear()

    async def counted(self: VolumeReader, *arguments: object) -> object:
        async for data, size in read(self, *arguments):  # type: ignore[arg-type]
            blocks.append(size)
            yield data, size

    monkeypatch.setattr(VolumeReader, "read_from", counted)
    ran("get", name, "large", tmp_path)
    assert blocks == [BLOCK_BYTES, 7]
    assert (tmp_path / "large").read_bytes() == (source / "large").read_bytes()
    assert not half.exists()


@pytest.mark.long
@pytest.mark.parametrize("is_damaged", [False, True])
def test_half_a_file_goes_on_however_large_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_damaged: bool
) -> None:
    # A page tells as many blocks as that: nearly all of it are holes.
    size = (BLOCKS_MAX + 3) * BLOCK_BYTES
    last = [os.urandom(1_000) for _ in range(3)]
    with (tmp_path / "huge").open("wb") as file:
        for number, data in enumerate(last):
            file.seek((BLOCKS_MAX + number) * BLOCK_BYTES)
            file.write(data)
        file.truncate(size)
    ran("put", name, tmp_path / "huge")
    half = tmp_path / "huge"
    os.truncate(half, (BLOCKS_MAX + 2) * BLOCK_BYTES + 500)
    if is_damaged:
        with half.open("r+b") as damaged:
            damaged.seek((BLOCKS_MAX + 1) * BLOCK_BYTES)
            damaged.write(bytes(1_000))
    (tmp_path / "in").mkdir()
    half.rename(tmp_path / "in" / part_of(name, "huge"))
    came: list[int] = []
    read = VolumeReader.read_from

    async def counted(self: VolumeReader, *arguments: object) -> object:
        async for data, size in read(self, *arguments):  # type: ignore[arg-type]
            came.append(size)
            yield data, size

    monkeypatch.setattr(VolumeReader, "read_from", counted)
    ran("get", name, "huge", tmp_path / "in")
    assert came == [BLOCK_BYTES] * (2 if is_damaged else 1)
    got = tmp_path / "in" / "huge"
    assert (got.stat().st_size, got.stat().st_blocks * 512 < 4 * BLOCK_BYTES) == (size, True)
    with got.open("rb") as read_again:
        for number, data in enumerate(last):
            read_again.seek((BLOCKS_MAX + number) * BLOCK_BYTES)
            assert read_again.read(1_000) == data


@pytest.mark.long
def test_half_a_file_that_is_wrong_is_not_kept(name: str, source: Path, tmp_path: Path) -> None:
    ran("put", name, source / "large")
    ran("get", name, "large", tmp_path)
    wanted = (source / "large").read_bytes()

    # By its content's name, but with another one in it: as a machine leaves it that lost its power.
    (tmp_path / "large").unlink()
    (tmp_path / part_of(name, "large")).write_bytes(wanted[:BLOCK_BYTES] + bytes(BLOCK_BYTES))
    ran("get", name, "large", tmp_path)
    assert (tmp_path / "large").read_bytes() == wanted


def part_of(name: str, path: str) -> str:
    """What a file is called while it comes."""
    return part_name(ask("VolumeBlocksGet", VolumeBlocksGet(asset_of(name).asset_id, path), VolumeBlocks))


def test_damaged_blocks_are_told_and_nothing_takes_the_files_place(
    name: str, server: ServerProcess, source: Path, tmp_path: Path
) -> None:
    ran("put", name, source / "large")
    data = (source / "large").read_bytes()
    sha256 = hashlib.sha256(data[BLOCK_BYTES : 2 * BLOCK_BYTES]).hexdigest()
    block = server.blob_path(sha256)
    block.chmod(0o644)
    block.write_bytes(bytes(BLOCK_BYTES))
    said = tried("get", name, "large", tmp_path)
    assert said.code == 1
    assert sha256 in said.err
    assert not (tmp_path / "large").exists()


# Versions


def test_history_at_diff_and_rollback(name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"one")
    ran("put", name, tmp_path / "f")
    (tmp_path / "f").write_bytes(b"two")
    ran("put", name, tmp_path / "f", "-f")
    ran("cp", name, "f", "d/")
    ran("cp", name, "f", "g")
    ran("rm", name, "f")

    listed = json.loads(ran("history", name, "--json").out)
    assert [(one["version"], one["cause"], one["put"], one["removed"]) for one in listed] == [
        (5, "rm", 0, 1),
        (4, "copy", 1, 0),
        (3, "copy", 1, 0),
        (2, "put", 1, 0),
        (1, "put", 1, 0),
    ]
    assert [row[0] for row in ran("history", name, "-n", 2).rows()] == ["5", "4"]
    assert ran("get", name, "f", "-", "--version", 1).bytes == b"one"
    assert [row[0] for row in ran("ls", name, "--version", 2).rows()] == ["f"]
    assert [row[0] for row in ran("at", name, 4).rows()] == ["d", "f", "g"]
    assert ran("at", name, time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 60))).err.startswith(
        "Version 5"
    )
    assert ran("at", name, 0).err.startswith("Version 0: empty")
    assert "that old is kept" in tried("at", name, "1d").err
    assert "no version 9" in tried("at", name, 9).err
    assert tried("at", name, "yesterday").code == 2

    said = ran("diff", name, 1)
    assert (said.out.splitlines(), said.err) == (["+ d", "- f", "+ g"], "2 put, 1 removed, 0 changed.\n")
    said = ran("diff", name, 1, 2)
    assert (said.out, said.err) == ("~ f\n", "0 put, 0 removed, 1 changed.\n")
    (only,) = json.loads(ran("diff", name, 1, 2, "--json").out)
    assert (only["change"], only["path"], only["before"]["size"]) == ("~", "f", 3)

    assert "that is version 6 now" in ran("rollback", name, 1).err
    assert ran("get", name, "f", "-").bytes == b"one"
    assert [row[0] for row in ran("ls", name).rows()] == ["f"]
    assert "no version 77" in tried("rollback", name, 77).err


def test_retention_and_gc(name: str, tmp_path: Path) -> None:
    for _ in range(4):
        (tmp_path / "f").write_bytes(os.urandom(1000))
        ran("put", name, tmp_path / "f", "-f")
    assert ran("retention", name).err == f"Of volume {name} stay the newest 20 versions and those of the last 7 days.\n"
    assert ran("gc", name, "--dry-run").err == "Would forget 0 versions and free 0 kB.\n"
    ran("retention", name, "--count", 1, "--days", 0)
    assert json.loads(ran("retention", name, "--json").out) == {"count": 1, "days": 0.0}
    assert ran("gc", name, "--dry-run").err == "Would forget 3 versions and free 3 kB.\n"
    assert len(ran("history", name).rows()) == 4
    assert json.loads(ran("gc", name, "--json").out)["version_count"] == 3
    assert [row[0] for row in ran("history", name).rows()] == ["4"]
    found = json.loads(ran("info", name, "--json").out)
    assert found["usage"] == {
        "head_bytes": 1000,
        "stored_bytes": 1000,
        "own_bytes": 1000,
        "version_count": 1,
        "oldest": 4,
    }
    assert "1 version, the oldest is 4" in ran("info", name).out
    ran("gc")


# Volumes


def test_what_is_printed_for_a_name_with_a_dash_in_front_can_be_typed(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    said = ran("create", "--", "-y1")
    assert "squall volume put -- -y1 FILE" in said.err
    ran("put", "--", "-y1", tmp_path / "file")

    said = ran("at", "--", "-y1", "1")

    assert "squall volume get --version 1 -- -y1 PATH" in said.err
    assert ran("get", "--version", 1, "--", "-y1", "file", "-").bytes == b"data"
    ran("delete", "-y", "--", "-y1")


def test_made_listed_renamed_and_deleted(server: ServerProcess) -> None:
    said = ran("create", "box", "--version", 2)
    assert 'squall.Volume.from_name("box")' in said.err
    assert tried("create", "box").code == 1
    assert tried("create", "a b").code == 1
    assert "box" in [row[0] for row in ran("list").rows()]
    assert json.loads(ran("list", "--json").out)[0]["name"] == "box"
    assert "nobody answered" in tried("rename", "box", "case").err
    ran("rename", "box", "case", "-y")
    assert "no version" in tried("at", "case", "1d").err
    assert "none yet" in ran("info", "case").out
    assert tried("delete", "box", "-y").code == 1
    assert "There is no volume box." in ran("delete", "box", "--allow-missing", "-y").err
    assert "nobody answered" in tried("delete", "case").err
    assert ran("delete", "case", "-y").err == "Deleted volume case.\n"


def test_names_are_of_an_environment(server: ServerProcess) -> None:
    runner = CliRunner()
    runner.invoke(main.squall, ["environment", "create", "lab"])
    ran("create", "shelf", "-e", "lab")
    assert tried("info", "shelf").code == 1
    assert "lab" in ran("info", "shelf", "-e", "lab").out
    ended = runner.invoke(main.squall, ["environment", "delete", "lab", "-y"])
    assert ended.stderr == "Deleted lab, with 0 apps, 0 names of images and 1 volume, dict, queue or secret.\n"


def test_changes_within_a_volume(name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"f")
    ran("put", name, tmp_path / "f", "d/f")
    assert tried("cp", name, "d").code == 2
    assert "recursive=True (-r)" in tried("cp", name, "d", "e").err
    ran("cp", name, "d", "e", "-r")
    assert "recursive=True (-r)" in tried("rm", name, "d").err
    assert "Removed 2 paths" in ran("rm", name, "d", "-r").err
    assert "there is no 'd'" in tried("rm", name, "d").err
    assert "there is no 'gone'" in tried("ls", name, "gone").err
    (entry,) = json.loads(ran("ls", name, "e", "--json").out)
    assert (entry["filename"], entry["type"], entry["size_bytes"]) == ("e/f", "file", 1)


# What is drawn


def test_progress_is_drawn_on_terminals_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress("Putting", 1000) as progress:
        progress.skip(500)
        progress.add(250)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("squall.cli.progress.is_terminal", lambda stream: True)
    monkeypatch.setattr("squall.cli.progress.EVERY_S", 0.0)
    with Progress("Getting", 1000) as shown:
        shown.add(500)
    drawn = capsys.readouterr().err
    assert drawn.startswith("\rGetting  ████████████░░░░░░░░░░░░  50%")
    assert drawn.endswith("\r")  # what erases the line is left out where click sees no terminal
    now = progress._began_at + 1.0
    assert progress.line(now) == f"Putting  {'█' * 18}{'░' * 6}  75%  1 kB of 1 kB  1 kB/s"
    assert Progress("Piped", 0).line(now).startswith("Piped  0 kB")
