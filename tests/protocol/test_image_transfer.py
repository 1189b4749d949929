"""What no registry could take, and no file be, is refused before anybody is asked."""

from __future__ import annotations

from typing import Any

import pytest

from squall.protocol.image import ImageInvalid
from squall.protocol.image_transfer import ImageExport, ImagePush, check_export, check_push


def test_usual_names_and_forms_are_taken() -> None:
    check_push(ImagePush("im-1", "app"))
    check_push(ImagePush("im-1", "registry.test:5000/team/app:1", "user", "password", "zstd"))
    check_export(ImageExport("im-1"))
    check_export(ImageExport("im-1", "docker", "registry.test:5000/app:1"))
    check_export(ImageExport("im-1", "oci", "app"))


@pytest.mark.parametrize(
    ("target", "more", "message"),
    [
        ("", (), "is no name for an image"),
        ("-x", (), "is no name for an image"),
        ("docker://a b", (), "is no name for an image"),
        ("app@sha256:" + "0" * 64, (), "is no name for an image"),
        ("app\n", (), "is no name for an image"),
        ("app:1", ("", "secret"), "no user whose it is"),
        ("app:1", ("user", "secret", "gzip", "", {"A": "secret"}), "give one of them"),
        ("app:1", ("", "", "lzma"), "there are gzip and zstd"),
    ],
)
def test_push_that_cannot_be_is_refused(target: str, more: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ImageInvalid, match=message) as caught:
        check_push(ImagePush("im-1", target, *more))

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (ImageExport("im-1", "zip"), "there are oci and docker"),
        (ImageExport("im-1", "docker", "registry.test:5000/app"), "has no tag"),
        (ImageExport("im-1", "oci", "a b"), "is no name"),
        (ImageExport("im-1", compression="x"), "there are gzip and zstd"),
    ],
)
def test_export_that_cannot_be_is_refused(record: ImageExport, message: str) -> None:
    with pytest.raises(ImageInvalid, match=message):
        check_export(record)
