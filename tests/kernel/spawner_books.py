"""What a spawner holds: the same before and after, whatever was made and ended in between."""

from __future__ import annotations

import asyncio
import os
import re
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from squall.runtime.cgroup import detect_cgroups
from tests.kernel.containers import POLL_S

SETTLE_S = 5.0
_NUMBERS = re.compile(r"\[\d+\]")


class SpawnerBooks:
    """Of the spawner with this pid, whose instance is named after its directory."""

    def __init__(self, pid: int, data_dir: Path) -> None:
        self.pid = pid
        self._data_dir = data_dir

    def read(self) -> dict[str, Any]:
        """Descriptors by what they are, children, and what there is of containers in the kernel and on the disk."""
        here = str(self._data_dir)
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if here in line]
        with open(f"/proc/{self.pid}/mountinfo", encoding="utf-8") as file:
            seen_by_it = [line for line in file if here in line]
        return {
            "descriptors": self.descriptors(),
            "children": sorted(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()),
            "cgroups": detect_cgroups().names(f"squall/{self._data_dir.name}"),
            "records": sorted(os.listdir(f"{here}/spawner/records")),
            "mounts": len(mounts),
            "its mounts": len(seen_by_it),
        }

    def descriptors(self) -> Counter[str]:
        """How many it has of each kind."""
        found: Counter[str] = Counter()
        for number in self._numbers():
            try:
                found[_NUMBERS.sub("[]", os.readlink(f"/proc/{self.pid}/fd/{number}"))] += 1
            except FileNotFoundError:
                continue
        return found

    def rss_bytes(self) -> int:
        """What it has in memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def are(self, expected: dict[str, Any]) -> None:
        """Wait until they are as they were."""
        for _ in range(int(SETTLE_S / POLL_S)):
            if (found := self.read()) == expected:
                return
            await asyncio.sleep(POLL_S)
        changed = {name: (expected[name], found[name]) for name in found if found[name] != expected[name]}
        raise AssertionError(f"before and after: {changed}")

    @contextmanager
    def descriptors_left(self, count: int) -> Iterator[None]:
        """So many more can it open, and whoever it forks."""
        used, limit, free = set(self._numbers()), 0, 0
        while free < count or limit <= 2:
            free += limit not in used
            limit += 1
        before = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        try:
            yield
        finally:
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, before)

    def _numbers(self) -> list[int]:
        return [int(name) for name in os.listdir(f"/proc/{self.pid}/fd")]
