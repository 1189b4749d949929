"""Turn a spec into the operations that make its container under gVisor. Pure, as `runtime.plan`.

runsc is executed as root of the machine, and not by whoever is in the container: it makes the user namespace for those
of its processes that the program's system calls reach, and takes over the slot's address. What it may is cut to what
that needs; what runs a program beside the first one, or sends a signal, may nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from squall.runtime import operations as op
from squall.runtime.gvisor import bundle
from squall.runtime.plan import plan_root, plan_volumes, scratch_of, written_files
from squall.runtime.programs import SEARCH_PATH
from squall.runtime.spec import ContainerSpec, ExecSpec

# To run processes with ids and root directories of their own, to read and move the slot's address.
RUNSC_CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "DAC_READ_SEARCH": 2,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
    "SYS_CHROOT": 18,
    "SYS_PTRACE": 19,
    "SYS_ADMIN": 21,
}


@dataclass(frozen=True, slots=True)
class Places:
    """Directories in memory, by where the spawner has them; empty for a container that has to do with no snapshot."""

    image: str = ""
    shared: str = ""


NONE = Places()


def plan_start(
    spec: ContainerSpec, tasks_paths: Sequence[str], image_points: Mapping[str, str], *, programs: Mapping[str, str],
    error_fd: int, places: Places = NONE,
) -> list[op.Phase]:  # fmt: skip
    """The phases that turn a process forked into new namespaces into runsc.

    Args:
        programs: where `runsc` and `init` are on this machine.
        error_fd: a descriptor into which runsc writes why it failed.
        places: of a template, where it is to be saved; of a container that is to be restored, where from.
    """
    scratch = scratch_of(spec)
    network, rootfs = plan_root(spec, tasks_paths, image_points)
    taken: list[op.RootOperation] = [
        op.TakeTree(path, name, is_read_only=True, is_idmapped=False) for name, path in programs.items()
    ]
    trees = {bundle.PROGRAM: "runsc", bundle.file_path("init"): "init"}
    trees |= {bundle.file_path(name): name for name, _ in written_files(spec)}
    trees |= {bundle.bind_path(index): f"bind-{index}" for index in range(len(spec.binds))}
    if places.image:
        taken.append(op.TakePlace(places.image, "image", is_read_only=not spec.is_template))
        trees[bundle.IMAGE] = "image"
    if places.shared:
        taken.append(op.TakePlace(places.shared, "shared", is_read_only=False))
        trees[bundle.SHARED] = "shared"
    argv = (
        bundle.restore_argv(error_fd) if spec.template_id else bundle.run_argv(error_fd, has_volumes=bool(spec.volumes))
    )
    furnish = op.FurnishSandbox(scratch, trees, {f"{bundle.BUNDLE}/config.json": bundle.config_json(spec)})
    search_path = spec.env.get("PATH", SEARCH_PATH)
    return [
        network,
        op.Phase(rootfs.name, [*rootfs.operations, *taken]),
        op.Phase("system", [
            furnish,
            op.PivotRoot(scratch),
            *plan_volumes(spec, bundle.ROOT),
            _check(spec, spec.argv[0], search_path, spec.cwd),
        ]),
        op.Phase("cgroup", [op.EnterCgroup()]),
        op.Phase("confine", [
            op.OpenStandardInput(),
            op.DropCapabilities(tuple(RUNSC_CAPABILITIES.values())),
            op.ForbidPrivileges(),
            op.ExecuteRunsc(argv, kept_fd=error_fd),
        ]),
    ]  # fmt: skip


def plan_exec(spec: ExecSpec, container: ContainerSpec, name: str) -> list[op.Phase]:
    """What a process does that is to be one more program, once it is among runsc's namespaces."""
    terminal = [op.OpenTerminal(spec.rows, spec.columns)] if spec.has_pty else []
    return [
        op.Phase("confine", [
            _check(container, spec.argv[0], spec.env.get("PATH", SEARCH_PATH), spec.cwd),
            *terminal,
            op.DropCapabilities(()),
            op.ForbidPrivileges(),
            op.ExecuteRunsc(bundle.exec_argv("{document}", name), document=bundle.process_json(spec, container)),
        ])
    ]  # fmt: skip


def plan_save() -> list[op.Phase]:
    """What a process does that is to save the container."""
    return _plan_order(bundle.checkpoint_argv())


def plan_signal(number: int) -> list[op.Phase]:
    """What a process does that is to send the program a signal."""
    return _plan_order(bundle.kill_argv(number))


def plan_kill(pid: int) -> list[op.Phase]:
    """What a process does that is to end one in the container."""
    return _plan_order(bundle.kill_one_argv(pid))


def _plan_order(argv: Sequence[str]) -> list[op.Phase]:
    return [
        op.Phase("confine", [
            op.OpenStandardInput(),
            op.DropCapabilities(()),
            op.ForbidPrivileges(),
            op.ExecuteRunsc(argv),
        ])
    ]  # fmt: skip


def _check(container: ContainerSpec, program: str, search_path: str, cwd: str) -> op.CheckProgram:
    return op.CheckProgram(bundle.ROOT, program, search_path, cwd, bundle.unseen(container))
