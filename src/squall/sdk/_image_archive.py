"""An image out of one file, as `squall image export`, `docker save` and `podman save` write it."""

from __future__ import annotations

import os
from pathlib import Path

from squall.exception import InvalidError
from squall.protocol.image import ARCHIVE_PATH
from squall.sdk import _mount
from squall.sdk._image_steps import Step
from squall.sdk.image import Image


def image_of_archive(path: Path) -> Image:
    """The image in a file; it is read when the image is built, and travels by its content as all files do.

    Raises:
        InvalidError: there is no such file, or it is none that can be read twice: once to be known, once to be sent.
    """
    if not path.exists():
        raise InvalidError(f"cannot import {path}: there is no such file")
    if not path.is_file():
        raise InvalidError(f"cannot import {path}: it is no regular file; write the archive into one first")
    if not path.stat().st_size:
        raise InvalidError(f"cannot import {path}: it is empty")
    # Whatever bytes name it here: it is only shown.
    name = os.fsencode(path.name).decode(errors="replace")

    def mount() -> _mount.Mount:
        file = _mount.LocalFile(str(path.absolute()), ARCHIVE_PATH)
        return _mount.make_mount([file], f"the archive {name}", is_size_meant=True)

    return Image._make((Step("from_archive", {"name": name}, files=mount),))
