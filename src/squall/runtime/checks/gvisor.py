"""Checks of gVisor, which only functions with `isolation="gvisor"` need."""

from __future__ import annotations

from squall.runtime.checks.check import Check
from squall.runtime.errors import FeatureMissing
from squall.runtime.gvisor.program import find_runsc, release_of


def check_runsc() -> Check:
    """Whether runsc is there, and new enough."""
    try:
        path = find_runsc()
    except FeatureMissing as failure:
        finding, _, fix = failure.message.partition("; ")
        fix = fix.partition(", or leave")[0].replace("install the package runsc there", "install the package runsc")
        return Check("runsc", "warn", finding, fix)
    return Check("runsc", "ok", f"{path}, of {release_of(path)}")
