"""Cgroups of the machine the tests run on: limits bite, killing is complete, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from squall.runtime.cgroup import Cgroup, CgroupTree, DeviceRule, detect_cgroups
from squall.runtime.cgroup.devices import attach_device_program
from squall.runtime.cgroup.files import read_text, remove_directory, write_text
from squall.runtime.cgroup.v1 import TreeV1
from squall.runtime.cgroup.v2 import TreeV2
from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import Limits
from squall.runtime.sweep import remove_parents

TOP = f"squall-test-{os.getpid()}"
NAME = f"{TOP}/in-1/ct-1"
REMOVING_S = 3.0

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="cgroups need root")]


def make_trees() -> dict[str, CgroupTree]:
    """The machine's own tree; on a hybrid machine also its v1 part alone and its v2 part alone."""
    try:
        tree = detect_cgroups()
    except RuntimeFailure:
        return {}
    trees: dict[str, CgroupTree] = {tree.kind: tree}
    if isinstance(tree, TreeV1) and tree.unified:
        trees |= {"v1": replace(tree, unified=None), "v2": tree.unified}
    return trees


TREES = make_trees()


def tops(tree: CgroupTree) -> list[str]:
    if isinstance(tree, TreeV2):
        return [tree.root]
    assert isinstance(tree, TreeV1)
    return [*tree.hierarchies.values(), *([tree.unified.root] if tree.unified else [])]


@pytest.fixture(params=["v1", "hybrid", "v2"])
def tree(request: pytest.FixtureRequest) -> Iterator[CgroupTree]:
    if request.param not in TREES:
        pytest.skip(f"this machine has no {request.param} cgroups (it has: {', '.join(TREES) or 'none'})")
    found = TREES[request.param]
    yield found
    for name in found.names(f"{TOP}/in-1"):
        group = found.open(name)
        assert group is not None
        group.kill()
    for top in dict.fromkeys(tops(found)):
        remove_directory(f"{top}/{TOP}", timeout_s=5)


def need(tree: CgroupTree, controller: str) -> None:
    if controller not in tree.controllers:
        offered = ", ".join(sorted(tree.controllers))
        pytest.skip(f"the {tree.kind} tree of this machine offers no {controller} controller (it has: {offered})")


