"""Volumes of functions: whether they may be mounted, on which version containers begin, and what code in containers
asks of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from squall.protocol import volume as wire
from squall.protocol.asset import VOLUME
from squall.protocol.bucket import buckets_problem
from squall.protocol.errors import CONFLICT, FORBIDDEN, INVALID, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.image import step_title
from squall.protocol.records import replace as replaced
from squall.protocol.volume import mount_problem
from squall.server.dispatch.client.callers import Caller
from squall.server.volume.tree import PathError, parts_of

if TYPE_CHECKING:
    from squall.protocol.function import FunctionSpec
    from squall.protocol.image import ImageBuild
    from squall.protocol.image_shell import ImageShell
    from squall.server.dispatch.asset.assets import Assets
    from squall.server.dispatch.asset.volumes import Volumes
    from squall.server.dispatch.fleet.container import Container
    from squall.server.dispatch.fleet.fleet import ContainerFleet
    from squall.server.dispatch.fleet.templates import Template

R = TypeVar("R")

OF_FUNCTION_MAX = 100
WAIT_S = 3_600.0
"""For a node to commit, or to fetch what a reload needs."""


class VolumeMounts:
    """What functions and their containers have of volumes."""

    def __init__(self, *, assets: Assets, volumes: Volumes, fleet: ContainerFleet) -> None:
        self._assets = assets
        self._volumes = volumes
        self._fleet = fleet
        self.find_template: Callable[[str], Template | None] = lambda template_id: None
        """The one of that id, if it is loading."""
        self.specs: Callable[[], Iterable[FunctionSpec]] = tuple
        """Of the functions there are."""
        self._held: dict[str, dict[str, int]] = {}
        """By container, the version of each volume that it has been given: its node says the same a moment later, and
        until what was written there is committed."""

    async def check(self, caller: Caller, method: str, specs: Iterable[FunctionSpec]) -> None:
        """Whether functions may mount the volumes that they name.

        Raises:
            PlatformError: `not_found`, `forbidden`, `invalid`.
        """
        for spec in specs:
            whose = f"function {spec.name!r}"
            if problem := buckets_problem(spec.buckets, spec.volumes):
                raise PlatformError(INVALID, f"{method}: {whose}: {problem}")
            if spec.buckets and spec.is_network_blocked:
                what = f"bucket {spec.buckets[0].bucket} is reached by its network, which block_network=True blocks"
                raise PlatformError(INVALID, f"{method}: {whose}: {what}; give one of the two up")
            await self._check(caller, method, whose, spec.volumes)

    async def check_build(self, caller: Caller, record: ImageBuild) -> None:
        """Whether the steps of an image may mount the volumes that they name. On which versions, nodes find out.

        Raises:
            PlatformError: `not_found`, `forbidden`, `invalid`.
        """
        for number, step in enumerate(record.spec.steps, start=1):
            await self._check(caller, "ImageBuild", f"image step {number} ({step_title(step)})", step.volumes)

    async def for_shell(self, caller: Caller, record: ImageShell) -> ImageShell:
        """A shell with the volumes that it names.

        Raises:
            PlatformError: `not_found`, `forbidden`, `invalid`.
        """
        mounts = []
        for name in record.volumes:
            asset = await self._assets.find(caller, "ImageShell", VOLUME, name, record.environment)
            mounts.append(wire.VolumeMount(asset.asset_id, f"/mnt/{asset.name or asset.asset_id}", name=asset.name))
        await self._check(caller, "ImageShell", "the shell", mounts)
        return replaced(record, volumes=(), mounts=tuple(mounts))

    async def _check(self, caller: Caller, method: str, whose: str, mounts: Sequence[wire.VolumeMount]) -> None:
        what = f"{method}: {whose}"
        if len(mounts) > OF_FUNCTION_MAX:
            raise PlatformError(INVALID, f"{what} has {len(mounts)} volumes, at most {OF_FUNCTION_MAX}")
        problem = mount_problem(mounts)
        if problem:
            raise PlatformError(INVALID, f"{what}: {problem}")
        for mount in mounts:
            try:
                if "/".join(parts_of(mount.sub_path)) != mount.sub_path:
                    raise PathError("a sub-path is written without slashes before, after and beside each other")
            except PathError as error:
                raise PlatformError(INVALID, f"{what}: volume at {mount.target[:200]!r}: {error}") from None
            await self._assets.used(caller, method, VOLUME, mount.volume_id)
            if mount.version is not None:
                try:
                    await self._volumes.version_of(mount.volume_id, mount.version)
                except PlatformError as error:
                    _, _, why = error.message.partition(": ")
                    raise PlatformError(error.code, f"{what}: {why}") from None

    async def starts(self, container: Container) -> tuple[wire.VolumeStart, ...]:
        """The volumes of a container that is to start, each with its version then.

        Raises:
            PlatformError: `invalid` when one is not there any more.
        """
        # All asked at once, and all waited for: nobody asks on when the start has failed.
        found = await asyncio.gather(*map(self._start, container.spec.volumes), return_exceptions=True)
        started = []
        for one in found:
            if isinstance(one, BaseException):
                raise one
            started.append(one)
        if started:
            held = {one.mount.volume_id: one.version for one in started}
            self._hold(container, held)
        return tuple(started)

    async def _start(self, mount: wire.VolumeMount) -> wire.VolumeStart:
        try:
            version = await self._volumes.version_of(mount.volume_id, mount.version)
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
            # It will not come back: nobody is to try again.
            raise PlatformError(INVALID, f"volume at {mount.target}: {error.message}") from error
        return wire.VolumeStart(mount, version.number, version.root)

    def _hold(self, container: Container | Template, held: dict[str, int]) -> None:
        if container.container_id not in self._held:
            container.on_stopped.append(lambda: self._let_go(container))
        self._held.setdefault(container.container_id, {}).update(held)

    def _let_go(self, container: Container | Template) -> None:
        self._held.pop(container.container_id, None)

    def held(self, volume_id: str) -> frozenset[int]:
        """Versions of a volume that functions name, and those that containers have mounted, or have written on what is
        in no commit yet."""
        given = {versions[volume_id] for versions in self._held.values() if volume_id in versions}
        given |= {
            mount.version
            for spec in self.specs()
            for mount in spec.volumes
            if mount.volume_id == volume_id and mount.version is not None
        }
        nodes = self._fleet.nodes.values()
        return frozenset(
            given.union(*({number for one, number in node.held_volumes if one == volume_id} for node in nodes))
        )

    async def flush(self, caller: Caller, record: wire.VolumeFlush) -> wire.VolumeCommitted:
        """See `VolumeFlush`."""
        container = self._container_of(caller, "VolumeFlush", record.volume_id)
        asked = wire.NodeVolumeCommit(container.container_id, record.volume_id)
        answer = await self._ask_node(container, "VolumeFlush", "NodeVolumeCommit", asked, wire.VolumeCommitted)
        if answer.version is not None:
            return answer
        head = await self._volumes.version_of(record.volume_id, None)
        return replace(answer, version=head)

    async def reload(self, caller: Caller, record: wire.VolumeReload) -> wire.VolumeVersion:
        """See `VolumeReload`."""
        container = self._container_of(caller, "VolumeReload", record.volume_id)
        mount = next(one for one in container.spec.volumes if one.volume_id == record.volume_id)
        if mount.version is not None:
            message = f"version {mount.version} of the volume is mounted, which stays as it is"
            raise PlatformError(CONFLICT, f"VolumeReload: {message}")
        asked = wire.NodeVolumeReload(container.container_id, record.volume_id)
        version = await self._ask_node(container, "VolumeReload", "NodeVolumeReload", asked, wire.VolumeVersion)
        self._hold(container, {record.volume_id: version.number})
        return version

    async def _ask_node(
        self, container: Container | Template, method: str, asks: str, asked: Any, answer: type[R]
    ) -> R:
        """Have the node do it that a container is on. On which one a template is, nodes know."""
        nodes = self._fleet.nodes.values() if container.node is None else (container.node,)
        peers = [node.peer for node in nodes if node.peer is not None]
        for number, peer in enumerate(peers, 1):
            try:
                return await peer.request(asks, asked, answer, timeout_s=WAIT_S)
            except PlatformError as error:
                if error.code != NOT_FOUND or number == len(peers):
                    raise
        raise PlatformError(UNAVAILABLE, f"{method}: the container's node is away; try again")

    def is_mounted(self, caller: Caller, volume_id: str) -> bool:
        """Whether the caller is code in a container that has it mounted."""
        container_id = caller.client.container_id if caller.client is not None else ""
        container = self._fleet.containers.get(container_id) or self.find_template(container_id)
        return container is not None and any(mount.volume_id == volume_id for mount in container.spec.volumes)

    def _container_of(self, caller: Caller, method: str, volume_id: str) -> Container | Template:
        container_id = caller.client.container_id if caller.client is not None else ""
        container = self._fleet.containers.get(container_id) or self.find_template(container_id)
        if not caller.scope_app_id or container is None:
            raise PlatformError(FORBIDDEN, f"{method}: only a container that has the volume mounted can ask that")
        if not any(mount.volume_id == volume_id for mount in container.spec.volumes):
            message = f"volume {volume_id[:80]} is not mounted in this container"
            raise PlatformError(CONFLICT, f"{method}: {message}; name it in the volumes= of the function")
        return container
