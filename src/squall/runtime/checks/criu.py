"""Check of CRIU, which only templates that are to outlive a restart of the machine need."""

from __future__ import annotations

import platform

from squall.runtime.checks.check import Check
from squall.runtime.criu.tool import PLACE, find_tool

_WITHOUT = "without it templates are made anew after a restart of the machine"


def check_criu(place: str = PLACE, system: str | None = None) -> Check:
    """Whether CRIU is there, and runs; that it is not installed is no fault.

    Args:
        system: which Linux this is, as `debian`; None to look.
    """
    tool = find_tool(place)
    if tool is None:
        # Others have no package that `scripts/criu` could take.
        advice = "; make criu installs it" if (_system() if system is None else system) == "debian" else ""
        return Check("criu", "ok", f"not installed (optional): {_WITHOUT}{advice}")
    version = tool.version()
    if version:
        return Check("criu", "ok", f"{place}, version {version}")
    return Check("criu", "warn", f"{place} does not run: {_WITHOUT}", "make criu")


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("ID", "")
    except OSError:
        return ""
