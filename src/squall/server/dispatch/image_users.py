"""Who needs which images now: apps that live and containers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squall.server.dispatch.apps import Apps
    from squall.server.dispatch.fleet import ContainerFleet


class ImageUsers:
    """Asked before an image is removed, and when one is shown.

    An app needs an image from the moment it asks for its build: until its functions are there nothing else says so.
    """

    def __init__(self, *, apps: Apps, fleet: ContainerFleet) -> None:
        self._apps = apps
        self._fleet = fleet
        self._claims: dict[str, set[str]] = {}
        """Images by the app that asked for them."""
        self.steady = asyncio.Lock()
        """Held while images are removed, and by whoever makes one needed without an app."""

    def claim(self, app_id: str, image_id: str) -> None:
        """An app will need an image, for as long as it lives."""
        if app_id in self._apps.live:
            self._claims.setdefault(app_id, set()).add(image_id)

    def now(self) -> dict[str, tuple[str, ...]]:
        """Images that are needed, and by whom, in words."""
        for app_id in [one for one in self._claims if one not in self._apps.live]:
            del self._claims[app_id]
        apps = {app_id: set(image_ids) for app_id, image_ids in self._claims.items()}
        for dispatcher in self._apps.dispatchers.values():
            if dispatcher.stopped is None:
                apps.setdefault(dispatcher.spec.app_id, set()).add(dispatcher.spec.image_id)
        found: dict[str, list[str]] = {}
        for app_id, image_ids in apps.items():
            app = self._apps.live.get(app_id)
            name = f"app {app.row.name} ({app_id})" if app is not None and app.row.name else f"app {app_id}"
            for image_id in sorted(image_ids):
                found.setdefault(image_id, []).append(name)
        for container in self._fleet.containers.values():
            found.setdefault(container.spec.image_id, []).append(f"container {container.container_id}")
        return {image_id: tuple(users) for image_id, users in found.items()}

    def of_containers(self) -> frozenset[str]:
        """Images of the containers that there are."""
        return frozenset(one.spec.image_id for one in self._fleet.containers.values())
