"""Fixtures of the kernel suite: a root file system, a spawner for each test, and the check that nothing leaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from squall.runtime.client import SpawnerRuntime
from tests import leaks
from tests.kernel.containers import Containers
from tests.kernel.rootfs import ensure_rootfs, missing


@pytest.fixture(scope="session", autouse=True)
def nothing_leaks() -> Iterator[None]:
    """The machine is afterwards as it was before."""
    with leaks.none_left():
        yield


@pytest.fixture(scope="session")
def rootfs() -> str:
    """A small Debian with Python, read-only by agreement."""
    if missing():
        pytest.skip(missing())
    return ensure_rootfs()


@pytest.fixture
async def containers(data_dir: Path, rootfs: str) -> AsyncIterator[Containers]:
    """Containers by a spawner of the test's own."""
    async with await SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name, idle_s=5) as runtime:
        made = Containers(runtime, data_dir, rootfs)
        try:
            yield made
        finally:
            await made.close()
            await runtime.shutdown()
