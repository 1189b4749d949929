"""Limits, accounting and certain death for a container's processes: cgroups of either version behind one face.

Names are paths such as `squall/<instance>/<container_id>`, below the top of the hierarchy and not below the cgroup
this process happens to sit in: containers outlive the agent that made them, and a service manager that restarts the
agent kills what is below its cgroup; limits somebody set on a shell must not bind containers; and under v2 a cgroup
that holds processes can hand out no controllers. See docs/decisions/0006-cgroups.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from squall.runtime.cgroup.devices import DEFAULT_DEVICES, DeviceRule
from squall.runtime.cgroup.v1 import TreeV1
from squall.runtime.cgroup.v2 import REMOVE_TIMEOUT_S, TreeV2
from squall.runtime.errors import FeatureMissing
from squall.runtime.spec import ContainerUsage, Limits

__all__ = ["DEFAULT_DEVICES", "Cgroup", "CgroupTree", "DeviceRule", "detect_cgroups", "missing_controllers"]

V1_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "devices", "freezer")


class Cgroup(Protocol):
    """The processes of one container. Methods block briefly, within stated bounds, and raise `RuntimeFailure`."""

    @property
    def name(self) -> str:
        """Its path below the top, as given to `create`."""

    @property
    def procs_paths(self) -> list[str]:
        """Files into which a process writes `0` to enter by itself."""

    def add(self, pid: int) -> None:
        """Move a process in; one that has ended already is no error."""

    def pids(self) -> list[int]:
        """Processes in it now."""

    def kill(self) -> None:
        """Send SIGKILL to every process in it; they may still be on their way out when this returns."""

    def freeze(self) -> None:
        """Stop every process in it from running; waits up to two seconds until they have."""

    def thaw(self) -> None:
        """Undo `freeze`."""

    def usage(self) -> ContainerUsage:
        """Counters now; zeros once it is removed. Memory leaves out file cache that nobody used lately."""

    def oom_count(self) -> int:
        """How many processes the kernel has killed in it for passing the memory limit."""

    def set_limits(self, limits: Limits) -> None:
        """Replace the limits."""

    def remove(self, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Remove it, waiting so long at most for processes that are still on their way out. Idempotent.

        Raises:
            RuntimeFailure: some are in it still.
        """


class CgroupTree(Protocol):
    """The machine's cgroups."""

    @property
    def kind(self) -> str:
        """`v1`, `hybrid` or `v2`."""

    @property
    def controllers(self) -> frozenset[str]:
        """Controllers there are. A limit whose controller is missing is not enforced (see `missing_controllers`)."""

    def create(self, name: str, limits: Limits, devices: Sequence[DeviceRule] = DEFAULT_DEVICES) -> Cgroup:
        """Make a cgroup with its limits in force; fails if it exists. Nothing is left when it raises."""

    def open(self, name: str) -> Cgroup | None:
        """The cgroup of this name, or None."""

    def names(self, prefix: str) -> list[str]:
        """Names of the cgroups directly below `prefix`."""


def detect_cgroups(root: str = "/sys/fs/cgroup") -> CgroupTree:
    """The cgroups of this machine: v2, v1, or v1 with an otherwise empty v2 beside it (hybrid).

    Raises:
        FeatureMissing: nothing is mounted there.
    """
    if os.path.exists(f"{root}/cgroup.controllers"):
        return TreeV2(root)
    hierarchies = {
        # Controllers mounted together are one directory with symbolic links to it: `cpu -> cpu,cpuacct`.
        controller: os.path.realpath(f"{root}/{controller}")
        for controller in V1_CONTROLLERS
        if os.path.exists(f"{root}/{controller}/cgroup.procs")
    }
    if not hierarchies:
        raise FeatureMissing(f"cannot limit containers: no cgroups are mounted at {root}; mount cgroup2 there")
    # cgroup.kill came with Linux 5.14; an older unified hierarchy gains us nothing.
    unified = f"{root}/unified"
    is_useful = os.path.exists(f"{unified}/cgroup.controllers") and _offers_kill(unified)
    return TreeV1(hierarchies, TreeV2(unified) if is_useful else None)


def without_unified(tree: CgroupTree) -> CgroupTree:
    """The same without the unified hierarchy of a hybrid machine.

    For clones: into a v2 cgroup a process that is there already can only move itself by `cgroup.procs`, which stops the
    machine for some milliseconds; what v2 is taken for otherwise, killing and freezing, their pid namespace and the v1
    freezer do.
    """
    return TreeV1(tree.hierarchies) if isinstance(tree, TreeV1) else tree


def _offers_kill(unified: str) -> bool:
    # The top of a hierarchy has no cgroup.kill itself; its children do.
    with os.scandir(unified) as entries:
        children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    if children:
        return os.path.exists(f"{children[0]}/cgroup.kill")
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    return release >= (5, 14)


def missing_controllers(tree: CgroupTree) -> list[str]:
    """Controllers containers should have and this machine does not offer; each is a limit that is not enforced."""
    return [controller for controller in ("cpu", "memory", "pids") if controller not in tree.controllers]