def spawn_inside(group: Cgroup, code: str) -> subprocess.Popen[str]:
    """A Python that enters the cgroup by itself, as a container's first process does, then runs `code`."""
    enter = f"for path in {group.procs_paths!r}:\n    with open(path, 'w') as file: file.write('0')\n"
    argv = [sys.executable, "-S", "-c", enter + code]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def spawn_ready(group: Cgroup, code: str) -> subprocess.Popen[str]:
    """The same, and wait until `code` is about to run."""
    process = spawn_inside(group, "print('in', flush=True)\n" + code)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def finish(group: Cgroup, process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the first process to end by itself, then kill what it left."""
    code = process.wait(20)
    return code, *end(group, process)


def end(group: Cgroup, process: subprocess.Popen[str]) -> tuple[str, str]:
    group.kill()
    out, err = process.communicate(timeout=20)
    group.remove()
    return out, err


def test_process_enters_is_counted_and_killed(tree: CgroupTree) -> None:
    group = tree.create(NAME, Limits())
    process = spawn_inside(group, "import time\nsum(range(2_000_000))\nprint('in', flush=True)\ntime.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"

    usage, pids, listed = group.usage(), group.pids(), tree.names(f"{TOP}/in-1")
    group.kill()
    code = process.wait(10)
    group.remove()

    assert usage.cpu_ns > 1_000_000
    assert pids == [process.pid]
    assert listed == [NAME]
    assert code == -signal.SIGKILL
    assert tree.open(NAME) is None
    assert tree.names(f"{TOP}/in-1") == []
    process.communicate()


def test_name_is_made_once(tree: CgroupTree) -> None:
    group = tree.create(NAME, Limits())

    with pytest.raises(RuntimeFailure, match="exist"):
        tree.create(NAME, Limits())

    group.remove()
    group.remove()


def test_fork_bomb_dies(tree: CgroupTree) -> None:
    need(tree, "pids")
    group = tree.create(NAME, Limits(pids_max=60))
    # At most 2 ** 9 processes by itself, so that a broken limit does not cost the machine a restart.
    bomb = """
import os, time
end = time.monotonic() + 3
forks = 0
while forks < 9 and time.monotonic() < end:
    try:
        os.fork()
        forks += 1
    except OSError:
        time.sleep(0.01)
time.sleep(max(end - time.monotonic(), 0))
"""
    process = spawn_ready(group, bomb)
    deadline = time.monotonic() + 2
    while (count := group.usage().pids) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)

    end(group, process)

    assert 20 <= count <= 60
    assert process.returncode == -signal.SIGKILL
    assert tree.open(NAME) is None


def test_frozen_processes_stand_still_and_can_be_killed(tree: CgroupTree) -> None:
    group = tree.create(NAME, Limits())
    process = spawn_ready(group, "while True: pass")

    group.freeze()
    before = group.usage().cpu_ns
    time.sleep(0.1)
    frozen_ns = group.usage().cpu_ns - before
    group.thaw()
    time.sleep(0.1)
    thawed_ns = group.usage().cpu_ns - before
    group.freeze()
    end(group, process)

    assert frozen_ns < 5_000_000
    assert thawed_ns > frozen_ns
    assert process.returncode == -signal.SIGKILL


def test_memory_limit_kills_and_is_counted(tree: CgroupTree) -> None:
    need(tree, "memory")
    group = tree.create(NAME, Limits(memory_bytes=32 << 20))
    process = spawn_inside(group, "block = bytearray(256 << 20)\nfor i in range(0, len(block), 4096): block[i] = 1")

    code = process.wait(20)
    count = group.oom_count()
    finish(group, process)

    assert code == -signal.SIGKILL
    assert count >= 1


def test_memory_within_the_limit_is_used_freely(tree: CgroupTree) -> None:
    need(tree, "memory")
    group = tree.create(NAME, Limits(memory_bytes=64 << 20))
    code = "block = bytearray(16 << 20)\nprint('in', flush=True)\nimport time; time.sleep(60)"
    process = spawn_inside(group, code)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"

    usage, count = group.usage(), group.oom_count()
    end(group, process)

    assert 16 << 20 <= usage.memory_bytes <= 64 << 20
    assert count == 0


def test_limits_are_replaced_up_and_down(tree: CgroupTree) -> None:
    need(tree, "memory")
    group = tree.create(NAME, Limits(memory_bytes=32 << 20))

    group.set_limits(Limits(memory_bytes=64 << 20))
    group.set_limits(Limits(memory_bytes=16 << 20))
    group.set_limits(Limits())

    group.remove()


def test_pids_limit_stops_forks(tree: CgroupTree) -> None:
    need(tree, "pids")
    group = tree.create(NAME, Limits(pids_max=3))
    process = spawn_inside(group, "import os, time\nfor _ in range(5):\n    if os.fork() == 0: time.sleep(60)\n")

    code, _, err = finish(group, process)

    assert code == 1
    assert "BlockingIOError" in err


def test_cpu_quota_throttles(tree: CgroupTree) -> None:
    need(tree, "cpu")
    group = tree.create(NAME, Limits(cpu_milli=100))
    process = spawn_ready(group, "while True: pass")

    before, start = group.usage().cpu_ns, time.monotonic_ns()
    time.sleep(1.0)
    share = (group.usage().cpu_ns - before) / (time.monotonic_ns() - start)
    end(group, process)

    assert share < 0.2


def test_devices_off_the_list_are_refused(tree: CgroupTree) -> None:
    group = tree.create(NAME, Limits(), [DeviceRule("c", 1, 3), DeviceRule("c", 1, 9, "r")])
    attempts = "\n".join(
        f"try: os.close(os.open({path!r}, os.{mode})); print('yes')\nexcept PermissionError: print('no')"
        for path, mode in [
            ("/dev/null", "O_RDWR"),
            ("/dev/urandom", "O_RDONLY"),
            ("/dev/urandom", "O_WRONLY"),
            ("/dev/zero", "O_RDONLY"),
        ]
    )

    _, out, err = finish(group, spawn_inside(group, "import os\n" + attempts))

    assert out.split() == ["yes", "yes", "no", "no"], err


def test_device_program_of_a_parent_goes_on_deciding() -> None:
    if "v2" not in TREES:
        pytest.skip("no unified cgroup hierarchy on this machine")
    tree = TREES["v2"]
    assert isinstance(tree, TreeV2)
    try:
        group = tree.create(NAME, Limits(), [DeviceRule("c", 1, 3), DeviceRule("c", 1, 5)])
        attach_device_program(f"{tree.root}/{TOP}", [DeviceRule("c", 1, 3)])
        code = """
import os
os.close(os.open("/dev/null", os.O_RDWR))
try: os.open("/dev/zero", os.O_RDONLY)
except PermissionError: print("no")
"""

        _, out, err = finish(group, spawn_inside(group, code))

        assert out.split() == ["no"], err
    finally:
        remove_directory(f"{tree.root}/{TOP}", timeout_s=5)


def test_busy_cgroup_is_not_removed_and_names_its_processes(tree: CgroupTree) -> None:
    group = tree.create(NAME, Limits())
    process = spawn_ready(group, "import time; time.sleep(60)")

    with pytest.raises(RuntimeFailure, match=f"processes \\[{process.pid}\\]"):
        group.remove(timeout_s=0.05)

    found = tree.open(NAME)
    assert found is not None
    found.kill()
    process.communicate(timeout=10)
    found.remove()


@pytest.fixture
def unified(monkeypatch: pytest.MonkeyPatch) -> Iterator[TreeV2]:
    """A v2 tree that offers some controller, any one, standing in for those that containers want."""
    tree = TREES.get("v2")
    if not isinstance(tree, TreeV2) or not tree.controllers:
        pytest.skip("no unified cgroup hierarchy with a controller on this machine")
    control = f"{tree.root}/cgroup.subtree_control"
    before = set((read_text(control) or "").split())
    monkeypatch.setattr("squall.runtime.cgroup.v2.WANTED", (min(tree.controllers),))
    try:
        yield tree
    finally:
        remove_directory(f"{tree.root}/{TOP}", timeout_s=5)
        for controller in set((read_text(control) or "").split()) - before:
            write_text(control, f"-{controller}")


def test_controllers_reach_the_container(unified: TreeV2) -> None:
    group = unified.create(NAME, Limits())

    assert read_text(f"{group.path}/cgroup.controllers") == f"{min(unified.controllers)}\n"
    group.remove()


def test_top_that_holds_processes_is_vacated_first(unified: TreeV2) -> None:
    # What a container sees as the top of its own cgroups.
    outer = unified.create(NAME, Limits())
    process = spawn_ready(outer, "import time; time.sleep(60)")

    group = TreeV2(outer.path).create("squall/in-1/ct-1", Limits())
    held = read_text(f"{outer.path}/init/cgroup.procs")

    assert held == f"{process.pid}\n"
    assert read_text(f"{group.path}/cgroup.controllers") == f"{min(unified.controllers)}\n"
    end(outer, process)


def test_cgroups_are_made_while_another_process_removes_empty_ones(tree: CgroupTree) -> None:
    remover = os.fork()
    if remover == 0:
        try:
            deadline = time.monotonic() + REMOVING_S
            while time.monotonic() < deadline:
                remove_parents(tree)
        finally:
            os._exit(0)

    deadline = time.monotonic() + REMOVING_S
    count = 0
    while time.monotonic() < deadline:
        tree.create(f"squall/{TOP}/ct-1", Limits()).remove()
        count += 1
    os.waitpid(remover, 0)
    remove_parents(tree)

    assert count > 10
    assert tree.open(f"squall/{TOP}") is None
