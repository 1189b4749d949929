"""What a container has deleted and holds open: where that is its own disk, and where it is not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.agent.disk_use import DiskUse, deleted_use
from squall.runtime.spec import Bind
from tests.kernel.containers import Containers, shell

UNDER_GVISOR = {
    "test_what_is_deleted_on_a_mount_at_root_is_not_the_containers",
    "test_what_is_deleted_of_its_own_files_is_the_containers",
}
HOLDS = "exec 3>{0}; rm {0}; head -c 1048576 /dev/zero >&3; echo held; sleep 60"


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory that is on another file system than containers are."""
    directory = Path(tempfile.mkdtemp(dir="/dev/shm"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)  # tidy: nothing of a container's is mounted there


async def test_what_is_deleted_on_a_mount_at_root_is_not_the_containers(
    containers: Containers, elsewhere: Path
) -> None:
    binds = [Bind(str(elsewhere), "/root", is_read_only=False)]
    running = await containers.start(*shell(HOLDS.format("/root/x")), binds=binds)
    await running.stdout.read_until("held")

    assert deleted_use(running.pid, isolation=containers.isolation) == DiskUse()


async def test_what_is_deleted_of_its_own_files_is_the_containers(containers: Containers) -> None:
    running = await containers.start(*shell(HOLDS.format("/root/x")))
    await running.stdout.read_until("held")

    use = deleted_use(running.pid, isolation=containers.isolation)

    assert (use.inodes, use.is_whole) == (1, True)
    assert use.space_bytes >= 2**20
