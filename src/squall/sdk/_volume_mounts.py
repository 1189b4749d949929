"""`volumes=` of functions and apps: what is mounted where."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from squall.exception import InvalidError
from squall.protocol.volume import VolumeMount, mount_problem
from squall.sdk._value_text import value_text
from squall.sdk.volume import Volume

if TYPE_CHECKING:
    from squall.sdk._client import Client


def check_volumes(given: object, what: str) -> dict[str, Volume]:
    """Volumes by the path they are mounted at.

    Raises:
        InvalidError: something is no path where one can be mounted, or no volume.
    """
    if not isinstance(given, Mapping):
        raise InvalidError(f'{what}: volumes={value_text(given)} must be a dictionary, such as {{"/data": volume}}')
    volumes: dict[str, Volume] = {}
    for path, volume in given.items():
        if not isinstance(path, (str, PurePosixPath)):
            raise InvalidError(f"{what}: volumes={{{value_text(path)}: …}} must name absolute paths")
        if not isinstance(volume, Volume):
            raise InvalidError(f"{what}: volumes={{{str(path)!r}: {value_text(volume)}}} must be a squall.Volume")
        target = posixpath.normpath(str(path))
        problem = mount_problem([VolumeMount("", target)])
        if problem:
            raise InvalidError(f"{what}: {problem}")
        volumes[target] = volume
    return volumes


async def mounts_of(volumes: Mapping[str, Volume], client: Client) -> tuple[VolumeMount, ...]:
    """The records of volumes, each of which is looked up, or made, by then.

    Raises:
        NotFoundError: there is none of that name.
        InvalidError: one volume is mounted twice.
    """
    mounts = []
    for target, volume in sorted(volumes.items()):
        if volume._client is None:
            volume._client = client
        volume_id = await volume._resolved()
        mounts.append(
            VolumeMount(volume_id, target, volume._is_read_only, volume._sub_path, volume._version, volume.name or "")
        )
    problem = mount_problem(mounts)
    if problem:
        raise InvalidError(problem)
    return tuple(mounts)
