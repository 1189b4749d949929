"""Where CRIU is, and how it is called where nothing around it can be trusted.

It runs as root of the machine in the mount namespace of a template, among files of somebody's image. So it comes with
its own loader and libraries (`scripts/criu`), reads no configuration and no plugins, and finds no program by name.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

PLACE = "/opt/squall/criu"
VERSION_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Tool:
    """An installed CRIU."""

    place: str

    def version(self) -> str:
        """As it says it; empty where it cannot be run."""
        argv = _argv(self.place, "--version")
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        lines = done.stdout.splitlines()
        return next((line.removeprefix("Version: ") for line in lines if line.startswith("Version: ")), "")

    def open(self) -> int:
        """A descriptor of its directory, for `argv_through`."""
        return os.open(self.place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def argv_through(tool_fd: int, images_fd: int, action: str, *options: str) -> list[str]:
    """A command line that reaches everything through descriptors, wherever the process is by then."""
    here = f"/proc/self/fd/{tool_fd}"
    images = ("--images-dir", f"/proc/self/fd/{images_fd}", "--log-file", f"{action}.log", "-v1")
    # Of what it reads on its own: configuration, and plugins, which are libraries.
    closed = ("--no-default-config", "--libdir", f"{here}/plugins")
    return _argv(here, action, *closed, *images, "--manage-cgroups=ignore", *options)


def _argv(place: str, *options: str) -> list[str]:
    # The cache of libraries is the image's.
    loader = (f"{place}/ld.so", "--inhibit-cache", "--library-path", f"{place}/lib")
    return [*loader, f"{place}/criu.bin", *options]


def find_tool(place: str = PLACE) -> Tool | None:
    """CRIU as `scripts/criu` installs it, if it is."""
    return Tool(place) if os.path.exists(f"{place}/criu.bin") and os.path.exists(f"{place}/ld.so") else None
