"""Who needs which images now: apps that live, the versions of those that are deployed, and containers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from squall.protocol.app import DEPLOYED

if TYPE_CHECKING:
    from squall.server.dispatch.app.apps import Apps
    from squall.server.dispatch.fleet.fleet import ContainerFleet
    from squall.server.model.clock import Clock

DEPLOY_S = 24 * 3600.0
"""How long after it asked for an image a deploy may take to publish what needs it."""


class ImageUsers:
    """Asked before an image is removed, and when one is shown.

    An app needs an image from the moment it asks for its build: until its functions are there nothing else says so. One
    that is deployed asks again and again, for version after version: what came into none of them is needed no more.
    """

    def __init__(self, *, apps: Apps, fleet: ContainerFleet, clock: Clock) -> None:
        self._apps = apps
        self._fleet = fleet
        self._clock = clock
        self._claims: dict[str, dict[str, float]] = {}
        """Images by the app that asked for them, with the time it did."""
        self.steady = asyncio.Lock()
        """Held while images are removed, and by whoever makes one needed without an app."""

    def claim(self, app_id: str, image_id: str) -> None:
        """An app will need an image, for as long as it lives."""
        if app_id in self._apps.live or app_id in self._apps.drafts:
            self._claims.setdefault(app_id, {})[image_id] = self._clock.monotonic()

    def now(self) -> dict[str, tuple[str, ...]]:
        """Images that are needed, and by whom, in words."""
        apps = self._claimed()
        for deployed in self._apps.live.values():
            for version in deployed.versions.values():
                apps.setdefault(deployed.app_id, set()).update(version.image_ids)
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

    def _claimed(self) -> dict[str, set[str]]:
        """What apps have asked for, and may still come to need."""
        asked_since = self._clock.monotonic() - DEPLOY_S
        for app_id, claims in list(self._claims.items()):
            app = self._apps.live.get(app_id)
            if app is None and app_id not in self._apps.drafts:
                del self._claims[app_id]
            elif app is None or app.row.state == DEPLOYED:
                self._claims[app_id] = {image_id: at for image_id, at in claims.items() if at > asked_since}
        return {app_id: set(claims) for app_id, claims in self._claims.items()}

    def of_containers(self) -> frozenset[str]:
        """Images of the containers that there are."""
        return frozenset(one.spec.image_id for one in self._fleet.containers.values())
