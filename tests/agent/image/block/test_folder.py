"""A folder of a file server is told from one of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.agent.image.block.folder import SETTLE_S, settle_s

MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/shared rw - nfs4 server:/export rw,vers=4.2
31 30 8:2 / /mnt/shared/local rw - xfs /dev/sdb rw
32 22 0:41 / /mnt/with\040space rw - cifs //server/share rw
33 22 8:3 / /over rw - ext4 /dev/sdc rw
34 33 0:42 / /over rw - fuse.sshfs host: rw
"""


@pytest.mark.parametrize(
    ("folder", "is_shared"),
    [
        ("/srv/layers", False),
        ("/mnt/shared", True),
        ("/mnt/shared/layers", True),
        ("/mnt/sharedness", False),
        ("/mnt/shared/local/layers", False),
        ("/mnt/with space/layers", True),
        ("/over/layers", True),
    ],
)
def test_file_systems_of_other_machines_need_time(tmp_path: Path, folder: str, is_shared: bool) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)

    assert settle_s(folder, str(tmp_path / "mountinfo")) == (SETTLE_S if is_shared else 0.0)


def test_folder_of_this_machine_needs_none(tmp_path: Path) -> None:
    assert settle_s(str(tmp_path)) == 0.0
