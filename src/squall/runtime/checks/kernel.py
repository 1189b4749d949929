"""Checks of the kernel: version, what containers are made of (really tried), cgroups."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from squall.runtime.cgroup import detect_cgroups, missing_controllers
from squall.runtime.checks.check import Check
from squall.runtime.errors import FeatureMissing

KERNEL_MIN = (5, 19)
PROBE_TIMEOUT_S = 20.0
SUBUSER_SYSCTL = "/proc/sys/kernel/unprivileged_userns_clone"
APPARMOR_SYSCTL = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
NAMESPACES_MAX = "/proc/sys/user/max_user_namespaces"
SECCOMP_ACTIONS = "/proc/sys/kernel/seccomp/actions_avail"

FIXES = {
    "user namespaces": "sysctl -w user.max_user_namespaces=65536",
    "idmapped mounts": "use Linux 5.19 or newer and a data directory on ext4, xfs or btrfs (SQUALL_DATA_DIR)",
    "overlay": "modprobe overlay; keep the data directory on a local file system, not on NFS or another overlay",
    "erofs": "modprobe erofs (package linux-modules-extra on cloud kernels)",
}
# Nothing else works without these; erofs only makes large images start sooner.
NEEDED = ("user namespaces", "idmapped mounts", "overlay")


def read_setting(path: str) -> str:
    """A kernel setting, empty where this kernel has none of that name."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def check_root(uid: int) -> Check:
    """Containers are made by root."""
    if uid == 0:
        return Check("root", "ok", "running as root")
    return Check("root", "fail", f"running as uid {uid}; making containers needs root", "run it with sudo")


def check_kernel(release: str) -> Check:
    """The oldest kernel whose overlay takes id-mapped layers is 5.19."""
    match = re.match(r"(\d+)\.(\d+)", release)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version >= KERNEL_MIN:
        return Check("kernel", "ok", f"Linux {release}")
    wanted = ".".join(map(str, KERNEL_MIN))
    return Check(
        "kernel", "fail", f"Linux {release} is older than {wanted}", "upgrade; Debian 12 and Ubuntu 24.04 are fine"
    )


def check_nested_namespaces(subuser: str, apparmor: str, namespaces_max: str) -> Check:
    """Whether programs inside containers (browsers, bubblewrap) can make user namespaces for their own sandboxes."""
    name = "user namespaces inside"
    if namespaces_max == "0":
        fix = FIXES["user namespaces"]
        return Check(name, "fail", "user.max_user_namespaces is 0: the machine allows no user namespace", fix)
    if subuser == "0":
        fix = "sysctl -w kernel.unprivileged_userns_clone=1"
        return Check(name, "warn", "only root may make user namespaces: browsers in containers lack their sandbox", fix)
    if apparmor == "1":
        fix = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        return Check(name, "warn", "AppArmor restricts user namespaces: browsers in containers lack their sandbox", fix)
    return Check(name, "ok", "allowed")


def check_seccomp(actions: str) -> Check:
    """Containers run under a system call filter."""
    if "errno" in actions.split():
        return Check("seccomp", "ok", "filters are available")
    return Check("seccomp", "fail", "this kernel has no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER")


def check_cgroups(root: str = "/sys/fs/cgroup") -> Check:
    """Which limits are enforced."""
    try:
        tree = detect_cgroups(root)
    except FeatureMissing as failure:
        return Check("cgroups", "fail", failure.message, f"mount -t cgroup2 none {root}")
    missing = missing_controllers(tree)
    if missing:
        fix = "boot with cgroup_enable=memory swapaccount=1" if missing == ["memory"] else "delegate or enable them"
        return Check(
            "cgroups", "warn", f"{tree.kind}, without {', '.join(missing)}: these limits are not enforced", fix
        )
    if tree.kind == "v1":
        fix = "boot with systemd.unified_cgroup_hierarchy=1"
        return Check("cgroups", "warn", "v1: killing a container is a loop instead of one write", fix)
    return Check("cgroups", "ok", f"{tree.kind} with cpu, memory and pids")


def checks_of_probe(found: dict[str, str]) -> list[Check]:
    """The findings of the probe."""
    return [
        Check(step, "fail" if step in NEEDED else "warn", error, FIXES.get(step, ""))
        if error
        else Check(step, "ok", "tried, works")
        for step, error in found.items()
    ]


def run_probe(data_dir: str) -> list[Check]:
    """Try what containers are made of, below `data_dir`, in a process of its own."""
    argv = [sys.executable, "-P", "-m", "squall.runtime.checks.probe", data_dir]
    # The package may come from a checkout that only this process's path names.
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.defpath}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False, env=env)
        found = (
            dict(json.loads(done.stdout)) if done.returncode == 0 else {"probe": done.stderr.strip().split("\n")[-1]}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        found = {"probe": str(error)}
    return checks_of_probe(found)


def check_kernel_features(data_dir: str, uid: int) -> list[Check]:
    """All checks of the kernel; those that need root are left out without it."""
    found = [
        check_root(uid),
        check_kernel(os.uname().release),
        check_nested_namespaces(*map(read_setting, (SUBUSER_SYSCTL, APPARMOR_SYSCTL, NAMESPACES_MAX))),
        check_seccomp(read_setting(SECCOMP_ACTIONS)),
        check_cgroups(),
    ]
    return [*found, *run_probe(data_dir)] if uid == 0 else found
