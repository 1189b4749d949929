"""What a container cannot do, attack by attack, and what it can do all the same."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from squall.runtime.client import SpawnerRuntime
from squall.runtime.spec import Bind
from tests.conftest import remove_data_dir
from tests.kernel.attacks import ATTACKS
from tests.kernel.containers import ENV, TIMEOUT_S, Containers, shell

SCRIPT = Path(__file__).with_name("attacks.py")
BIND = Bind(str(SCRIPT), "/attacks.py")

# With every capability of its user namespace and no filter of system calls, these must be refused all the same.
WITHOUT_FILTER = (
    "unmount_proc_sys",
    "unmount_mask_of_directory",
    "unmount_mask_of_file",
    "unmount_proc",
    "remount_proc_sys_writable",
    "remount_sys_writable",
    "mount_fresh_proc",
    "mount_fresh_sysfs",
    "mount_memory",
    "mount_cgroup_v1",
    "mount_cgroup_v2",
    "mount_hierarchy_of_own_cgroup",
    "raise_own_limits_by_own_mount_of_cgroups",
    "move_mask_away",
    "unmount_mask_of_copy",
    "bind_mount",
    "change_mount_attributes",
    "pivot_root",
    "write_core_pattern",
    "write_host_sysctl",
    "write_network_sysctl",
    "write_sys",
    "write_bus",
    "trigger_sysrq",
    "make_block_device",
    "make_memory_device",
    "write_program_of_pid_1",
    "read_host_file_by_root_of_pid_1",
    "read_host_file_after_escape_from_chroot",
    "open_file_by_handle",
    "load_module",
    "kexec",
    "reboot",
    "read_kernel_log",
    "raw_socket",
    "packet_socket",
    "configure_interface",
    "become_unmapped_user",
    "change_hostname",
)


async def attack_from_inside(base: Path, rootfs: str, marker: str) -> dict[str, str]:
    """Every attack, as an ordinary program of a container."""
    async with await SpawnerRuntime.open(str(base / "spawner"), base.name, idle_s=5) as runtime:
        containers = Containers(runtime, base, rootfs)
        try:
            env = {**ENV, "MARKER": marker, "HOST_PID": str(os.getpid())}
            ended = await containers.run("python3", "/attacks.py", binds=[BIND], env=env)
            assert ended.status.code == 0, ended.stderr
            return dict(json.loads(ended.stdout))
        finally:
            await containers.close()
            await runtime.shutdown()


@pytest.fixture(scope="module")
def outcomes(rootfs: str) -> Iterator[Mapping[str, str]]:
    """What became of each attack."""
    base = Path(tempfile.mkdtemp(prefix="sq-", dir="/tmp"))
    marker = base / "marker"
    marker.write_text("of the machine")
    base.chmod(0o755)
    try:
        yield asyncio.run(attack_from_inside(base, rootfs, str(marker)))
    finally:
        assert not remove_data_dir(base)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused(name: str, outcomes: Mapping[str, str]) -> None:
    assert outcomes[name] != "worked"


async def test_full_capabilities_and_no_filter_change_nothing(containers: Containers) -> None:
    running = await containers.start("sleep", "60", binds=[BIND])
    entered = ["nsenter", f"--target={running.pid}", "--user", "--mount", "--pid", "--net", "--ipc", "--uts"]
    command = [*entered, "--setuid=0", "--setgid=0", "python3", "/attacks.py", *WITHOUT_FILTER]
    env = {**ENV, "MARKER": __file__}

    done = await asyncio.to_thread(
        subprocess.run, command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )

    assert done.returncode == 0, done.stderr
    assert {name: outcome for name, outcome in json.loads(done.stdout).items() if outcome == "worked"} == {}


async def test_exec_is_restricted_like_the_container(containers: Containers) -> None:
    running = await containers.start("sleep", "60", binds=[BIND])
    # Beside pid 1, its child and the attacker there is nobody; but attacks count on being one of at most three.
    ended = await containers.exec(running, "python3", "/attacks.py")

    outcomes = json.loads(ended.stdout)
    assert [name for name, outcome in outcomes.items() if outcome == "worked"] == []


async def test_containers_do_not_see_each_other(containers: Containers) -> None:
    secret = await containers.start(*shell("echo secret > /tmp/mine", "exec sleep 60"), env={**ENV, "TOKEN": "secret"})

    other = await containers.run(
        *shell("cat /tmp/mine; cat /proc/*/environ | tr '\\0' '\\n'", "ls /proc | grep -c '^[0-9]'")
    )

    assert "secret" not in other.stdout
    assert other.stdout.split()[-1].isdigit()
    assert (await containers.exec(secret, "cat", "/tmp/mine")).stdout == "secret\n"


async def test_container_has_every_namespace_of_its_own(containers: Containers) -> None:
    first, second = await containers.start("sleep", "60"), await containers.start("sleep", "60")

    def namespaces(pid: int | str) -> set[str]:
        return {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")}

    machine, mine, others = namespaces("self"), namespaces(first.pid), namespaces(second.pid)
    shared = (mine & machine) | (others & machine) | (mine & others)
    assert shared == set()


async def test_container_is_root_over_its_own_files_only(containers: Containers) -> None:
    running = await containers.start(*shell("touch /made; chown 1000:1000 /made; ls -ln /made; exec sleep 60"))
    said = await running.stdout.read_until("/made")

    on_machine = os.stat(containers.base / running.container_id / "rw/upper/made")

    assert said.split()[2:4] == ["1000", "1000"]
    assert on_machine.st_uid > 65_536
    assert on_machine.st_uid % 65_536 == 1000
