"""What the server knows of built images: which there are, what they are called, what they occupy, who needs them.

A published name is `name[:tag]` in an environment (`environment/name:tag` where it is not the caller's); the tag is
`latest` where none is given. A name points to one image at a time; which it pointed to before is kept for a while.
"""

from __future__ import annotations

import re

from squall.protocol.environment import DEFAULT
from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.image import BuiltLayer, ImageConfig, ImageSpec
from squall.protocol.names import NAME, NAME_RULE
from squall.protocol.records import field, record, replace

LATEST = "latest"


@record
class ImageRef:
    """A name in its parts."""

    environment: str
    name: str
    tag: str = LATEST

    def __str__(self) -> str:
        environment = f"{self.environment}/" if self.environment else ""
        return f"{environment}{self.name}:{self.tag}"


@record
class ImageGet:
    """Ask for one image by id or by name."""

    image: str
    environment: str = ""


@record
class ImageInfo:
    """One image that was built."""

    image_id: str
    built_at: float
    """Seconds since 1970, as all times here."""
    used_at: float
    """When a build or a function last asked for it; to the minute."""
    layers: tuple[BuiltLayer, ...] = ()
    """Bottom first."""
    app_id: str = ""
    """The app that it was built for; empty for none."""
    names: tuple[str, ...] = ()
    """As it is published now."""
    users: tuple[str, ...] = ()
    """Apps and containers that need it now, in words."""
    spec: ImageSpec | None = None
    """How it is built; not in lists."""
    config: ImageConfig | None = None
    """What its containers start with; not in lists."""

    @property
    def size_bytes(self) -> int:
        """Of all its layers; other images may share some."""
        return sum(layer.size_bytes for layer in self.layers)


@record
class ImageList:
    """Ask for images, the last used first."""

    limit: int = 100
    before_at: float | None = None
    """Those that were used before the last one of the page before, or at that time with a smaller id."""
    before_id: str = ""

    def following(self, listing: ImageListing) -> ImageList | None:
        """The question for the next page."""
        if not listing.is_cut or not listing.images:
            return None
        last = listing.images[-1]
        if self.before_at is not None and (last.used_at > self.before_at or last.image_id == self.before_id):
            return None
        left = max(0, self.limit - len(listing.images))
        return replace(self, limit=left, before_at=last.used_at, before_id=last.image_id)


@record
class ImageListing:
    """The answer to `ImageList`: a page of it."""

    images: tuple[ImageInfo, ...]
    is_cut: bool = False
    """There are more."""


@record
class ImagePublish:
    """Let a name point to an image that was built.

    Errors: `invalid` for a name that is none, `not_found` for an image that was not built here.
    """

    image_id: str
    name: str
    environment: str = ""


@record
class ImageName:
    """What a name points to, or pointed to."""

    name: str
    """With tag, and environment where it has one."""
    image_id: str
    published_at: float
    is_current: bool = True


@record
class ImageNameList:
    """Ask for published names that begin so, in alphabetical order."""

    prefix: str = ""
    environment: str = ""
    include_earlier: bool = False
    """Also what they pointed to before, the newest first."""
    limit: int = 1_000


@record
class ImageNameListing:
    """The answer to `ImageNameList`."""

    names: tuple[ImageName, ...]


@record
class ImageNameDelete:
    """Take a name away; the image stays for as long as something else needs it."""

    name: str
    environment: str = ""


@record
class ImageGc:
    """Remove layers that nothing needs from every connected node.

    What a container that runs, a build under way, an app that has not stopped or a published name needs stays, and what
    was used in the last `older_than_s`.
    """

    older_than_s: float = 14 * 24 * 3600.0
    is_dry_run: bool = False
    """Only say what would be removed."""


@record
class LayerUse:
    """One layer of a node, and what became of it."""

    layer_id: str
    size_bytes: int
    made_at: float
    used_at: float
    is_removed: bool = False
    """Or would be, in a dry run."""
    image_ids: tuple[str, ...] = ()
    """Images of the node that it is part of."""
    users: tuple[str, ...] = ()
    """Who needs it, in words; nobody where it is only too young."""


@record
class NodeGc:
    """What a node removed."""

    node_id: str
    layers: tuple[LayerUse, ...] = ()
    """All it had."""
    freed_bytes: int = 0
    gone_image_ids: tuple[str, ...] = ()
    """Images that cannot be started from any more until they are built again."""
    error: str = ""
    """Why nothing was removed."""


@record
class ImageGcDone:
    """The answer to `ImageGc`."""

    nodes: tuple[NodeGc, ...]


@record
class NodeImageGc:
    """The same for one node. `needed` has the images that must stay, with who needs them in words."""

    older_than_s: float
    is_dry_run: bool = False
    needed: dict[str, tuple[str, ...]] = field(default_factory=dict)


@record
class ImageDelete:
    """Remove images from every connected node, with the layers that no other image has.

    Of a name that is given only the name goes while the image has others.

    Errors: `conflict`, and nothing is removed, for an image that a container, an app, another name, an image that
    begins with it, or something on a node needs; `invalid` for the beginning of several ids; `not_found`.
    """

    images: tuple[str, ...]
    """Names, ids, or beginnings of ids that no other image has."""
    environment: str = ""
    """Of names that have none."""
    is_dry_run: bool = False
    """Only say what would be removed."""


@record
class ImageDeleteDone:
    """The answer to `ImageDelete`."""

    names: tuple[str, ...] = ()
    """Taken away, or would be."""
    image_ids: tuple[str, ...] = ()
    """Removed, or would be."""
    named: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Images that stay because they have these other names."""
    kept: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Images that stay though nothing needed them at first, and why in words."""
    nodes: tuple[NodeGc, ...] = ()
    """With the layers of these images only."""
    away_node_ids: tuple[str, ...] = ()
    """Nodes that are not connected and have some of the images."""


@record
class NodeImageDelete:
    """The same for one node, of ids. What `needed` has stays, as in `NodeImageGc`."""

    image_ids: tuple[str, ...]
    is_dry_run: bool = False
    needed: dict[str, tuple[str, ...]] = field(default_factory=dict)


@record
class ImageLogRead:
    """Ask for what the steps of an image printed when they were built: a stream of `LogBatch`.

    Of an image that could not be built, the failed step's output is there for a while.
    """

    image: str
    layers: int = 0
    """Of the last so many steps that ran; 0 for all."""
    tail: int = -1
    """The last so many entries; -1 for all."""
    environment: str = ""


def parse_name(text: str, environment: str = "") -> ImageRef:
    """A name as users write it: `name`, `name:tag`, `environment/name:tag`.

    Raises:
        PlatformError: `invalid`, with the rule.
    """
    before, slash, rest = text.rpartition("/")
    name, colon, tag = rest.partition(":")
    found = ImageRef(("" if before == DEFAULT else before) if slash else environment, name, tag if colon else LATEST)
    words = [found.name, found.tag, *([before] if slash else [])]
    if not all(re.match(NAME, word) for word in words) or found.name.startswith("im-"):
        also = " and do not begin with `im-`, as ids do" if found.name.startswith("im-") else ""
        raise PlatformError(
            INVALID,
            f"{text[:200]!r} is no name of an image: write `name`, `name:tag` or `environment/name:tag`; each part is"
            f" {NAME_RULE}{also}",
        )
    return found


def without_definition(info: ImageInfo) -> ImageInfo:
    """As lists have it."""
    return replace(info, spec=None, config=None)
