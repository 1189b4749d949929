"""runsc on this machine: where it is, and whether it is one that we know how to talk to."""

from __future__ import annotations

import os
import re
import subprocess

from squall.runtime.errors import FeatureMissing

RUNSC_PROGRAMS = ("/usr/bin/runsc", "/usr/local/bin/runsc")
OLDEST = "20240729"
"""The oldest release whose flags are those that `bundle` uses; they are dates."""
# Everybody waits meanwhile. It is asked once for each that is installed.
_TIMEOUT_S = 2.0
_HOW = (
    f"install the package runsc there, of {OLDEST} or newer (Debian 12 has it in its backports; `make setup` and "
    "`scripts/install-runsc` get it)"
)

_releases: dict[tuple[str, int, int], str] = {}


def find_runsc() -> str:
    """Where runsc is on this machine.

    Raises:
        FeatureMissing: nowhere, or only an old one.
    """
    for path in RUNSC_PROGRAMS:
        if os.access(path, os.X_OK):
            release = release_of(path)
            if release >= OLDEST:
                return path
            found = f"{path} is of {release}" if release else f"{path} does not say its version"
            raise FeatureMissing(f"cannot run containers under gVisor: {found}; {_HOW}")
    raise FeatureMissing(
        f"cannot run containers under gVisor: runsc is missing on this node; {_HOW}, or leave isolation= out"
    )


def release_of(path: str) -> str:
    """The date of its release as `20240729`; empty when it does not say. Asked once, some 20 ms."""
    identity = _identity(path)
    if identity not in _releases:
        try:
            done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
            found = re.search(r"(\d{8})\b", done.stdout)
        except (OSError, subprocess.TimeoutExpired):
            found = None
        if found is None:
            # On a machine that has too much to do it says so the next time.
            return ""
        _releases[identity] = found[1]
    return _releases[identity]


def identity_of_runsc() -> object:
    """Something that is another thing once another runsc is installed, or none is. Does not run it."""
    for path in RUNSC_PROGRAMS:
        try:
            return _identity(path)
        except FileNotFoundError:
            continue
    return None


def _identity(path: str) -> tuple[str, int, int]:
    status = os.stat(path)
    return path, status.st_ino, status.st_mtime_ns
