"""The spawner of a data directory: the small process that forks containers and outlives the server."""

from __future__ import annotations

import hashlib
from pathlib import Path

from squall.runtime.client import SpawnerRuntime

IDLE_S = 60.0
"""A spawner with neither containers nor an agent ends after so long."""


async def open_spawner(data_dir: Path) -> SpawnerRuntime:
    """Connect to it, starting it when there is none.

    Raises:
        RuntimeFailure: it cannot be started, or speaks another version.
    """
    state_dir = data_dir / "spawner"
    state_dir.mkdir(mode=0o700, exist_ok=True)
    return await SpawnerRuntime.open(str(state_dir), instance_name(data_dir), idle_s=IDLE_S)


async def start_spawner(data_dir: Path) -> None:
    """See that it runs. For a server that has much to load meanwhile: what goes wrong is found when it is opened."""
    async with await open_spawner(data_dir):
        return


def instance_name(data_dir: Path) -> str:
    """What the kernel's objects of this data directory are named after; the same at each start."""
    return "i" + hashlib.sha256(str(data_dir).encode()).hexdigest()[:10]
