"""Images that were built: what is known of each, and what they are called."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from squall.protocol.empty import Empty
from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.protocol.image import BuildEvent, ImageBuild, ImageConfig
from squall.protocol.image_catalog import (
    ImageGet,
    ImageInfo,
    ImageList,
    ImageName,
    ImageNameDelete,
    ImageNameList,
    ImageNameListing,
    ImagePublish,
    parse_name,
    without_definition,
)
from squall.protocol.pages import PAGE_RECORDS_MAX
from squall.server.model.image import StoredImage, StoredImageName

if TYPE_CHECKING:
    from squall.server.dispatch.image.users import ImageUsers
    from squall.server.model.clock import Clock
    from squall.server.model.store import Store

LIST_MAX = 10_000
USED_EVERY_S = 60.0
"""How exact `used_at` is: not every build of what is there already is a write."""

_log = logging.getLogger("squall.server.dispatch.image.catalog")


class ImageCatalog:
    """What `ImageGet` and its neighbours answer from, in the store; told of what is built and used."""

    def __init__(self, *, store: Store, users: ImageUsers, clock: Clock) -> None:
        self._store = store
        self._users = users
        self._clock = clock
        self._known: dict[str, StoredImage] = {}
        """As they were last written, of those that were built since the start."""

    async def built(self, record: ImageBuild, event: BuildEvent) -> None:
        """An image was built, or found built. What cannot be written down is no failure of the build."""
        now = self._clock.now()
        config = event.config or ImageConfig()
        image = StoredImage(event.image_id, record.spec, config, event.layers, now, now, record.app_id)
        try:
            known = self._known.get(event.image_id) or await self._find(event.image_id)
            if known is not None:
                layers = event.layers or known.layers
                built_at = known.built_at if layers == known.layers else now
                image = replace(image, built_at=built_at, layers=layers, app_id=known.app_id or record.app_id)
                if replace(image, used_at=known.used_at) == known and now - known.used_at < USED_EVERY_S:
                    self._known[event.image_id] = known
                    return
            await self._store.put_image(image)
        except PlatformError as error:
            _log.warning("image %s is built and not in the list of images: %s", event.image_id, error)
            return
        self._known[event.image_id] = image

    async def used(self, image_ids: frozenset[str]) -> None:
        """Containers of these images run now."""
        now = self._clock.now()
        old = frozenset(
            one for one in image_ids if one not in self._known or now - self._known[one].used_at >= USED_EVERY_S
        )
        if old:
            await self._store.use_images(old, now)
            self._known.update({one: replace(self._known[one], used_at=now) for one in old if one in self._known})

    async def forget(self, image_ids: frozenset[str]) -> None:
        """These are on no node any more."""
        for image_id in await self._store.forget_images(image_ids):
            self._known.pop(image_id, None)

    async def is_known(self, image_id: str) -> bool:
        """Whether an image was built, and not forgotten. No, where that cannot be found out now."""
        try:
            return image_id in self._known or await self._find(image_id) is not None
        except PlatformError as error:
            _log.warning("whether image %s was built is not known: %s", image_id, error)
            return False

    async def _find(self, image_id: str) -> StoredImage | None:
        try:
            return await self._store.get_image(image_id)
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
            return None

    # Methods

    async def get(self, record: ImageGet) -> ImageInfo:
        """See `ImageGet`."""
        image_id = await self.resolve("ImageGet", record.image, record.environment)
        image = await self._find(image_id)
        if image is None:
            message = (
                f"ImageGet: no image {image_id[:100]} was built here; `squall image list` shows those that were, with "
                "their whole ids, and `squall image logs` what the steps of one printed whose build failed"
            )
            raise PlatformError(NOT_FOUND, message)
        return (await self._infos([image]))[0]

    async def resolve(self, method: str, text: str, environment: str = "") -> str:
        """The id of an image by its id or name.

        Raises:
            PlatformError: `not_found` for a name that points to none, `invalid` for what is no name.
        """
        if text.startswith("im-"):
            return text
        ref = parse_name(text, environment)
        name = await self._store.find_image_name(ref)
        if name is None:
            message = f"{method}: no image is published as {ref}; build one and call image.publish({str(ref)!r})"
            raise PlatformError(NOT_FOUND, message)
        return name.image_id

    async def list_images(self, record: ImageList) -> list[ImageInfo]:
        """Those that are asked for, as many as a page may have and one more."""
        before = None if record.before_at is None else (record.before_at, record.before_id)
        images = await self._store.list_images(max(0, min(record.limit, PAGE_RECORDS_MAX + 1)), before)
        return [without_definition(info) for info in await self._infos(images)]

    async def _infos(self, images: Iterable[StoredImage]) -> list[ImageInfo]:
        names: dict[str, list[str]] = {}
        for name in await self._store.list_image_names():
            names.setdefault(name.image_id, []).append(str(name.ref))
        users = self._users.now()
        return [
            ImageInfo(
                image.image_id,
                image.built_at,
                image.used_at,
                image.layers,
                image.app_id,
                tuple(names.get(image.image_id, ())),
                users.get(image.image_id, ()),
                image.spec,
                image.config,
            )
            for image in images
        ]

    async def publish(self, record: ImagePublish) -> ImageName:
        """See `ImagePublish`."""
        ref = parse_name(record.name, record.environment)
        wanted = StoredImageName(ref, record.image_id, self._clock.now())
        # What is being removed at this moment is not to get a name.
        async with self._users.steady:
            try:
                return _name(await self._store.publish_image(wanted))
            except PlatformError as error:
                if error.code != NOT_FOUND:
                    raise
                message = f"ImagePublish: no image {record.image_id[:100]} was built here; call image.build(app) first"
                raise PlatformError(NOT_FOUND, message) from error

    async def list_names(self, record: ImageNameList) -> ImageNameListing:
        """See `ImageNameList`."""
        names = await self._store.list_image_names(record.environment, record.prefix, earlier=record.include_earlier)
        return ImageNameListing(tuple(_name(one) for one in names[: max(0, min(record.limit, LIST_MAX))]))

    async def delete_name(self, record: ImageNameDelete) -> Empty:
        """See `ImageNameDelete`."""
        ref = parse_name(record.name, record.environment)
        if not await self._store.delete_image_name(ref):
            message = f"ImageNameDelete: no image is published as {ref}; `squall image names list` shows the names"
            raise PlatformError(NOT_FOUND, message)
        return Empty()


def _name(stored: StoredImageName) -> ImageName:
    return ImageName(str(stored.ref), stored.image_id, stored.published_at, stored.is_current)
