"""Who is started from a template: its functions, each as it is since a version of its app."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from squall.protocol.records import record

USERS_MAX = 256
"""Of one template. Of more, those that were started longest ago are not known to be: if all that are known leave it, it
is made again for them."""


@record
class TemplateUser:
    """One function, as it was when it was last started from the template."""

    follows_id: str
    version: int
    """Both as in `ContainerStart`."""


class Versioned(Protocol):
    """A function in one of its versions, or what was made for it."""

    @property
    def follows_id(self) -> str:
        """As in `ContainerStart`."""

    @property
    def version(self) -> int:
        """The same."""


def is_old(one: Versioned, functions: Mapping[str, int]) -> bool:
    """Whether its function is gone, or was changed since.

    Args:
        functions: those of its app, and since which version each is as it is.
    """
    return bool(one.follows_id) and functions.get(one.follows_id, math.inf) > one.version
