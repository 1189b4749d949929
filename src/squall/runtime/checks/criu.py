"""Check of CRIU, which only templates that are to outlive a restart of the machine need."""

from __future__ import annotations

from squall.runtime.checks.check import Check
from squall.runtime.criu.tool import PLACE, find_tool


def check_criu(place: str = PLACE) -> Check:
    """Whether CRIU is there, and runs."""
    tool = find_tool(place)
    version = tool.version() if tool is not None else ""
    if version:
        return Check("criu", "ok", f"{place}, version {version}")
    found = "missing" if tool is None else f"{place} does not run"
    needed = "needed for templates that outlive a restart of the machine; without it they are made anew"
    return Check("criu", "warn", f"{found}: {needed}", "make criu")
