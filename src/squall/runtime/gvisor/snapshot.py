"""A snapshot of a template under gVisor, and what passes between the template and us.

    image   all of the sandbox, as runsc saves it: the machine's root's alone
    shared  seen inside, and written there: `report.json` of the template, `identity.json` for a restored one; what is
            read there was written by user code

Both are in memory (`runtime.places`): it is what was in the template's memory, with its environment, and for a moment
the environment of each container, with its token and its secrets. Nothing of that is for a disk.

The names inside are part of the guest's protocol (`protocol/guest.py`), which the runtime does not import.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import replace

from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import ContainerSpec

DIRECTORY = "/run/squall/snapshot"
DIRECTORY_ENV = "SQUALL_TEMPLATE_DIR"
REPORT, IDENTITY = "report.json", "identity.json"
REPORT_BYTES_MAX = 65_536
SHARED_BYTES_MAX = 4 * 2**20
"""An environment has its place in it, and a report."""
IMAGE_FILES = ("checkpoint.img", "pages.img", "pages_meta.img")
COPY_TIMEOUT_S = 20.0
"""Less than what an agent waits for one that is restored."""


def image_of(container_id: str) -> str:
    """The name of the place with a template's snapshot."""
    return f"{container_id}/image"


def shared_of(container_id: str) -> str:
    """The name of the place that a template, or a container that is restored, sees at `DIRECTORY`."""
    return f"{container_id}/shared"


def with_directory(spec: ContainerSpec) -> ContainerSpec:
    """The spec of a template, or of one that is restored: both see a directory of their own at the same place."""
    return replace(spec, env={**spec.env, DIRECTORY_ENV: DIRECTORY})


def read_report(shared: str) -> bytes | None:
    """What a template has said; None while it has not."""
    try:
        # Whoever wrote it could have put anything there.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(f"{shared}/{REPORT}", flags)
    except FileNotFoundError:
        return None
    except OSError:
        return b""
    try:
        return os.read(descriptor, REPORT_BYTES_MAX) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)


def write_identity(shared: str, spec: ContainerSpec, env: Mapping[str, str], *, is_check: bool) -> None:
    """Say who a container is that is about to be restored: in its directory before it is there itself."""
    path = f"{shared}/{IDENTITY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        os.fchown(file.fileno(), spec.id_range.start + spec.user[0], spec.id_range.start + spec.user[1])
        json.dump({"env": dict(env), "is_check": is_check}, file)


def is_told(shared: str) -> bool:
    """Whether a restored container has taken its identity."""
    return not os.path.lexists(f"{shared}/{IDENTITY}")


def image_bytes(image: str) -> int:
    """The size of a snapshot.

    Raises:
        RuntimeFailure: a file is missing, or empty: runsc says nothing of a place that was full.
    """
    total = 0
    for name in IMAGE_FILES:
        path = f"{image}/{name}"
        size = os.stat(path).st_size if os.path.exists(path) else 0
        if not size:
            raise RuntimeFailure(f"cannot save the sandbox: {name} is empty or missing; is the memory full?")
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
