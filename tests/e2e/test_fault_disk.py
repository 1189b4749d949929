"""A full disk below the data directory: each use of it fails clearly, nothing hangs, with room all is well again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import PROGRAMS, Installation, wait_until
from tests.e2e.paths import OF_QUICK_STARTS

FREE_MIB = 280
FULL = re.compile(r"[Nn]o space left on device|disk (is )?full|almost full|ENOSPC|QuotaExceeded|free (up )?space")


class SmallDisk:
    """A data directory on a file system of its own that can be filled up."""

    def __init__(self, installation: Installation) -> None:
        self.squall = installation
        self._filler = installation.data_dir / "filler"

    def leave(self, mib: int) -> None:
        """Take all but so much."""
        state = os.statvfs(self.squall.data_dir)
        with open(self._filler, "ab") as file:
            os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_frsize - mib * 2**20)

    def fill(self) -> None:
        """Take every byte there is."""
        block = bytes(2**20)
        with open(self._filler, "ab", buffering=0) as file:
            while block:
                try:
                    file.write(block)
                except OSError:
                    block = block[: len(block) // 2]
            os.fsync(file.fileno())

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink(missing_ok=True)


@pytest.fixture
def small_disk(
    session_installation: Installation, make_data_dir: Callable[[], Path], tmp_path: Path
) -> Iterator[SmallDisk]:
    data_dir, image = make_data_dir(), tmp_path / "disk"
    layers = session_installation.data_dir / "layers"
    taken = subprocess.run(["du", "-sm", str(layers)], check=True, capture_output=True, text=True).stdout
    with open(image, "wb") as file:
        file.truncate((FREE_MIB + int(taken.split()[0])) * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, timeout=30)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(data_dir)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"needs loop devices: {mounted.stderr.strip()}")
    try:
        subprocess.run(["cp", "-a", str(layers), str(data_dir)], check=True)
        installation = Installation(data_dir, {"SQUALL_NETWORK_SLOTS": "2"})
        disk = SmallDisk(installation)
        yield disk
        disk.free()
        installation.stop()
        left = installation.left_behind()
    finally:
        subprocess.run(["umount", "--recursive", str(data_dir)], check=True, timeout=30)
    assert not left, "left behind:\n  " + "\n  ".join(left)


def test_full_disk_fails_what_needs_it_and_nothing_else(small_disk: SmallDisk, tmp_path: Path) -> None:
    squall, signal_file = small_disk.squall, tmp_path / "full"
    running = squall.start_run("storing.py::wait_then", "--path", str(signal_file))
    running.wait_said("warm: worked")
    server_pid = squall.server_pid()

    small_disk.fill()
    signal_file.touch()
    ended = running.wait(90)

    assert ended.code == 0, ended
    said = dict(re.findall(r"^(\w+): (?!took)(.*)$", ended.out, re.MULTILINE))
    assert said["small"] == "worked: 1", ended
    assert said["lines"] == "worked: 20000", said["lines"]
    for what in ("blob", "cold", "durable"):
        assert "No space left" in said[what] or "disk is full" in said[what], f"{what}: {said[what]}"
        assert "free space in the data directory's file system, or move it" in said[what], f"{what}: {said[what]}"
    assert all(float(took) < 25 for took in re.findall(r"took ([\d.]+) s", ended.out)), ended
    assert squall.server_pid() == server_pid, "the server ended"

    small_disk.free()
    again = squall.run("storing.py::main", timeout_s=90)

    assert again.code == 0, again
    assert again.out.count(": worked: ") == 5, again
    assert squall.server_pid() == server_pid, "the server ended"


@OF_QUICK_STARTS
def test_what_was_acknowledged_until_the_disk_is_full_is_kept_and_goes_on_with_room(
    small_disk: SmallDisk, tmp_path: Path
) -> None:
    squall, program = small_disk.squall, str(PROGRAMS / "filling.py")
    assert squall.command("server", "start").code == 0
    server_pid = squall.server_pid()
    small_disk.leave(60)

    running = squall.start_run("filling.py", "--folder", str(tmp_path))
    wait_until((tmp_path / "refused").exists, "something is refused", 60)
    small_disk.fill()
    (tmp_path / "full").touch()
    wait_until((tmp_path / "tried").exists, "each was tried", 60)
    deployed = squall.command("deploy", program)
    log = squall.server_log()
    small_disk.free()
    (tmp_path / "room").touch()
    ended = running.wait(60)
    deployed_again = squall.command("deploy", program)

    assert ended.code == 0, ended
    said = dict(re.findall(r"^(\w+): (.*)$", ended.out, re.MULTILINE))
    for refusal in (said["refused"], said["spawn"], said["map"]):
        assert refusal.startswith("ResourceExhaustedError: "), ended
        assert FULL.search(refusal), refusal
        assert "free space in the data directory's file system, or move it" in refusal, refusal
    assert [said[what] for what in ("small", "printing", "failing", "again")] == ["worked"] * 4, ended
    assert all(float(took) < 10 for took in re.findall(r"^took ([\d.]+) s", ended.out, re.MULTILINE)), ended
    kept, acknowledged = map(int, said["kept"].split(" of "))
    assert kept == acknowledged > 10, ended
    lines, dropped, printed = map(int, re.findall(r"\d+", said["lines"]))
    assert lines + dropped == printed, ended
    assert dropped > 0, ended
    # A version is small: the database may still have room for it in its files.
    assert deployed.code == 0 or FULL.search(deployed.err), f"{deployed}\n{log}"
    assert deployed_again.code == 0, deployed_again
    assert squall.server_pid() == server_pid, "the server ended"
    # What became of calls while nothing could be written is written by now.
    assert squall.command("server", "stop", "--force").code == 0
    assert squall.command("server", "start").code == 0
    history = json.loads(squall.command("app", "history", "filling", "--json").out)
    # The one of the first deploy that was answered: the other had nothing to change, or was refused.
    assert [one["version"] for one in history] == ["v1"], history
    failed = json.loads(squall.command("call", "list", "--failed", "--limit", "1000", "--json").out)
    assert len(failed) == int(said["failed"]), failed


@OF_QUICK_STARTS
def test_of_queues_and_dicts_what_was_acknowledged_until_the_disk_is_full_stays(
    small_disk: SmallDisk, tmp_path: Path
) -> None:
    squall = small_disk.squall
    assert squall.command("server", "start").code == 0
    server_pid = squall.server_pid()
    small_disk.leave(120)

    running = squall.start(str(PROGRAMS / "filling_assets.py"), str(tmp_path), executable=(sys.executable,))
    wait_until((tmp_path / "refused").exists, "both are refused", 90)
    small_disk.fill()
    (tmp_path / "full").touch()
    wait_until((tmp_path / "tried").exists, "both are tried again", 90)
    small_disk.free()
    (tmp_path / "room").touch()
    ended = running.wait(60)

    assert ended.code == 0, ended
    said = dict(re.findall(r"^([\w ]+): (.*)$", ended.out, re.MULTILINE))
    for what in ("queue", "dict"):
        for refusal in (said[what], said[f"{what} on a full disk"]):
            assert refusal.startswith("ResourceExhaustedError: "), ended
            assert FULL.search(refusal), ended
        assert said[f"{what} kept"].startswith("True "), ended
    assert int(said["queue kept"].split()[1]) > 10, ended
    assert said["again"] == "again again", ended
    assert squall.server_pid() == server_pid, "the server ended"


def test_of_a_volume_what_was_acknowledged_or_written_until_the_disk_is_full_stays(
    small_disk: SmallDisk, tmp_path: Path
) -> None:
    squall = small_disk.squall
    running = squall.start_run("filling_volume.py", "--folder", str(tmp_path))
    running.wait_said("ready")
    server_pid = squall.server_pid()
    small_disk.fill()
    (tmp_path / "full").touch()
    running.wait_said("tried\n", 60)
    # Of the start that waits.
    running.wait_said("it cannot be started now, and is tried again: ", 60)
    small_disk.free()
    (tmp_path / "room").touch()
    ended = running.wait(90)

    assert ended.code == 0, ended
    said = dict(re.findall(r"^([\w ]+): (.*)$", ended.out, re.MULTILINE))
    for what in ("put full", "write full"):
        assert FULL.search(said[what]), ended
    assert [said[what] for what in ("start", "put room", "write room", "last")] == ["worked"] * 4, ended
    assert said["committed whole"] == said["uncommitted whole"] == "True", ended
    assert {"put-before", "put-room", "written-room", "last"} <= set(json.loads(said["names"].replace("'", '"'))), ended
    assert squall.server_pid() == server_pid, "the server ended"


def test_build_on_a_full_disk_fails_clearly_and_leaves_nothing(small_disk: SmallDisk) -> None:
    squall = small_disk.squall
    assert squall.run("square.py").code == 0
    layers = squall.data_dir / "layers"
    before = {path.name for path in layers.iterdir()}

    ended = squall.run("storing.py::image", timeout_s=90)

    assert ended.code == 1, ended
    assert FULL.search(ended.err), ended
    assert "dd if=/dev/zero of=/large" in ended.err, ended
    assert {path.name for path in layers.iterdir()} == before
    assert not list((layers / ".scratch").iterdir())
    assert squall.run("square.py").code == 0


def test_server_does_not_start_on_a_full_disk_and_says_so(small_disk: SmallDisk) -> None:
    small_disk.fill()

    ended = small_disk.squall.run("square.py", timeout_s=60)
    small_disk.free()
    again = small_disk.squall.run("square.py", timeout_s=60)

    assert ended.code == 1, ended
    assert f"cannot use the data directory {small_disk.squall.data_dir}: No space left on device" in ended.err, ended
    assert "free space, or set SQUALL_DATA_DIR" in ended.err, ended
    assert again.code == 0, again
