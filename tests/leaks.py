"""What of ours is on this machine now, and what appeared since: the check that nothing leaks.

The kernel and end-to-end suites each run it once around everything. Where several processes share a suite, what one of
them has now is no leak: then it is run around all of them, by `python -m tests.leaks COMMAND...`.

A test of its own kind (kill -9, then look) takes `before = snapshot()` and asserts `not new_since(before)`.

Looked for: processes that inherited this run's mark, run our programs or sit in a cgroup of ours; mounts, cgroups,
links, network namespaces, nftables rules, loop devices, abstract sockets and files that carry our names (`squall`, or
`sq` in front). The whole machine is looked at, so suites that use this run one at a time.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

RUN_MARK = "SQUALL_TEST_RUN"
"""Variable that processes started by a test run inherit; conftest.py sets it."""

WATCHED_MARK = "SQUALL_TEST_WATCHED"
"""Variable that is set while a suite is looked after."""

# Cleaning up after the last test may still be under way; a leak is what stays.
SETTLE_S = 15.0

_OUR_PROGRAMS = re.compile(r"(-m squall\.|bin/squall( |$))")
_OUR_FILES = ("/tmp/sq*", "/run/sq*", "/run/netns/sq*", "/var/lib/squall*", "/dev/shm/sq*", "/var/tmp/sq*")
# Logs of scripts/, and the interpreter's own children that live as long as it does.
_NOT_LEAKS = re.compile(r"squall-(setup|test|bench)\.|multiprocessing\.(resource_tracker|forkserver)")


def is_ours(name: str) -> bool:
    """A name of ours, alone or as a part of a path."""
    return any(part.startswith("sq") or "squall" in part for part in re.split(r"[/@:]", name))


def snapshot() -> frozenset[str]:
    """One line for each thing of ours that exists now, the same line for the same thing every time."""
    found = set[str]()
    for looked in (_processes, _mounts, _cgroups, _links, _firewall_rules, _loop_devices, _sockets, _files):
        found.update(looked())
    return frozenset(line for line in found if not _NOT_LEAKS.search(line))


def new_since(before: frozenset[str], settle_s: float = SETTLE_S) -> list[str]:
    """What is there now and was not before, sorted; waits up to `settle_s` for it to go."""
    deadline = time.monotonic() + settle_s
    while True:
        left = sorted(snapshot() - before)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


@contextlib.contextmanager
def none_left(settle_s: float = SETTLE_S) -> Iterator[None]:
    """Fail when something of ours appeared inside and is still there after it."""
    before = snapshot()
    yield
    left = new_since(before, settle_s)
    assert not left, "left behind:\n  " + "\n  ".join(left)


@contextlib.contextmanager
def none_left_by_suite() -> Iterator[None]:
    """The same around a suite, from a fixture of its session.

    Where this process has only a share of the suite, or is inside another suite, nothing is looked for: what goes on
    around it is no leak of this one. What is around the suites finds theirs.
    """
    if "PYTEST_XDIST_WORKER" in os.environ or WATCHED_MARK in os.environ:
        yield
        return
    os.environ[WATCHED_MARK] = "1"
    try:
        with none_left():
            yield
    finally:
        del os.environ[WATCHED_MARK]


def _read(path: str) -> str:
    """The text of a file of the kernel's; empty when what it describes has just gone, or is not for us."""
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _processes() -> Iterator[str]:
    mark = f"{RUN_MARK}={os.environ.get(RUN_MARK, 'none')}\0"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        status = _read(f"/proc/{pid}/stat")
        fields = status.rpartition(")")[2].split()
        if not fields or fields[0] in "ZX":
            continue
        command = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
        groups = {line.split(":", 2)[2] for line in _read(f"/proc/{pid}/cgroup").splitlines()}
        is_marked = mark in _read(f"/proc/{pid}/environ")
        if command and (is_marked or _OUR_PROGRAMS.search(command) or any(map(is_ours, groups))):
            # With its start time: a pid may come back as something else.
            yield f"process {pid} (started {fields[19]}): {command[:200]}"


def _mounts() -> Iterator[str]:
    for line in _read("/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        point, source = fields[4], line.partition(" - ")[2]
        if is_ours(point) or "squall" in source:
            yield f"mount {point} ({source[:120]})"


def cgroup_roots() -> list[str]:
    """Where control groups are mounted: one unified tree, or one for each controller."""
    lines = (line.split(" ") for line in _read("/proc/self/mountinfo").splitlines())
    return [fields[4] for fields in lines if fields[fields.index("-") + 1] in {"cgroup", "cgroup2"}]


def _cgroups() -> Iterator[str]:
    for root in cgroup_roots():
        for folder, children, _ in os.walk(root):
            for child in list(children):
                if is_ours(child):
                    yield f"cgroup {folder}/{child}"


def _links() -> Iterator[str]:
    for name in os.listdir("/sys/class/net"):
        if is_ours(name):
            yield f"link {name}"


def _firewall_rules() -> Iterator[str]:
    if os.geteuid() != 0 or shutil.which("nft") is None:
        return
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, timeout=30, check=False)
    table = ""
    for line in listed.stdout.splitlines():
        if line.startswith("table "):
            table = line.rstrip(" {")
        if "squall" in line or re.search(r'"sq', line):
            yield f"nftables {table}: {line.strip()[:160]}"


def _loop_devices() -> Iterator[str]:
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        backing = _read(path).strip()
        if is_ours(backing):
            yield f"loop device {path.split('/')[3]} ({backing})"


def _sockets() -> Iterator[str]:
    for line in _read("/proc/net/unix").splitlines()[1:]:
        name = line.split()[-1]
        if name.startswith("@") and is_ours(name):
            yield f"abstract socket {name}"


def _files() -> Iterator[str]:
    for pattern in _OUR_FILES:
        for path in glob.glob(pattern):
            yield f"file {path}"


def main(argv: list[str], settle_s: float = SETTLE_S) -> int:
    """Run a command; its exit code, or 1 when it left something."""
    os.environ.setdefault(RUN_MARK, os.urandom(6).hex())
    before = snapshot()
    code = subprocess.run(argv, check=False).returncode
    left = new_since(before, settle_s)
    if left:
        sys.stderr.write("left behind:\n  " + "\n  ".join(left) + "\n")
    return code or bool(left)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
