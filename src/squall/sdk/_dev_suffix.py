"""What comes behind the labels of web functions of an app that does not stay, so that it never takes the place of the
one that is deployed."""

from __future__ import annotations

import os
import re

from squall.exception import InvalidError
from squall.protocol.names import WEB_SUFFIX
from squall.sdk._value_text import value_text

DEFAULT = "dev"


def dev_suffix() -> str:
    """That of `SQUALL_DEV_SUFFIX`, by which people who share a server tell theirs apart; else the usual one.

    Raises:
        InvalidError: it is none.
    """
    for variable in ("SQUALL_DEV_SUFFIX", "MODAL_DEV_SUFFIX"):
        value = os.environ.get(variable, "")
        if value:
            if not re.match(WEB_SUFFIX, value.lower()):
                raise InvalidError(f"{variable}={value_text(value)}: use 1 to 16 ASCII letters and digits")
            return value.lower()
    return DEFAULT
