"""One finding about the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and what to do about it."""

    name: str
    status: Status
    """`fail`: containers cannot run; `warn`: something named in the finding does not work or is not enforced."""
    finding: str
    fix: str = ""
    """A command or a change, empty where nothing needs one."""
