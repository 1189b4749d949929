"""What runsc is told: its flags, and an OCI runtime configuration made from a spec. Pure."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from squall.runtime.gvisor import snapshot
from squall.runtime.plan import KEPT_CAPABILITIES, NOFILE_MAX, TTY_GROUP, written_files
from squall.runtime.programs import SEARCH_PATH
from squall.runtime.spec import ContainerSpec, ExecSpec

SHARED = "/saved/shared"
NAME = "squall"
"""Of the one container that each runsc knows."""
PROGRAM, RECORDS, BUNDLE, ROOT, IMAGE = "/bin/runsc", "/run/runsc", "/run/bundle", "/root", "/saved/image"
"""Where things are in what runsc sees."""
STATE = f"{RECORDS}/{NAME}_sandbox:{NAME}.state"
INIT = "/run/squall/init"
"""tini, in the container: gVisor has no first process of its own, so the program's would be the one that must reap."""

_GLOBAL = (f"--root={RECORDS}",)
_FLAGS = (
    "--platform=systrap",
    # Its own network stack behind the slot's interface, not sockets of the machine.
    "--network=sandbox",
    # It is in the container's already.
    "--ignore-cgroups",
    # What is written goes to the container's own upper, which is measured.
    "--overlay2=none",
    # Connect to sockets that lie in binds, as the agent's; make none.
    "--host-uds=open",
)


def run_argv(error_fd: int, *, has_volumes: bool = False) -> list[str]:
    """Runs the container to its end."""
    errors = [f"--log-fd={error_fd}", f"--panic-log=/proc/self/fd/{error_fd}"]
    # What it remembers of a version is a use of it, for ever, and hides the next one.
    names = ["--dcache=0"] if has_volumes else []
    return [PROGRAM, *_GLOBAL, *_FLAGS, *names, *errors, "run", f"--bundle={BUNDLE}", NAME]


def restore_argv(error_fd: int) -> list[str]:
    """Makes the container from a snapshot, and runs it to its end."""
    errors = [f"--log-fd={error_fd}", f"--panic-log=/proc/self/fd/{error_fd}"]
    restore = ["restore", f"--bundle={BUNDLE}", f"--image-path={IMAGE}", NAME]
    return [PROGRAM, *_GLOBAL, *_FLAGS, *errors, *restore]


def checkpoint_argv() -> list[str]:
    """Saves the container, and ends it. Uncompressed: what is read again at every start lies in memory anyway."""
    options = [f"--image-path={IMAGE}", "--compression=none", "--exclude-committed-zero-pages"]
    return [PROGRAM, *_GLOBAL, "checkpoint", *options, NAME]


def exec_argv(process_path: str, name: str) -> list[str]:
    """Runs one more program in it."""
    options = [f"--process={process_path}", f"--internal-pid-file={exec_pid_path(name)}"]
    return [PROGRAM, *_GLOBAL, "exec", *options, NAME]


def exec_pid_path(name: str) -> str:
    """Where runsc writes which process of the container that is."""
    return f"/run/exec-{name}"


def kill_one_argv(pid: int) -> list[str]:
    """Ends one process in it."""
    return [PROGRAM, *_GLOBAL, "kill", f"--pid={pid}", NAME, str(int(signal.SIGKILL))]


def kill_argv(number: int) -> list[str]:
    """Sends its first process a signal."""
    return [PROGRAM, *_GLOBAL, "kill", NAME, str(number)]


