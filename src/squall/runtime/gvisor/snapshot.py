"""Where a snapshot of a template under gVisor lies, and what passes between the template and us.

    <state_dir>/image/     all of the sandbox, as runsc saves it: the machine's root's alone
    <state_dir>/snapshot/  seen inside, and written there: `report.json` of the template, `identity.json` for a restored
                           one; what is read there was written by user code

The names inside are part of the guest's protocol (`protocol/guest.py`), which the runtime does not import.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import replace

from squall.runtime.errors import RuntimeFailure, describe_errno
from squall.runtime.removal import remove_tree
from squall.runtime.spec import Bind, ContainerSpec

DIRECTORY = "/run/squall/snapshot"
DIRECTORY_ENV = "SQUALL_TEMPLATE_DIR"
REPORT, IDENTITY = "report.json", "identity.json"
REPORT_BYTES_MAX = 65_536
IMAGE_FILES = ("checkpoint.img", "pages.img", "pages_meta.img")
COPY_TIMEOUT_S = 60.0


def image_dir(state_dir: str) -> str:
    """Where the snapshot of the template of this directory is."""
    return f"{state_dir}/image"


def shared_dir(state_dir: str) -> str:
    """What the container of this directory sees at `DIRECTORY`."""
    return f"{state_dir}/snapshot"


def make_directories(spec: ContainerSpec) -> None:
    """Those of a template that is about to start, or of a container that is about to be restored.

    Raises:
        RuntimeFailure: the disk does not take them.
    """
    owner = spec.id_range.start + spec.user[0], spec.id_range.start + spec.user[1]
    try:
        os.makedirs(shared_dir(spec.state_dir), mode=0o700, exist_ok=True)
        os.chown(shared_dir(spec.state_dir), *owner)
        if spec.is_template:
            os.makedirs(image_dir(spec.state_dir), mode=0o700, exist_ok=True)
    except OSError as error:
        raise RuntimeFailure(describe_errno("make", str(error.filename), error.errno or 0)) from error


def with_directory(spec: ContainerSpec) -> ContainerSpec:
    """The spec of a template, or of one that is restored: both see a directory of their own at the same place."""
    bind = Bind(shared_dir(spec.state_dir), DIRECTORY, is_read_only=False)
    return replace(spec, binds=(*spec.binds, bind), env={**spec.env, DIRECTORY_ENV: DIRECTORY})


def read_report(state_dir: str) -> bytes | None:
    """What a template has said; None while it has not."""
    try:
        # Whoever wrote it could have put anything there.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(f"{shared_dir(state_dir)}/{REPORT}", flags)
    except FileNotFoundError:
        return None
    except OSError:
        return b""
    try:
        return os.read(descriptor, REPORT_BYTES_MAX) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)


def write_identity(spec: ContainerSpec, env: Mapping[str, str], *, is_check: bool) -> None:
    """Say who a container is that is about to be restored: in its directory before it is there itself."""
    path = f"{shared_dir(spec.state_dir)}/{IDENTITY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        os.fchown(file.fileno(), spec.id_range.start + spec.user[0], spec.id_range.start + spec.user[1])
        json.dump({"env": dict(env), "is_check": is_check}, file)


def is_told(spec: ContainerSpec) -> bool:
    """Whether a restored container has taken its identity."""
    return not os.path.lexists(f"{shared_dir(spec.state_dir)}/{IDENTITY}")


def image_bytes(state_dir: str) -> int:
    """The size of a snapshot.

    Raises:
        RuntimeFailure: a file is missing, or empty: runsc says nothing of a disk that was full.
    """
    total = 0
    for name in IMAGE_FILES:
        path = f"{image_dir(state_dir)}/{name}"
        size = os.stat(path).st_size if os.path.exists(path) else 0
        if not size:
            raise RuntimeFailure(f"cannot save the sandbox: {path} is empty or missing; is the disk full?")
        total += size
    return total


def copy_files(template: ContainerSpec, spec: ContainerSpec) -> None:
    """Give a container that is to be restored what the template has written: the snapshot counts on it. Blocks."""
    os.makedirs(f"{spec.state_dir}/rw", mode=0o755, exist_ok=True)
    command = ["cp", "-a", "--reflink=auto", "--", f"{template.state_dir}/rw/upper", f"{spec.state_dir}/rw/upper"]
    ended = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=COPY_TIMEOUT_S, check=False
    )
    if ended.returncode != 0:
        raise RuntimeFailure(f"cannot copy the template's files: {ended.stderr.strip()[:500]}")


def drop_image(state_dir: str) -> None:
    """Delete a snapshot. Idempotent."""
    remove_tree(image_dir(state_dir))
