"""A machine that lacks something: root, a program, control groups. The error names it and its fix."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.e2e.installation import PROGRAMS, Installation

# Nobody's rights, but for reading: the interpreter may be in a folder that is root's.
AS_NOBODY = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
)


def without(tmp_path: Path, program: str) -> tuple[str, ...]:
    """A prefix that runs a command in a mount namespace of its own, where this program is not there."""
    folder = Path(program).parent
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    script = (
        f"mount -t overlay -o lowerdir={folder},upperdir={upper},workdir={work} squall-test {folder} &&"
        f' rm {program} && exec "$@"'
    )
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")


def test_without_root_and_server_the_command_says_how_to_get_one(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "data")

    ended = installation.run("square.py", prefix=AS_NOBODY, environ={"HOME": "/"}, timeout_s=20)
    started = installation.command("server", "start", prefix=AS_NOBODY, environ={"HOME": "/"}, timeout_s=20)

    assert ended.code == 1, ended
    assert f"Error: no Squall server answers at {tmp_path}/data/server.sock, and starting one needs root" in ended.err
    # By its path, as sudo looks in places of its own.
    program = Path(sys.executable).parent / "squall"
    assert f"`sudo {program} run " in ended.err, ended
    assert f"`sudo {program} server start`" in ended.err, ended
    assert "Traceback" not in ended.err, ended
    assert ended.wall_s < 10, ended
    assert started.code == 1, started
    assert "the server makes containers, which needs root; start it by sudo" in started.err, started
    assert not (tmp_path / "data").exists()


def test_without_root_a_running_server_is_not_reached(squall: Installation) -> None:
    ended = squall.run("square.py", prefix=AS_NOBODY, environ={"HOME": "/"}, timeout_s=20)

    assert ended.code == 1, ended
    assert f"may not connect to {squall.data_dir}/server.sock: Permission denied" in ended.err, ended
    assert "use sudo, or join the group 'squall'" in ended.err, ended
    assert ended.wall_s < 10, ended


def test_doctor_without_root_says_so_and_fails(squall: Installation) -> None:
    ended = squall.command("doctor", prefix=AS_NOBODY, environ={"HOME": "/"}, timeout_s=60)

    assert ended.code == 1, ended
    assert "root: " in ended.out + ended.err, ended
    assert "sudo" in ended.out + ended.err, ended
    assert "Traceback" not in ended.err, ended


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/usr/bin/tini-static", "tini-static is missing; install the package tini"),
        ("/usr/sbin/nft", "nft is missing; apt-get install nftables"),
    ],
)
def test_missing_program_is_named_with_its_package(
    fresh_squall: Installation, tmp_path: Path, program: str, said: str
) -> None:
    ended = fresh_squall.run("square.py", prefix=without(tmp_path, program), timeout_s=60)

    assert ended.code == 1, ended
    assert "Error: cannot start the Squall server: " in ended.err, ended
    assert said in ended.err, ended
    assert "Traceback" not in ended.err, ended
    assert not fresh_squall.processes()


def test_missing_cgroups_are_named_with_where_to_mount_them(fresh_squall: Installation) -> None:
    hidden = 'mount -t tmpfs squall-test /sys/fs/cgroup && exec "$@"'
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", hidden, "sh")

    ended = fresh_squall.run("square.py", prefix=prefix, timeout_s=60)
    doctor = fresh_squall.command("doctor", prefix=prefix, timeout_s=60)

    assert ended.code == 1, ended
    assert "Error: cannot start the Squall server: " in ended.err, ended
    assert "cgroup" in ended.err, ended
    assert "mount" in ended.err.partition("cgroup")[2], ended
    assert "Traceback" not in ended.err, ended
    assert doctor.code == 1, doctor
    assert "cgroups" in doctor.out + doctor.err, doctor


def test_data_directory_of_another_user_is_refused(fresh_squall: Installation) -> None:
    os.chown(fresh_squall.data_dir, 65534, 65534)

    ended = fresh_squall.command("run", str(PROGRAMS / "square.py"), timeout_s=30)

    assert ended.code == 1, ended
    assert f"cannot use {fresh_squall.data_dir}: it belongs to user 65534; chown it to root" in ended.err, ended
