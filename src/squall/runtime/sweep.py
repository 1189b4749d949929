"""Remove what a spawner that was killed left behind: processes, cgroups, mounts and records.

Its containers die with it (their first process asks the kernel for that), and their mounts with them, so usually only
empty cgroups and records are found; but nothing here counts on it.
"""

from __future__ import annotations

import fcntl
import os
import time

from squall.runtime.bucket.program import container_of
from squall.runtime.cgroup import Cgroup, CgroupTree, detect_cgroups
from squall.runtime.errors import RuntimeFailure
from squall.runtime.records import Records, check_name
from squall.runtime.registry import remove_scratch

KILL_TIMEOUT_S = 10.0
KILL_PAUSE_S = 0.005


def socket_path(state_dir: str) -> str:
    """Where the spawner of a state directory listens."""
    return f"{state_dir}/spawner.sock"


def records_path(state_dir: str) -> str:
    """Where it keeps its records."""
    return f"{state_dir}/records"


def lock(state_dir: str) -> int | None:
    """The descriptor that holds the state directory for this process, or None when a living spawner has it."""
    descriptor = os.open(f"{state_dir}/spawner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def sweep(state_dir: str, instance: str) -> list[str]:
    """Remove everything a dead spawner left; returns the ids of the containers it had. Repeating it is safe.

    The containers' own directories stay, with nothing mounted below them; they are the caller's to delete.

    Raises:
        RuntimeFailure: the spawner is alive, or something could not be removed (its record stays then).
    """
    if not os.path.isdir(state_dir):
        return []
    held = lock(state_dir)
    if held is None:
        raise RuntimeFailure(f"cannot sweep {state_dir}: its spawner is alive; connect to it, or shut it down first")
    try:
        return sweep_locked(state_dir, instance)
    finally:
        os.close(held)


def sweep_locked(state_dir: str, instance: str) -> list[str]:
    """The same, for whoever holds the lock already."""
    check_name("an instance", instance)
    found: set[str] = set()
    tree = detect_cgroups()
    groups = [(name, tree.open(name)) for name in tree.names(f"squall/{instance}")]
    # All are killed before any is waited for.
    for _, group in groups:
        if group:
            group.kill()
    for name, group in groups:
        if group:
            _remove_cgroup(group)
        found.add(container_of(name.rpartition("/")[2]))
    remove_parents(tree)
    records = Records(records_path(state_dir))
    for record in list(records.all()):
        if record.state_dir:
            remove_scratch(record.state_dir)
        records.forget(record.container_id)
        found.add(record.container_id)
    try:
        os.unlink(socket_path(state_dir))
    except FileNotFoundError:
        pass
    return sorted(found)


def remove_parents(tree: CgroupTree) -> None:
    """Remove the cgroups above the containers' own, where nothing is left below them: those of other instances, too.

    An installation that was killed whole, and is never started again, has nobody else to do it. One that lives makes
    its own again with its next container.
    """
    for name in (*tree.names("squall"), "squall"):
        group = tree.open(name)
        for path in group.procs_paths if group else ():
            try:
                # Not the tree's own removal, which takes along what is below: that may be another instance's.
                os.rmdir(os.path.dirname(path))
            except OSError:
                pass


def _remove_cgroup(group: Cgroup) -> None:
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while group.pids() and time.monotonic() < deadline:
        # Again on each pass: without cgroup.kill a process that was forking may have been missed.
        group.kill()
        time.sleep(KILL_PAUSE_S)
    group.remove()
