"""Where a program is that a container is to execute."""

from __future__ import annotations

import os

from squall.runtime.errors import FeatureMissing, ProgramMissing, ProgramRefused

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

INIT_PROGRAMS = ("/usr/bin/tini-static", "/usr/local/bin/tini-static", "/sbin/tini-static")


def find_init() -> str:
    """Where tini is on this machine.

    Raises:
        FeatureMissing: nowhere.
    """
    for path in INIT_PROGRAMS:
        if os.path.exists(path):
            return path
    raise FeatureMissing("cannot run containers: tini-static is missing; install the package tini")


def find_program(name: str, search_path: str) -> str:
    """Its path, below the root directory of this process.

    Raises:
        ProgramMissing, ProgramRefused: there is none, or it may not be executed.
    """
    candidates = [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in search_path.split(":")]
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    for candidate in candidates:
        if os.path.isdir(candidate) and "/" in name:
            raise ProgramRefused(f"cannot execute {name}: it is a directory")
        if os.path.isfile(candidate):
            advice = "chmod +x it, or name its interpreter"
            raise ProgramRefused(f"cannot execute {candidate}: it is not executable; {advice}")
    where = f"in PATH={search_path}" if "/" not in name else "there"
    raise ProgramMissing(f"cannot execute {name}: no such program {where}; is it part of the image?")
