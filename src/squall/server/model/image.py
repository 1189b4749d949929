"""Images as the server remembers them."""

from __future__ import annotations

from dataclasses import dataclass

from squall.protocol.image import BuiltLayer, ImageConfig, ImageSpec
from squall.protocol.image_catalog import ImageRef

EARLIER_NAMES_MAX = 50
"""Images that a name pointed to before, which are kept in mind."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that was built."""

    image_id: str
    spec: ImageSpec
    config: ImageConfig
    layers: tuple[BuiltLayer, ...]
    built_at: float
    """Seconds since 1970, as all times here."""
    used_at: float
    app_id: str = ""
    """The app it was built for."""


@dataclass(frozen=True, slots=True)
class StoredImageName:
    """What a name points to, or pointed to."""

    ref: ImageRef
    image_id: str
    published_at: float
    is_current: bool = True
