"""A place of its own for a program that may do harm: what it makes ends with it, and what it breaks is nobody else's.

`run` starts a command in mount, process, network, ipc and cgroup namespaces of its own. There the machine's files are
read-only, `/tmp`, `/run` and `/var/tmp` are the command's own, the network is a loopback and a link to nowhere, and all
its processes together are held to `PIDS_MAX`. When the command ends, or its time is up, the kernel ends every process
it has left, and with the last of them go its mounts, links, rules and namespaces; the cgroups are removed by `run`.

    python -m tests.mutations.sandbox TMP_DIR COMMAND...    what `run` starts inside
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests import leaks
from tests.kernel.rootfs import CACHE_DIR

PIDS_MAX = 4_000
CGROUPS_GONE_S = 10.0
VIRTUAL = {"proc", "sysfs", "tmpfs", "devtmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "securityfs", "debugfs"}
NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup")
ENTER_CGROUPS = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'


class Mounted(NamedTuple):
    """One line of mountinfo."""

    point: str
    kind: str
    options: str


def mounted() -> list[Mounted]:
    """What is mounted here, in order."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        kind, _, options = fields[fields.index("-") + 1 :]
        found.append(Mounted(re.sub(r"\\040", " ", fields[4]), kind, options))
    return found


def missing() -> str:
    """Why there can be no sandbox here, or nothing."""
    if os.geteuid() != 0:
        return "it makes namespaces, which needs root"
    return ""


def run(command: Sequence[str], tmp_dir: Path, environ: Mapping[str, str], timeout_s: float, log: Path) -> int | None:
    """Run a command with `tmp_dir` as its /tmp; returns its exit code, or None when its time was up."""
    name = f"mutants-{os.urandom(4).hex()}"
    groups = [_make_cgroup(Path(top), name) for top in leaks.cgroup_roots()]
    inside = [sys.executable, "-m", "tests.mutations.sandbox", str(tmp_dir), *command]
    enter = ["sh", "-c", ENTER_CGROUPS, "sh", *map(str, groups), "--"]
    unshare = ["unshare", *NAMESPACES, "--fork", "--kill-child", "--propagation", "private", "--mount-proc"]
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*enter, *unshare, *inside], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(environ)
            )
            try:
                return process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                # Its death ends pid 1 of the namespace, and that everything in it.
                process.kill()
                process.wait(30)
    finally:
        for group in groups:
            _remove_cgroup(group)


def _make_cgroup(top: Path, name: str) -> Path:
    group = top / name
    if (top / "cgroup.subtree_control").exists():
        offered = set((top / "cgroup.controllers").read_text().split())
        wanted = " ".join(f"+{one}" for one in ("cpu", "memory", "pids") if one in offered)
        (top / "cgroup.subtree_control").write_text(wanted)
    group.mkdir()
    if (group / "cpuset.cpus").exists():
        for setting in ("cpuset.cpus", "cpuset.mems"):
            (group / setting).write_text((top / setting).read_text())
    if (group / "pids.max").exists():
        (group / "pids.max").write_text(str(PIDS_MAX))
    return group


def _remove_cgroup(group: Path) -> None:
    """Deepest first; processes that are still on their way out are waited for."""
    deadline = time.monotonic() + CGROUPS_GONE_S
    while True:
        for folder, _, _ in os.walk(group, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue
        if not group.exists():
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"cannot remove cgroup {group}: it still has processes")
        time.sleep(0.1)


# Inside


def _call(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30)


def _settle(tmp_dir: str) -> None:
    """Make this place, which only this process and its children see."""
    for one in reversed(mounted()):
        # Of other runs: they would be held for as long as this one takes.
        if one.point.startswith("/tmp/") or leaks.is_ours(one.point):
            _let_go(one.point)
    interpreters = [path for path in {sys.prefix, sys.base_prefix} if path.startswith("/tmp/")]
    for path in interpreters:
        os.makedirs(tmp_dir + path.removeprefix("/tmp"), exist_ok=True)
        _call("mount", "--bind", path, tmp_dir + path.removeprefix("/tmp"))
    roots = _bring_roots(f"{tmp_dir}/roots")
    _renew_sys()
    for one in mounted():
        if one.kind not in VIRTUAL:
            _call("mount", "-o", "remount,bind,ro", one.point)
    if roots:
        _call("mount", "--rbind", roots, str(CACHE_DIR))
        _call("mount", "-o", "remount,bind,rw", str(CACHE_DIR))
    _call("mount", "--rbind", tmp_dir, "/tmp")
    _call("mount", "-o", "remount,bind,rw", "/tmp")
    for path in ("/run", "/var/tmp"):
        _call("mount", "-t", "tmpfs", "-o", "mode=1777", "none", path)
    _raise_network()


def _let_go(point: str) -> None:
    try:
        _call("umount", "--lazy", point)
    except subprocess.CalledProcessError:
        # Where its owner, outside, removes the place itself, the kernel takes it away here as well.
        if any(one.point == point for one in mounted()):
            raise


def _bring_roots(target: str) -> str:
    """The root file systems of the kernel suite, in a directory that takes its lock; empty where there are none."""
    if not CACHE_DIR.is_dir():
        return ""
    for path in CACHE_DIR.iterdir():
        if path.is_dir():
            os.makedirs(f"{target}/{path.name}")
            _call("mount", "--bind", str(path), f"{target}/{path.name}")
    return target


def _renew_sys() -> None:
    """A /sys of this network namespace, with cgroups that begin at this sandbox's own."""
    groups = [one for one in mounted() if one.kind in ("cgroup", "cgroup2")]
    top = Path("/sys/fs/cgroup")
    links = {path.name: os.readlink(path) for path in top.iterdir() if path.is_symlink()}
    _call("mount", "-t", "sysfs", "none", "/sys")
    if all(one.point != str(top) for one in groups):
        _call("mount", "-t", "tmpfs", "-o", "mode=755", "none", str(top))
    for one in groups:
        os.makedirs(one.point, exist_ok=True)
        own = [word for word in one.options.split(",") if one.kind == "cgroup" and word not in ("rw", "ro", "xattr")]
        named = ["none", *own] if any(word.startswith("name=") for word in own) else own
        _call("mount", "-t", one.kind, *(["-o", ",".join(named)] if named else []), "none", one.point)
    for name, target in links.items():
        (top / name).symlink_to(target)


def _raise_network() -> None:
    """A loopback, and an address and a default route like a machine's, with nobody at the other end."""
    for line in (
        "link set lo up",
        "link add up0 type veth peer name up1",
        "address add 198.51.100.2/24 dev up0",
        "link set up1 up",
        "link set up0 up",
        "route add default via 198.51.100.1",
    ):
        _call("ip", *line.split())


def main() -> int:
    """Settle, then run the command and return its exit code."""
    tmp_dir, *command = sys.argv[1:]
    _settle(tmp_dir)
    os.chdir("/tmp/source")
    # Not exec: this process is pid 1 here, and reaps.
    process = subprocess.Popen(command)
    while True:
        pid, status = os.wait()
        if pid == process.pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    assert tempfile.gettempdir() == "/tmp", "TMPDIR is for /tmp to mean something else"
    sys.exit(main())
