"""A small Debian to make containers from: made once per machine, kept in a cache directory, never changed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from squall.runtime.removal import remove_tree

# Outside the places where tests look for leaks: it is meant to stay.
CACHE_DIR = Path(os.environ.get("SQUALL_TEST_CACHE", "/var/cache/squall-tests"))
PACKAGES = "python3,ca-certificates"
SUITE = "bookworm"
# Raise it when what is in the root file system changes.
VERSION = 2
MAKE_TIMEOUT_S = 300
INIT_PROGRAM = "/usr/bin/tini-static"


def missing() -> str:
    """What this machine lacks to run containers, or nothing."""
    if os.geteuid() != 0:
        return "containers need root"
    if not os.path.exists(INIT_PROGRAM):
        return f"missing program: {INIT_PROGRAM} (package tini)"
    if shutil.which("mmdebstrap") is None and not rootfs_path().is_dir():
        return "missing program: mmdebstrap"
    return ""


def rootfs_path() -> Path:
    """Where it is, or will be."""
    return CACHE_DIR / f"{SUITE}-{VERSION}"


def ensure_rootfs() -> str:
    """The directory of the root file system, made if it is missing; parallel callers wait for one another."""
    CACHE_DIR.mkdir(parents=True, exist_ok=True)
    path = rootfs_path()
    with open(CACHE_DIR / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_dir():
            unfinished = path.with_suffix(".unfinished")
            remove_tree(str(unfinished))
            command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(unfinished)]
            subprocess.run(command, check=True, timeout=MAKE_TIMEOUT_S, stdin=subprocess.DEVNULL)
            unfinished.rename(path)
    return str(path)
