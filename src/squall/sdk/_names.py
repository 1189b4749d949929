"""What things may be called."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from squall.exception import InvalidError
from squall.protocol.limits import TAGS_MAX
from squall.protocol.names import APP_TAG, APP_TAG_RULE, NAME, NAME_RULE
from squall.sdk._value_text import value_text

_APP_ID = r"ap-[0-9A-Za-z]{22}\Z"


def check_name(name: object, what: str, way_out: str = "") -> str:
    """The name, if it can be one; `way_out` is what else to do where it cannot.

    Raises:
        InvalidError: it is no text, too long, has other characters, or looks like an app's id.
    """
    if not isinstance(name, str):
        raise InvalidError(f"{what} must be a string, not {type(name).__name__}")
    if not re.match(NAME, name):
        raise InvalidError(f"{what} {value_text(name)}: use {NAME_RULE}{way_out}")
    if re.match(_APP_ID, name):
        raise InvalidError(f"{what} {name!r}: looks like the id of an app; choose another name")
    return name


def check_tags(tags: object) -> dict[str, str]:
    """The tags, if they can be.

    Raises:
        InvalidError: no dictionary of short texts, or too many of them.
    """
    if not isinstance(tags, Mapping):
        raise InvalidError(f"tags must be a dictionary of strings, not {value_text(tags)}")
    if len(tags) > TAGS_MAX:
        raise InvalidError(f"tags: these are {len(tags):,}, and an app has {TAGS_MAX} at most")
    for key, value in tags.items():
        for text in (key, value):
            if not isinstance(text, str) or not re.match(APP_TAG, text):
                raise InvalidError(f"tags: {value_text(text)} is none: use {APP_TAG_RULE}")
    return dict(tags)


def program_name(path: str) -> str:
    """What an app without a name is listed as: the program it is run from."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", os.path.basename(path))[:64] or "python"
