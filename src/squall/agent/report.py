"""How busy this machine is, from the kernel's counters."""

from __future__ import annotations

import os
from pathlib import Path

from squall.agent.config import AgentConfig
from squall.protocol.node import NodeReport

_MIB = 2**20


class Usage:
    """Remembers the last reading, so that the next one says what happened in between."""

    def __init__(self, config: AgentConfig, proc: Path = Path("/proc")) -> None:
        self._config = config
        self._proc = proc
        self._last = self._ticks()

    def report(
        self, container_count: int, template_bytes: int = 0, template_function_ids: tuple[str, ...] = ()
    ) -> NodeReport:
        """What the node used since the last report."""
        busy, total = self._ticks()
        busy_before, total_before = self._last
        self._last = (busy, total)
        share = (busy - busy_before) / max(1, total - total_before)
        memory = self._memory_kib()
        disk = os.statvfs(self._config.data_dir)
        return NodeReport(
            cpu_used_milli=int(share * self._config.cpu_milli),
            memory_used_mib=(memory.get("MemTotal", 0) - memory.get("MemAvailable", 0)) // 1024,
            memory_total_mib=memory.get("MemTotal", 0) // 1024,
            disk_free_mib=disk.f_bavail * disk.f_frsize // _MIB,
            container_count=container_count,
            template_memory_mib=template_bytes // _MIB,
            template_function_ids=template_function_ids,
        )

    def _ticks(self) -> tuple[int, int]:
        """Busy and all ticks of the processors since the machine started."""
        with open(self._proc / "stat", encoding="ascii") as file:
            # user nice system idle iowait irq softirq steal; guest time is part of user already.
            ticks = [int(field) for field in file.readline().split()[1:9]]
        return sum(ticks) - sum(ticks[3:5]), sum(ticks)

    def _memory_kib(self) -> dict[str, int]:
        lines = (self._proc / "meminfo").read_text(encoding="ascii").splitlines()
        return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
