"""Fixtures of the kernel suite: a root file system, a spawner for each test, and the check that nothing leaks."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from squall.runtime.client import SpawnerRuntime
from squall.runtime.network.node_network import sweep_network
from squall.runtime.network.owner import MakeNamespaces
from squall.runtime.network.pool import NetworkPool
from tests import leaks
from tests.kernel.containers import Containers
from tests.kernel.executors import chosen_isolation, parametrize
from tests.kernel.forge import Forge
from tests.kernel.machine import INSTANCE, OUTSIDE_ADDRESS, Machine, MakePool, inside_namespace, remains
from tests.kernel.rootfs import ensure_rootfs, missing


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Both executors, where a module asks for them."""
    parametrize(metafunc)


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
def isolation(request: pytest.FixtureRequest) -> str:
    """What containers of a test are confined by, unless it is run for others too (see `executors`)."""
    return chosen_isolation(request)


@pytest.fixture
async def containers(data_dir: Path, rootfs: str, isolation: str) -> AsyncIterator[Containers]:
    """Containers by a spawner of the test's own."""
    async with await SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name, idle_s=5) as runtime:
        made = Containers(runtime, data_dir, rootfs, isolation)
        try:
            yield made
        finally:
            await made.close()
            await runtime.shutdown()


@pytest.fixture
async def forge(containers: Containers) -> Forge:
    """Templates and clones by that spawner."""
    return Forge(containers)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """The test itself runs on the machine: threads and programs it starts inherit the namespace."""
    made = Machine()
    try:
        with inside_namespace(made.machine_fd):
            yield made
    finally:
        made.close()


@pytest.fixture
def make_pool(machine: Machine, tmp_path: Path) -> Iterator[MakePool]:
    """Pools of slots on that machine; nothing of them is left."""
    resolv_conf = tmp_path / "resolv.conf"

    def make(
        size: int = 1,
        resolvers: str = OUTSIDE_ADDRESS,
        living: Sequence[str] = (),
        proxy_env: Mapping[str, str] | None = None,
        make_namespaces: MakeNamespaces | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> NetworkPool:
        resolv_conf.write_text("".join(f"nameserver {address}\n" for address in resolvers.split()))
        state_dir = str(tmp_path / "state")
        return NetworkPool.open(
            state_dir,
            INSTANCE,
            size,
            living=living,
            proxy_env=proxy_env,
            resolv_conf=str(resolv_conf),
            make_namespaces=make_namespaces,
            monotonic_s=monotonic_s,
        )

    yield make
    sweep_network(str(tmp_path / "state"), INSTANCE)
    assert remains(tmp_path / "state") == []
