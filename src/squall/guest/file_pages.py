"""Which pages of files a template has in its memory, code of its libraries above all, so that a fork has them before it
needs them.

A fork's page tables begin without them: the kernel leaves what it can read from a file to faults, of 5 µs each (Linux
6.18, a virtual machine). A first operation of torch takes 300 of these. A fork that is parked has the time to have all
mapped at once.
"""

from __future__ import annotations

import re
import time
from array import array
from collections.abc import Iterator

from squall.guest import libc

PAGE_BYTES = 4096
PAGES_MAX = 2**16
"""No more are noted, and 512 KiB of page tables is what these take in a fork."""
RUNS_MAX = 1024
RUN_PAGES_MAX = 512
"""Of one call: no more than 2 MiB are read from the disk again before somebody looks at the time."""
MAP_S = 0.02
MAPPING_BYTES_MAX = 2**30
"""What is larger is no library."""
_ENTRY_BYTES = 8
_IS_PRESENT = bytes(number >> 7 for number in range(256))
"""Of the last byte of a page's entry: its highest bit."""
_RUN = re.compile(b"\1+(?:\0{1,16}\1+)*")
"""With gaps that the kernel fills by itself when it maps what is around a page."""


def mapped() -> array[int]:
    """What this process has now: addresses and lengths, in turn; nothing where the kernel does not tell."""
    found = array("Q")
    left = PAGES_MAX
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            for start, end in _of_files():
                pagemap.seek(start // PAGE_BYTES * _ENTRY_BYTES)
                entries = pagemap.read((end - start) // PAGE_BYTES * _ENTRY_BYTES)
                present = entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES].translate(_IS_PRESENT)
                for run in _RUN.finditer(present):
                    for first in range(run.start(), run.end(), RUN_PAGES_MAX):
                        count = min(left, RUN_PAGES_MAX, run.end() - first)
                        if count == 0 or len(found) == 2 * RUNS_MAX:
                            return found
                        left -= count
                        found.extend((start + first * PAGE_BYTES, count * PAGE_BYTES))
    except OSError:
        return array("Q")
    return found


def map_again(pages: array[int]) -> None:
    """Have these in this process, a fork of the one that had them, as many as there is time for. What is not mapped any
    more is passed over."""
    until = time.monotonic() + MAP_S
    for number in range(0, len(pages), 2):
        if not libc.populate_pages(pages[number], pages[number + 1]) or time.monotonic() > until:
            return


def _of_files() -> Iterator[tuple[int, int]]:
    """Mappings that nothing is written to, of which a fork's tables begin empty; those with code first."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        lines = [line.split(None, 5) for line in file]
    for access in ("r-xp", "r--p"):
        for fields in lines:
            if len(fields) == 6 and fields[1] == access and fields[5].startswith("/"):
                start, end = (int(number, 16) for number in fields[0].split("-"))
                if end - start <= MAPPING_BYTES_MAX:
                    yield start, end
