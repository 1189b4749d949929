"""`cloud`, `region`, `routing_region` and `nonpreemptible`: which of somebody else's machines to rent.

On one's own machines there is nothing to choose, so nothing follows from them. They are checked as all others are, and
told as they were given by whatever tells about the function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from squall.exception import InvalidError
from squall.sdk._value_text import value_text

if TYPE_CHECKING:
    from squall.protocol.function import Hosting

CLOUDS = ("aws", "gcp", "oci", "auto")
REGION_CHARS_MAX = 64
REGIONS_MAX = 100


class HostingAsked:
    """What a decorator, or `.with_options(…)`, says of it; None of what it does not."""

    __slots__ = ("cloud", "is_nonpreemptible", "regions", "routing_region")

    def __init__(self, what: str, given: Mapping[str, Any], region: str = "region") -> None:
        """`region` is what that parameter is called.

        Raises:
            InvalidError: a value is none that it can have; `what` is whose it is.
        """
        self.cloud = _cloud(what, given.get("cloud"))
        self.regions = _regions(what, region, given.get(region))
        self.routing_region = _routing_region(what, given.get("routing_region"))
        nonpreemptible = given.get("nonpreemptible", False)
        if not isinstance(nonpreemptible, bool):
            raise InvalidError(f"{what}: nonpreemptible={value_text(nonpreemptible)} must be True or False")
        self.is_nonpreemptible = nonpreemptible

    def record(self) -> Hosting:
        """As a server keeps it."""
        from squall.protocol.function import Hosting  # cold start: only where an app is run

        return Hosting(self.cloud, self.regions, self.routing_region, self.is_nonpreemptible)

    @property
    def is_said(self) -> bool:
        """Whether anything is."""
        return self.is_nonpreemptible or any((self.cloud, self.regions, self.routing_region))


def _cloud(what: str, cloud: object) -> str | None:
    if cloud is None:
        return None
    if not isinstance(cloud, str) or cloud.lower() not in CLOUDS:
        raise InvalidError(f"{what}: cloud={value_text(cloud)} must be one of {', '.join(CLOUDS)}")
    return cloud.lower()


def _regions(what: str, parameter: str, region: object) -> tuple[str, ...] | None:
    if region is None:
        return None
    names = region if isinstance(region, (list, tuple)) else (region,)
    if len(names) > REGIONS_MAX or not all(_is_region(name) for name in names):
        raise InvalidError(
            f"{what}: {parameter}={value_text(region)} must be the name of a region, such as "
            f'"us-east", or a list of at most {REGIONS_MAX} of them'
        )
    return tuple(names) or None


def _routing_region(what: str, region: object) -> str | None:
    if region is not None and not _is_region(region):
        raise InvalidError(
            f'{what}: routing_region={value_text(region)} must be the name of a region, such as "us-east"'
        )
    return region if isinstance(region, str) else None


def _is_region(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= REGION_CHARS_MAX and name.isascii() and name.isprintable()
