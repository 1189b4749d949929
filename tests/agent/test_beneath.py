"""What openat2 is asked for: no link is followed, and nothing outside is opened."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from squall.agent.beneath import open_beneath


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        (b"link/file", errno.ELOOP),
        (b"inside/to-file", errno.ELOOP),
        (b"inside/../../outside/file", errno.EXDEV),
        (b"/etc/passwd", errno.EXDEV),
    ],
)
def test_what_leads_through_a_link_or_out_is_not_opened(tmp_path: Path, path: bytes, refusal: int) -> None:
    top, outside = tmp_path / "top", tmp_path / "outside"
    for directory in (top, outside, top / "inside"):
        directory.mkdir()
    (outside / "file").write_bytes(b"secret")
    (top / "inside" / "file").write_bytes(b"public")
    (top / "link").symlink_to(outside)
    (top / "inside" / "to-file").symlink_to("file")
    fd = os.open(top, os.O_PATH | os.O_DIRECTORY)
    try:
        with open(open_beneath(fd, b"inside/file", os.O_RDONLY), "rb") as file:
            assert file.read() == b"public"
        with pytest.raises(OSError) as refused:
            open_beneath(fd, path, os.O_RDONLY)
    finally:
        os.close(fd)
    assert refused.value.errno == refusal
