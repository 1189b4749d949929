"""cgroup v2, the unified hierarchy."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from squall.runtime.cgroup import files
from squall.runtime.cgroup.devices import DEFAULT_DEVICES, DeviceRule, attach_device_program
from squall.runtime.errors import FeatureMissing, RuntimeFailure
from squall.runtime.spec import ContainerUsage, Limits

WANTED = ("cpu", "memory", "pids")
PERIOD_US = 100_000
FREEZE_TIMEOUT_S = 2.0
REMOVE_TIMEOUT_S = 5.0
# Where processes of the hierarchy's top go when it may not hold any (a container's own view of its cgroup).
LEAF_OF_TOP = "init"
VACATE_ROUNDS = 10


def limit_writes(limits: Limits) -> list[tuple[str, str]]:
    """What to write into which file. Order matters: swap is closed before memory shrinks."""
    memory = "max" if limits.memory_bytes is None else str(limits.memory_bytes)
    quota = "max" if limits.cpu_milli is None else str(max(limits.cpu_milli * PERIOD_US // 1000, 1000))
    return [
        ("cpu.max", f"{quota} {PERIOD_US}"),
        ("cpu.weight", str(min(max(limits.cpu_weight, 1), 10_000))),
        ("memory.swap.max", "max" if limits.memory_bytes is None else "0"),
        ("memory.max", memory),
        ("pids.max", "max" if limits.pids_max is None else str(limits.pids_max)),
    ]


@dataclass(frozen=True, slots=True)
class CgroupV2:
    """One cgroup of the unified hierarchy."""

    name: str
    path: str

    @property
    def procs_paths(self) -> list[str]:
        """Files into which a process writes `0` to enter by itself."""
        return [f"{self.path}/cgroup.procs"]

    def add(self, pid: int) -> None:
        """Move a process in; one that has ended already is no error."""
        files.add_pid(f"{self.path}/cgroup.procs", pid)

    def pids(self) -> list[int]:
        """Processes in it now."""
        return files.read_pids(f"{self.path}/cgroup.procs")

    def kill(self) -> None:
        """Send SIGKILL to every process in it; they may still be on their way out when this returns."""
        if not os.path.isdir(self.path):
            return
        # cgroup.kill, not a loop over pids: a fork bomb outruns the loop.
        files.write_text(f"{self.path}/cgroup.kill", "1")

    def freeze(self) -> None:
        """Stop every process in it from running.

        Raises:
            RuntimeFailure: some process did not stop within two seconds (it sits in the kernel).
        """
        files.write_text(f"{self.path}/cgroup.freeze", "1")
        deadline = time.monotonic() + FREEZE_TIMEOUT_S
        while files.read_fields(f"{self.path}/cgroup.events").get("frozen") == 0:
            if time.monotonic() >= deadline:
                files.write_text(f"{self.path}/cgroup.freeze", "0")
                raise RuntimeFailure(f"cannot freeze cgroup {self.name}: processes {self.pids()} did not stop in time")
            time.sleep(files.POLL_FIRST_S)

    def thaw(self) -> None:
        """Undo `freeze`."""
        files.write_text(f"{self.path}/cgroup.freeze", "0")

    def usage(self) -> ContainerUsage:
        """Counters now. Memory leaves out file cache that nobody used lately: the kernel takes that back freely."""
        idle_cache_bytes = files.read_fields(f"{self.path}/memory.stat").get("inactive_file", 0)
        return ContainerUsage(
            memory_bytes=max(files.read_int(f"{self.path}/memory.current") - idle_cache_bytes, 0),
            cpu_ns=files.read_fields(f"{self.path}/cpu.stat").get("usage_usec", 0) * 1000,
            pids=files.read_int(f"{self.path}/pids.current"),
        )

    def oom_count(self) -> int:
        """How many processes the kernel has killed in it for passing the memory limit."""
        return files.read_fields(f"{self.path}/memory.events").get("oom_kill", 0)

    def set_limits(self, limits: Limits) -> None:
        """Replace the limits. A memory limit below what is used makes the kernel reclaim, then kill."""
        for file_name, value in limit_writes(limits):
            path = f"{self.path}/{file_name}"
            # Missing where the controller is (see `missing_controllers`), and for swap where there is none.
            if os.path.exists(path):
                files.write_text(path, value)

    def restrict_devices(self, devices: Sequence[DeviceRule]) -> None:
        """Allow only these devices from now on; what is open stays open."""
        attach_device_program(self.path, devices)

    def remove(self, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Remove it, waiting so long at most for processes that are still on their way out. Idempotent."""
        files.remove_directory(self.path, timeout_s)


@dataclass(frozen=True, slots=True)
class TreeV2:
    """The unified hierarchy mounted at `root`."""

    root: str
    kind: str = "v2"

    @property
    def controllers(self) -> frozenset[str]:
        """Controllers this hierarchy offers."""
        return frozenset((files.read_text(f"{self.root}/cgroup.controllers") or "").split())

    def create(self, name: str, limits: Limits, devices: Sequence[DeviceRule] = DEFAULT_DEVICES) -> CgroupV2:
        """Make the cgroup with its limits in force; fails if it exists. Nothing is left when it raises."""
        group = self.create_bare(name)
        try:
            group.set_limits(limits)
            group.restrict_devices(devices)
        except Exception:
            group.remove()
            raise
        return group

    def create_bare(self, name: str) -> CgroupV2:
        """Make the cgroup with no limit of any kind."""
        path = files.make_directory(self.root, name)
        self._enable_controllers(name)
        return CgroupV2(name, path)

    def open(self, name: str) -> CgroupV2 | None:
        """The cgroup of this name, or None."""
        path = f"{self.root}/{name}"
        return CgroupV2(name, path) if os.path.isdir(path) else None

    def names(self, prefix: str) -> list[str]:
        """Names of the cgroups directly below `prefix`."""
        return [f"{prefix}/{child}" for child in files.child_names(f"{self.root}/{prefix}")]

    def _enable_controllers(self, name: str) -> None:
        path = self.root
        for part in name.split("/"):
            available = (files.read_text(f"{path}/cgroup.controllers") or "").split()
            enabled = (files.read_text(f"{path}/cgroup.subtree_control") or "").split()
            missing = [controller for controller in WANTED if controller in available and controller not in enabled]
            if missing:
                self._enable(path, " ".join(f"+{controller}" for controller in missing))
            path = f"{path}/{part}"

    def _enable(self, path: str, value: str) -> None:
        try:
            files.write_text(f"{path}/cgroup.subtree_control", value)
        except RuntimeFailure as failure:
            cause = failure.__cause__
            is_busy = isinstance(cause, OSError) and cause.errno == errno.EBUSY
            # Only a machine's true top may hold processes and hand out controllers. Inside a container the mount's top
            # is an ordinary cgroup, so whoever sits there moves into a leaf first.
            if not is_busy or path != self.root:
                raise FeatureMissing(
                    f"{failure.message}; delegate the cgroup controllers {value} to this process"
                ) from failure
            self._vacate(path)
            files.write_text(f"{path}/cgroup.subtree_control", value)

    @staticmethod
    def _vacate(path: str) -> None:
        leaf = f"{path}/{LEAF_OF_TOP}"
        os.makedirs(leaf, exist_ok=True)
        for _ in range(VACATE_ROUNDS):
            # Again, because a process that was forking has left a child behind.
            pids = files.read_pids(f"{path}/cgroup.procs")
            if not pids:
                return
            for pid in pids:
                files.add_pid(f"{leaf}/cgroup.procs", pid)
