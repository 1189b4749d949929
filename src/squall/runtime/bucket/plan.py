"""Turn a bucket of a container into the operations that make the process that serves it. Pure, as `runtime.plan`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from squall.runtime import operations as op
from squall.runtime.bucket.program import HANDOVER_PROGRAMS, arguments, environment
from squall.runtime.plan import NOFILE_MAX, written_files
from squall.runtime.spec import Bucket, ContainerSpec
from squall.runtime.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY

MADE_FD = 99
FILES, PLACE = "/tmp", "/mnt"
_TREES = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ssl", "/etc/ca-certificates", "/etc/pki")

# libfuse runs `fusermount` where it may not mount, and waits for a descriptor. Ours mounts nothing: that was done.
_HELPER = """#!{python} -IS
import os, socket, sys
if "-u" not in sys.argv:
    socket.send_fds(socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])), [b"\\0"], [{number}])
"""


# s3fs gives files to somebody else only as root. This root has no capability, and is in sight of nobody of its range:
# they are in other pid namespaces.
_USER = 0


def directory_of(spec: ContainerSpec, bucket: Bucket) -> str:
    """What it has on the disk."""
    return f"{spec.state_dir}/buckets/{bucket.name}"


def plan_server(spec: ContainerSpec, bucket: Bucket, program: str, tasks_paths: Sequence[str]) -> list[op.Phase]:
    """The phases that turn a process forked into new namespaces into one that serves a bucket, and may nothing else."""
    top = directory_of(spec, bucket)
    # The base interpreter, wherever it is: nothing of a virtual environment is needed.
    python = os.path.realpath(sys.executable)
    folders = [*_TREES, os.path.dirname(program), *(() if sys.base_prefix == "/usr" else (sys.base_prefix,))]
    there = [path for path in folders if os.path.isdir(path)]
    links = {path: os.readlink(path) for path in there if os.path.islink(path)}
    trees = [path for path in there if path not in links and not _is_below(path, there)]
    network: list[op.RootOperation] = [
        op.OpenCgroup(tuple(tasks_paths)),
        op.DetachMounts(),
        op.SetFileLimit(NOFILE_MAX),
        op.JoinNetwork(spec.network.netns_path) if spec.network else op.RaiseLoopback(),
    ]
    rootfs: list[op.RootOperation] = [
        op.MakeBucketMount(in_words(bucket), bucket.is_read_only),
        op.MountScratch(f"{top}/root"),
        op.FurnishBucketServer(
            f"{top}/root",
            trees,
            links,
            {f"/etc/{name}": text for name, text in written_files(spec)},
            [path for path in dict.fromkeys(map(os.path.realpath, HANDOVER_PROGRAMS)) if os.path.isfile(path)],
            _HELPER.format(python=python, number=MADE_FD),
            f"{top}/files",
            spec.id_range.start + _USER,
        ),
        op.PivotRoot(f"{top}/root"),
        # By this the node finds what it has open, and what that takes.
        op.MountKind("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY),
    ]
    env = environment(bucket, spec.network.env if spec.network else {})
    confine: list[op.Operation] = [
        op.EnterUserNamespace(spec.id_range),
        op.BecomeUser(_USER, _USER),
        op.DropCapabilities(()),
        op.ForbidPrivileges(),
        op.OpenStandardInput(),
        op.KeepMade(MADE_FD),
        op.FilterCalls(),
        op.Execute(tuple(arguments(program, bucket, spec.user, PLACE, FILES)), env, "/", has_init=True),
    ]
    return [
        op.Phase("network", network),
        op.Phase("rootfs", rootfs),
        op.Phase("cgroup", [op.EnterCgroup()]),
        op.Phase("confine", confine),
    ]


def in_words(bucket: Bucket) -> str:
    """Which one, and where."""
    below = f", below {bucket.key_prefix}" if bucket.key_prefix else ""
    return f"bucket {bucket.bucket}{below} at {bucket.target}"


def _is_below(path: str, others: Sequence[str]) -> bool:
    return any(path.startswith(f"{other}/") for other in others)
