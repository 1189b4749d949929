"""Directories in memory that user code writes to: what it can put there is bounded, and goes with them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.runtime.layer_mounts import make_image_namespace
from squall.runtime.places import FILES_MAX, Places

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    images_fd = make_image_namespace(str(tmp_path / "images"))
    yield Places(images_fd)
    os.close(images_fd)


def test_files_in_one_are_few(places: Places) -> None:
    place = places.make("one", 2**20)

    def fill() -> None:
        for number in range(FILES_MAX):
            Path(place.path, str(number)).touch()

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        fill()

    assert FILES_MAX // 2 < len(os.listdir(place.path)) < FILES_MAX
    places.drop("one")


def test_files_at_any_depth_go_with_it_though_somebody_has_a_copy(places: Places) -> None:
    place = places.make("one", 2**20)
    os.makedirs(f"{place.path}/a/b")
    for path in ("file", "a/file", "a/b/file"):
        Path(place.path, path).write_bytes(b"x" * 4_096)
    kept = os.open(place.path, os.O_RDONLY)

    places.drop("one")

    assert places.find("one") is None
    assert [files for _, _, files in os.walk(f"/proc/self/fd/{kept}")] == [[], [], []]
    os.close(kept)
