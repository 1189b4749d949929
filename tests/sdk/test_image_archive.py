"""An image that comes as one file: what travels, and what is refused before anything does."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.image import ARCHIVE_PATH
from squall.sdk import _mount
from squall.sdk._image_archive import image_of_archive
from tests.sdk.double import ServerDouble


def identity(x: int) -> int:
    return x


def test_archive_travels_as_the_one_file_of_a_mount(
    server: ServerDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_mount, "LARGE_BYTES", 10)
    (tmp_path / "app.tar").write_bytes(b"x" * 1_000)
    app = squall.App("x", include_source=False)
    app.function(image=image_of_archive(tmp_path / "app.tar").env({"A": "1"}))(identity)

    with warnings.catch_warnings(), app.run():
        warnings.simplefilter("error")

    archive, env = server.images[-1].steps
    assert (archive.kind, archive.tag, env.kind) == ("from_archive", "app.tar", "env")
    assert [file.path for file in server.mounts[archive.mount_id].files] == [ARCHIVE_PATH]


def test_name_that_is_not_utf8_is_shown_as_far_as_it_can_be(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/app\xff.tar"))
    path.write_bytes(b"x")

    (step,) = image_of_archive(path).steps

    assert step.arguments["name"] == "app\ufffd.tar"


def test_what_can_be_no_archive_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")

    for name, cause in (("none", "no such file"), ("empty", "empty"), ("pipe", "no regular file"), (".", "no regular")):
        with pytest.raises(InvalidError, match=cause):
            image_of_archive(tmp_path / name)
