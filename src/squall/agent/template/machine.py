"""What a saved template counts on, beside its key: what comes back goes on with what the one before had found.

Its libraries have looked at the processor and chosen their code; the kernel gave it what it holds; and CRIU reads what
the same CRIU has written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping

from squall.protocol.version import VERSION
from squall.runtime.criu.tool import find_tool
from squall.runtime.seccomp import build_template_filter

_TOLD = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU implementer", "CPU part", "Features")


def machine_facts() -> Mapping[str, str] | None:
    """By name, in words for the user; None where nothing can be saved: there is no CRIU, or it does not run. Blocks."""
    tool = find_tool()
    version = tool.version() if tool is not None else ""
    if not version:
        return None
    kernel = os.uname()
    ours = hashlib.blake2b(VERSION.encode() + build_template_filter(), digest_size=8)
    return {
        "CRIU": version,
        "kernel": f"{kernel.release} {kernel.version}",
        "processor": _processor(),
        "Squall": ours.hexdigest(),
    }


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return processor_of(file)


def processor_of(lines: Iterable[str]) -> str:
    """A hash of what the first processor in a `/proc/cpuinfo` says it is and can."""
    found = []
    for line in lines:
        name, _, value = line.partition(":")
        if not line.strip():
            break
        if name.strip() in _TOLD:
            found.append((name.strip(), *sorted(value.split())))
    return hashlib.blake2b(repr(found).encode(), digest_size=8).hexdigest()
