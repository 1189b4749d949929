"""Fixtures of the kernel suite: a root file system, a spawner for each test, and the check that nothing leaks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from squall.runtime.client import SpawnerRuntime
from tests import leaks
from tests.kernel.containers import Containers
from tests.kernel.rootfs import ensure_rootfs, missing


@pytest.fixture(scope="session", autouse=True)
def nothing_leaks() -> Iterator[None]:
    """The machine is afterwards as it was before."""
    with leaks.none_left_by_suite():
        yield


@pytest.fixture(scope="session")
def rootfs() -> str:
    """A small Debian with Python, read-only by agreement."""
    if missing():
        pytest.skip(missing())
    return ensure_rootfs()


@dataclass(frozen=True)
class SmallDisk:
    """A file system that nothing but the test writes to."""

    place: Path

    def free_bytes(self) -> int:
        """As `df` says it."""
        subprocess.run(["sync", "--file-system", str(self.place)], check=True, timeout=30)
        state = os.statvfs(self.place)
        return state.f_bfree * state.f_frsize


@pytest.fixture
def small_disk(make_data_dir: Callable[[], Path], tmp_path: Path) -> Iterator[SmallDisk]:
    """One of 256 MiB."""
    image, place = tmp_path / "disk", make_data_dir()
    with image.open("wb") as file:
        file.truncate(2**28)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, timeout=30)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(place)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"needs loop devices: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(place)
    finally:
        subprocess.run(["umount", "--recursive", str(place)], check=True, timeout=30)


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
