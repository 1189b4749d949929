"""The name of the image that has a certain Python, as operators write it.

Standard library alone and little of it: every program reads its configuration first.
"""

from __future__ import annotations

import re

DEFAULT_PYTHON_IMAGE = "python:{series}-slim-{suite}"
"""The official one. No registry is named: completing a short name is for the machine's settings."""
NO_PYTHON_IMAGE = "none"
"""In place of an image: never ask a registry."""
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/@-]*")
# Debian's own Python of that suite is 3.13; packages added later are then the same, whichever the Python came from.
_FIRST_MINOR_ON_TRIXIE = 13


def checked_pattern(text: str) -> str:
    """What an operator wrote, with `{series}` and perhaps `{suite}` in it; empty where no registry is to be asked.

    Raises:
        ValueError: it names no image.
    """
    if text == NO_PYTHON_IMAGE:
        return ""
    pattern = text.removeprefix("docker://") or DEFAULT_PYTHON_IMAGE
    if "{series}" not in pattern or not _IMAGE.fullmatch(image_for(pattern, "3.11")):
        raise ValueError("must be the name of an image with {series} where 3.11 or another is to stand, or none")
    return pattern


def image_for(pattern: str, python_version: str) -> str:
    """The image that has this Python."""
    minor = int(python_version.split(".")[1])
    suite = "trixie" if minor >= _FIRST_MINOR_ON_TRIXIE else "bookworm"
    return pattern.replace("{series}", python_version).replace("{suite}", suite)
