"""cgroup v1, one hierarchy per controller, and hybrid: limits in v1, killing and freezing in v2.

The unified hierarchy of a hybrid machine offers no controllers that matter, but its core files do: `cgroup.kill` is
atomic, `cgroup.freeze` lets frozen processes be killed, and `cpu.stat` counts time. So where it exists, a container is
in it too, and the v1 freezer and cpuacct are left alone: every hierarchy entered costs a start time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from squall.runtime.cgroup import files
from squall.runtime.cgroup.devices import DEFAULT_DEVICES, DeviceRule, attach_device_program, v1_line
from squall.runtime.cgroup.v2 import FREEZE_TIMEOUT_S, PERIOD_US, REMOVE_TIMEOUT_S, CgroupV2, TreeV2
from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import ContainerUsage, Limits

WANTED = ("cpu", "memory", "pids", "devices")
WANTED_WITHOUT_UNIFIED = (*WANTED, "cpuacct", "freezer")
SHARES_AT_WEIGHT_100 = 1024
KILL_TIMEOUT_S = 5.0


def cpu_writes(limits: Limits) -> list[tuple[str, str]]:
    """Quota and shares. The weight's scale is v2's: 100 is ordinary, as 1024 shares are."""
    quota_us = -1 if limits.cpu_milli is None else max(limits.cpu_milli * PERIOD_US // 1000, 1000)
    shares = min(max(limits.cpu_weight * SHARES_AT_WEIGHT_100 // 100, 2), 262_144)
    return [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", str(quota_us)), ("cpu.shares", str(shares))]


def memory_writes(limits: Limits, limit_now_bytes: int) -> list[tuple[str, str]]:
    """Memory and memory + swap held equal: no swap on top. The kernel wants the first <= the second at all times."""
    value = "-1" if limits.memory_bytes is None else str(limits.memory_bytes)
    both = [("memory.limit_in_bytes", value), ("memory.memsw.limit_in_bytes", value)]
    is_raised = limits.memory_bytes is None or limits.memory_bytes > limit_now_bytes
    return both[::-1] if is_raised else both


@dataclass(frozen=True, slots=True)
class CgroupV1:
    """One container's cgroups: a directory in each hierarchy, all of the same name."""

    name: str
    paths: Mapping[str, str]
    """Controller to directory; controllers mounted together share one."""
    unified: CgroupV2 | None

    @property
    def procs_paths(self) -> list[str]:
        """Files into which a process writes `0` to enter by itself."""
        directories = list(dict.fromkeys(self.paths.values()))
        # The unified one last: once `kill` reaches a process there, every limit holds it already.
        return [f"{path}/cgroup.procs" for path in directories] + (self.unified.procs_paths if self.unified else [])

    def add(self, pid: int) -> None:
        """Move a process in; one that has ended already is no error."""
        for path in self.procs_paths:
            files.add_pid(path, pid)

    def pids(self) -> list[int]:
        """Processes in any of its hierarchies now."""
        return sorted({pid for path in self.procs_paths for pid in files.read_pids(path)})

    def kill(self) -> None:
        """Send SIGKILL to every process in it; they may still be on their way out when this returns.

        Raises:
            RuntimeFailure: without a unified hierarchy only: processes were still being born after five seconds.
        """
        if self.unified:
            self.unified.kill()
            # A process on its way in may have entered a v1 hierarchy and not yet the unified one.
            self._signal_all()
            return
        deadline = time.monotonic() + KILL_TIMEOUT_S
        while self.pids():
            # Frozen first, so that nothing forks between the listing and the signals; thawed after, because a process
            # that the v1 freezer holds does not act on SIGKILL.
            self._set_freezer("FROZEN", timeout_s=0.1)
            self._signal_all()
            self._set_freezer("THAWED", timeout_s=0.1)
            if time.monotonic() >= deadline:
                raise RuntimeFailure(
                    f"cannot kill cgroup {self.name}: processes {self.pids()} are left after {KILL_TIMEOUT_S:g} s"
                )
            time.sleep(files.POLL_FIRST_S)

    def freeze(self) -> None:
        """Stop every process in it from running.

        Raises:
            RuntimeFailure: some process did not stop within two seconds (it sits in the kernel).
        """
        if self.unified:
            self.unified.freeze()
        elif not self._set_freezer("FROZEN", FREEZE_TIMEOUT_S):
            self._set_freezer("THAWED", FREEZE_TIMEOUT_S)
            raise RuntimeFailure(f"cannot freeze cgroup {self.name}: processes {self.pids()} did not stop in time")

    def thaw(self) -> None:
        """Undo `freeze`."""
        if self.unified:
            self.unified.thaw()
        else:
            self._set_freezer("THAWED", FREEZE_TIMEOUT_S)

    def usage(self) -> ContainerUsage:
        """Counters now. Memory leaves out file cache that nobody used lately: the kernel takes that back freely."""
        memory, cpuacct = self.paths.get("memory", ""), self.paths.get("cpuacct", "")
        idle_cache_bytes = files.read_fields(f"{memory}/memory.stat").get("total_inactive_file", 0)
        cpu_ns = self.unified.usage().cpu_ns if self.unified else files.read_int(f"{cpuacct}/cpuacct.usage")
        return ContainerUsage(
            memory_bytes=max(files.read_int(f"{memory}/memory.usage_in_bytes") - idle_cache_bytes, 0),
            cpu_ns=cpu_ns,
            pids=files.read_int(f"{self.paths.get('pids', '')}/pids.current"),
        )

    def oom_count(self) -> int:
        """How many processes the kernel has killed in it for passing the memory limit."""
        return files.read_fields(f"{self.paths.get('memory', '')}/memory.oom_control").get("oom_kill", 0)

    def set_limits(self, limits: Limits) -> None:
        """Replace the limits. Memory below what is used makes the kernel reclaim; what it cannot take is refused."""
        writes = {
            "cpu": cpu_writes(limits),
            "memory": memory_writes(limits, files.read_int(f"{self.paths.get('memory', '')}/memory.limit_in_bytes")),
            "pids": [("pids.max", "max" if limits.pids_max is None else str(limits.pids_max))],
        }
        for controller, pairs in writes.items():
            for file_name, value in pairs:
                path = f"{self.paths.get(controller, '')}/{file_name}"
                # Missing where the controller is (see `missing_controllers`), memsw also where swap is not accounted.
                if os.path.exists(path):
                    files.write_text(path, value)

    def restrict_devices(self, devices: Sequence[DeviceRule]) -> None:
        """Allow only these devices from now on; what is open stays open."""
        directory = self.paths.get("devices")
        if directory is None:
            if self.unified:
                attach_device_program(self.unified.path, devices)
            return
        files.write_text(f"{directory}/devices.deny", "a")
        for rule in devices:
            files.write_text(f"{directory}/devices.allow", v1_line(rule))

    def remove(self, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Remove it, waiting so long at most for processes that are still on their way out. Idempotent."""
        for path in dict.fromkeys(self.paths.values()):
            files.remove_directory(path, timeout_s)
        # Last, so that `names` goes on telling of a cgroup that is only half removed.
        if self.unified:
            self.unified.remove(timeout_s)

    def _signal_all(self) -> None:
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _set_freezer(self, state: str, timeout_s: float) -> bool:
        path = f"{self.paths.get('freezer', '')}/freezer.state"
        if not os.path.exists(path):
            return False
        deadline = time.monotonic() + timeout_s
        while True:
            # Written again on each pass: the v1 freezer gives up silently on processes that were forking.
            files.write_text(path, state)
            if (files.read_text(path) or "").strip() == state:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(files.POLL_FIRST_S)


@dataclass(frozen=True, slots=True)
class TreeV1:
    """v1 hierarchies, with the unified one beside them on a hybrid machine."""

    hierarchies: Mapping[str, str]
    """Controller to the top of its hierarchy."""
    unified: TreeV2 | None = None

    @property
    def kind(self) -> str:
        """`hybrid` with a unified hierarchy, else `v1`."""
        return "hybrid" if self.unified else "v1"

    @property
    def controllers(self) -> frozenset[str]:
        """Controllers this machine offers, of either version."""
        return frozenset(self.hierarchies) | (self.unified.controllers if self.unified else frozenset())

    def create(self, name: str, limits: Limits, devices: Sequence[DeviceRule] = DEFAULT_DEVICES) -> CgroupV1:
        """Make the cgroup with its limits in force; fails if it exists. Nothing is left when it raises."""
        if self.open(name) is not None:
            raise RuntimeFailure(f"cannot make cgroup {name}: it exists; remove it first")
        paths: dict[str, str] = {}
        made: dict[str, str] = {}
        try:
            for controller, top in self._wanted():
                if top not in made:
                    made[top] = files.make_directory(top, name)
                paths[controller] = made[top]
            group = CgroupV1(name, paths, self.unified.create_bare(name) if self.unified else None)
            group.set_limits(limits)
            group.restrict_devices(devices)
        except Exception:
            CgroupV1(name, dict(made.items()), self.unified.open(name) if self.unified else None).remove()
            raise
        return group

    def open(self, name: str) -> CgroupV1 | None:
        """The cgroup of this name, or None. One that was only half removed is found too."""
        paths = {controller: f"{top}/{name}" for controller, top in self._all() if os.path.isdir(f"{top}/{name}")}
        unified = self.unified.open(name) if self.unified else None
        return CgroupV1(name, paths, unified) if paths or unified else None

    def names(self, prefix: str) -> list[str]:
        """Names of the cgroups directly below `prefix`, in whichever hierarchy."""
        found = {f"{prefix}/{child}" for _, top in self._all() for child in files.child_names(f"{top}/{prefix}")}
        return sorted(found.union(self.unified.names(prefix) if self.unified else ()))

    def _all(self) -> list[tuple[str, str]]:
        # Also what this tree makes none in: one without the unified hierarchy beside it may have (clones).
        return [(name, self.hierarchies[name]) for name in WANTED_WITHOUT_UNIFIED if name in self.hierarchies]

    def _wanted(self) -> list[tuple[str, str]]:
        wanted = WANTED if self.unified else WANTED_WITHOUT_UNIFIED
        return [(controller, self.hierarchies[controller]) for controller in wanted if controller in self.hierarchies]