def config_json(spec: ContainerSpec) -> str:
    """The container's `config.json`."""
    limits = [
        {"type": "RLIMIT_NOFILE", "soft": NOFILE_MAX, "hard": NOFILE_MAX},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    # -g: to the whole process group of the program, so that a shell's children hear of it too.
    process = _process(spec, [INIT, "-g", "--", *spec.argv], environment(spec), spec.cwd) | {"rlimits": limits}
    ids = [{"containerID": 0, "hostID": spec.id_range.start, "size": spec.id_range.size}]
    namespaces: list[dict[str, str]] = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "user")]
    # The one that runsc is in itself.
    namespaces.append({"type": "network", "path": "/proc/self/ns/net"})
    config = {
        "ociVersion": "1.0.0",
        "process": process,
        "root": {"path": ROOT},
        "hostname": spec.hostname,
        "mounts": _mounts(spec),
        "linux": {"namespaces": namespaces, "uidMappings": ids, "gidMappings": ids},
    }
    return json.dumps(config)


def environment(spec: ContainerSpec) -> dict[str, str]:
    """The variables of the container's program: its own count more than those of the slot."""
    return {"PATH": SEARCH_PATH, **(spec.network.env if spec.network else {}), **spec.env}


def process_json(spec: ExecSpec, container: ContainerSpec) -> str:
    """The `process.json` of one more program."""
    process = _process(container, spec.argv, spec.env, spec.cwd)
    return json.dumps(process | {"terminal": spec.has_pty})


def bind_path(index: int) -> str:
    """Where runsc sees the container's bind of that number."""
    return f"/binds/{index}"


def file_path(name: str) -> str:
    """Where it sees a file that is written for the container."""
    return f"/files/{name}"


def unseen(spec: ContainerSpec) -> list[str]:
    """Places in the container whose files are not in its root file system."""
    own = [snapshot.DIRECTORY] if _has_directory(spec) else []
    return ["/dev", "/proc", "/sys", "/tmp", *own, *(bind.target for bind in spec.binds)]


def _has_directory(spec: ContainerSpec) -> bool:
    return spec.is_template or bool(spec.template_id)


def _process(container: ContainerSpec, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> dict[str, Any]:
    uid, gid = container.user
    # Anyone but root has no capabilities at all, as outside.
    kept = [f"CAP_{name}" for name in KEPT_CAPABILITIES] if uid == 0 else []
    return {
        "user": {"uid": uid, "gid": gid, "umask": 0o022},
        "args": list(argv),
        "env": [f"{name}={value}" for name, value in ({"PATH": SEARCH_PATH} | dict(env)).items()],
        "cwd": cwd,
        "capabilities": {"bounding": kept, "effective": kept, "permitted": kept},
        "noNewPrivileges": True,
    }


def _mounts(spec: ContainerSpec) -> list[dict[str, Any]]:
    memory = ["nosuid", "nodev", "mode=1777"]
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "nodev", "noexec"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": [f"gid={TTY_GROUP}"]},
        {"destination": "/dev/shm", "type": "tmpfs", "options": [*memory, f"size={spec.limits.shm_bytes}"]},
    ]
    if spec.limits.tmp_bytes is not None:
        mounts.append({"destination": "/tmp", "type": "tmpfs", "options": [*memory, f"size={spec.limits.tmp_bytes}"]})
    else:
        # Else runsc would put a file system in memory over an empty one.
        mounts.append(_bind(f"{ROOT}/tmp", "/tmp", is_read_only=False))
    mounts += [_bind(file_path(name), f"/etc/{name}", is_read_only=False) for name, _ in written_files(spec)]
    mounts.append(_bind(file_path("init"), INIT, is_read_only=True))
    if _has_directory(spec):
        mounts.append(_bind(SHARED, snapshot.DIRECTORY, is_read_only=False))
    # Shorter targets first: a bind at /data must not cover one at /data/cache that came before it.
    for index, bind in sorted(enumerate(spec.binds), key=lambda pair: pair[1].target.count("/")):
        mounts.append(_bind(bind_path(index), bind.target, is_read_only=bind.is_read_only))
    return mounts


def _bind(source: str, target: str, *, is_read_only: bool) -> dict[str, Any]:
    options = ["rbind", "nosuid", "nodev", "ro" if is_read_only else "rw"]
    return {"destination": target, "type": "bind", "source": source, "options": options}
