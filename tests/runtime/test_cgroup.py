"""Readers of every cgroup layout on recorded trees, and the exact writes that limits become."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from squall.runtime.cgroup import DeviceRule, detect_cgroups, missing_controllers
from squall.runtime.cgroup.devices import device_program, v1_line
from squall.runtime.cgroup.files import read_pids, write_text
from squall.runtime.cgroup.v1 import cpu_writes, memory_writes
from squall.runtime.cgroup.v2 import limit_writes
from squall.runtime.errors import FeatureMissing, RuntimeFailure
from squall.runtime.spec import ContainerUsage, Limits

NAME = "squall/in-1/ct-1"
USAGE = ContainerUsage(memory_bytes=6_000, cpu_ns=5_000_000, pids=3)


def make_tree(top: Path, files: Mapping[str, str]) -> str:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    return str(top)


def make_v2_files(prefix: str = "", controllers: str = "cpu memory pids") -> dict[str, str]:
    return {
        f"{prefix}cgroup.controllers": controllers,
        f"{prefix}{NAME}/cgroup.kill": "",
        f"{prefix}squall/cgroup.kill": "",
        f"{prefix}{NAME}/cgroup.procs": "12\n0\n13\n",
        f"{prefix}{NAME}/cpu.stat": "usage_usec 5000\nuser_usec 4000\nsystem_usec 1000\n",
    }


def make_v1_files() -> dict[str, str]:
    tops = {f"{controller}/cgroup.procs": "1\n" for controller in ("memory", "pids", "devices", "freezer")}
    return tops | {
        "cpu,cpuacct/cgroup.procs": "1\n",
        f"cpu,cpuacct/{NAME}/cgroup.procs": "12\n",
        f"cpu,cpuacct/{NAME}/cpuacct.usage": "5000000\n",
        f"memory/{NAME}/cgroup.procs": "12\n",
        f"memory/{NAME}/memory.usage_in_bytes": "10000\n",
        f"memory/{NAME}/memory.stat": "cache 5000\ninactive_file 1\ntotal_inactive_file 4000\n",
        f"memory/{NAME}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        f"pids/{NAME}/cgroup.procs": "12\n14\n",
        f"pids/{NAME}/pids.current": "3\n",
    }


def make_v1_tree(top: Path, extra: Mapping[str, str] | None = None) -> str:
    root = make_tree(top, make_v1_files() | dict(extra or {}))
    for name in ("cpu", "cpuacct"):
        (top / name).symlink_to("cpu,cpuacct")
    return root


def test_v2_tree_is_read(tmp_path: Path) -> None:
    memory = {
        f"{NAME}/memory.current": "10000\n",
        f"{NAME}/memory.stat": "anon 6000\ninactive_file 4000\n",
        f"{NAME}/memory.events": "low 0\noom 1\noom_kill 2\n",
        f"{NAME}/pids.current": "3\n",
    }
    tree = detect_cgroups(make_tree(tmp_path, make_v2_files() | memory))

    group = tree.open(NAME)

    assert tree.kind == "v2"
    assert missing_controllers(tree) == []
    assert group is not None
    assert group.usage() == USAGE
    assert group.oom_count() == 2
    assert group.pids() == [12, 13]
    assert group.procs_paths == [f"{tmp_path}/{NAME}/cgroup.procs"]


def test_v1_tree_is_read_and_controllers_mounted_together_are_entered_once(tmp_path: Path) -> None:
    tree = detect_cgroups(make_v1_tree(tmp_path))

    group = tree.open(NAME)

    assert tree.kind == "v1"
    assert group is not None
    assert group.usage() == USAGE
    assert group.oom_count() == 2
    assert group.pids() == [12, 14]
    assert group.procs_paths == [f"{tmp_path}/{top}/{NAME}/cgroup.procs" for top in ("cpu,cpuacct", "memory", "pids")]


def test_hybrid_tree_takes_limits_from_v1_and_time_from_v2(tmp_path: Path) -> None:
    tree = detect_cgroups(make_v1_tree(tmp_path, make_v2_files("unified/", controllers="hugetlb")))

    group = tree.open(NAME)

    assert tree.kind == "hybrid"
    assert missing_controllers(tree) == []
    assert group is not None
    assert group.usage() == USAGE
    assert group.oom_count() == 2
    assert group.procs_paths[-1] == f"{tmp_path}/unified/{NAME}/cgroup.procs"


def test_unified_hierarchy_without_kill_is_left_alone(tmp_path: Path) -> None:
    old = {"unified/cgroup.controllers": "", "unified/system.slice/cgroup.procs": ""}

    assert detect_cgroups(make_v1_tree(tmp_path, old)).kind == "v1"


def test_missing_controllers_are_named(tmp_path: Path) -> None:
    tree = detect_cgroups(make_tree(tmp_path, {"cgroup.controllers": "cpuset pids"}))

    assert missing_controllers(tree) == ["cpu", "memory"]


def test_machine_without_cgroups_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(FeatureMissing, match="mount cgroup2"):
        detect_cgroups(str(tmp_path))


def test_names_lists_children_of_every_hierarchy(tmp_path: Path) -> None:
    tree = detect_cgroups(make_v1_tree(tmp_path, {"pids/squall/in-1/ct-half/cgroup.procs": ""}))

    assert tree.names("squall/in-1") == ["squall/in-1/ct-1", "squall/in-1/ct-half"]
    assert tree.names("squall/other") == []
    assert tree.open("squall/in-1/ct-none") is None


def test_removed_cgroup_uses_nothing(tmp_path: Path) -> None:
    tree = detect_cgroups(make_tree(tmp_path, make_v2_files()))
    group = tree.open(NAME)
    for path in (tmp_path / NAME).iterdir():
        path.unlink()

    assert group is not None
    assert group.usage() == ContainerUsage(0, 0, 0)
    assert group.oom_count() == 0


def test_limits_become_v2_writes() -> None:
    writes = dict(limit_writes(Limits(cpu_milli=1500, cpu_weight=200, memory_bytes=1 << 20, pids_max=7)))

    assert writes == {
        "cpu.max": "150000 100000",
        "cpu.weight": "200",
        "memory.swap.max": "0",
        "memory.max": "1048576",
        "pids.max": "7",
    }
    assert {value.split()[0] for name, value in limit_writes(Limits(pids_max=None)) if name.endswith("max")} == {"max"}


def test_limits_become_v1_writes() -> None:
    assert dict(cpu_writes(Limits(cpu_milli=1, cpu_weight=50))) == {
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "1000",
        "cpu.shares": "512",
    }


@pytest.mark.parametrize(("now", "first"), [(2**62, "memory.limit_in_bytes"), (1_000, "memory.memsw.limit_in_bytes")])
def test_v1_memory_limit_never_passes_memory_and_swap(now: int, first: str) -> None:
    writes = memory_writes(Limits(memory_bytes=1 << 20), now)

    assert writes[0][0] == first
    assert {value for _, value in writes} == {"1048576"}


def test_device_rule_as_v1_line() -> None:
    assert v1_line(DeviceRule("c", 136, None)) == "c 136:* rw"
    assert v1_line(DeviceRule("b", 8, 1, "r")) == "b 8:1 r"


class DeviceProgram:
    """Runs the few instructions a device program uses, as the kernel would."""

    def __init__(self, code: bytes) -> None:
        self.instructions = [struct.unpack_from("<BBhi", code, start) for start in range(0, len(code), 8)]

    def allows(self, kind: int, access: int, major: int, minor: int) -> bool:
        registers = [0] * 11
        context = {0: kind | access << 16, 4: major, 8: minor}
        position = 0
        while True:
            code, operands, offset, immediate = self.instructions[position]
            destination, source = operands & 15, operands >> 4
            position += 1
            match code:
                case 0x61:
                    registers[destination] = context[offset]
                case 0xBF:
                    registers[destination] = registers[source]
                case 0x57:
                    registers[destination] &= immediate
                case 0x77:
                    registers[destination] >>= immediate
                case 0xB7:
                    registers[destination] = immediate
                case 0x55:
                    position += offset if registers[destination] != immediate else 0
                case 0x45:
                    position += offset if registers[destination] & immediate else 0
                case 0x95:
                    return bool(registers[0])
                case _:
                    raise AssertionError(f"unknown instruction {code:#x}")


def test_device_program_decides_by_kind_number_and_access() -> None:
    rules = [DeviceRule("c", 1, 3), DeviceRule("b", 8, None, "r"), DeviceRule("c", 9, 9, "rwm")]
    program = DeviceProgram(device_program(rules))
    block, character, make, read, write = 1, 2, 1, 2, 4

    assert program.allows(character, read | write, 1, 3)
    assert program.allows(block, read, 8, 77)
    assert program.allows(character, make, 9, 9)
    assert not program.allows(character, make, 1, 3)
    assert not program.allows(block, read, 1, 3)
    assert not program.allows(block, write, 8, 77)
    assert not program.allows(character, read, 1, 4)


def test_pids_of_other_namespaces_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("0\n7\n")

    assert read_pids(str(tmp_path / "cgroup.procs")) == [7]


def test_missing_control_file_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match=errno.errorcode[errno.ENOENT]):
        write_text(str(tmp_path / "cpu.max"), "max")

    assert not (tmp_path / "cpu.max").exists()
