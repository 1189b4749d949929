"""Environments: names apart. An app is deployed, and an image published, under its name in one of them."""

from __future__ import annotations

import re

from squall.protocol.names import ENVIRONMENT
from squall.protocol.records import record

DEFAULT = "main"
"""Always there. Requests that name no environment mean it; in a container, they mean that of its app."""


def is_environment_name(text: str) -> bool:
    """Whether an environment may be called that."""
    return re.match(ENVIRONMENT, text) is not None


@record
class EnvironmentCreate:
    """Make an environment. Error: `exists` when there is one of that name."""

    name: str


@record
class EnvironmentDelete:
    """Delete an environment: its apps are stopped, its names of images taken away, and what is kept in
    it is deleted."""

    name: str


@record
class EnvironmentDeleted:
    """What went with it."""

    app_count: int = 0
    image_name_count: int = 0
    asset_count: int = 0


@record
class EnvironmentInfo:
    """One environment as listed."""

    name: str
    created_at: float = 0.0
    """Seconds since 1970; 0 for the default, which always was."""
    app_count: int = 0
    """Apps that live in it."""
    environment_id: str = ""


@record
class EnvironmentGet:
    """Ask for one; without a name, for the one that requests of the caller mean which name none."""

    environment: str = ""


@record
class EnvironmentList:
    """Ask for all."""


@record
class EnvironmentListing:
    """The default first, then by name."""

    environments: tuple[EnvironmentInfo, ...]
