"""`volumes=` of functions and apps: what is mounted where."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from squall.exception import InvalidError
from squall.protocol.bucket import BucketMount, buckets_problem
from squall.protocol.volume import VolumeMount, mount_problem
from squall.sdk._value_text import value_text
from squall.sdk.cloud_bucket_mount import CloudBucketMount
from squall.sdk.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from squall.sdk._client import Client
    from squall.sdk.secret import Secret

Mounted = Volume | CloudBucketMount


def check_volumes(given: object, what: str) -> dict[str, Mounted]:
    """Volumes and buckets by the path they are mounted at.

    Raises:
        InvalidError: something is no path where one can be mounted, or neither a volume nor a bucket.
    """
    if not isinstance(given, Mapping):
        raise InvalidError(f'{what}: volumes={value_text(given)} must be a dictionary, such as {{"/data": volume}}')
    volumes: dict[str, Mounted] = {}
    for path, volume in given.items():
        if not isinstance(path, (str, PurePosixPath)):
            raise InvalidError(f"{what}: volumes={{{value_text(path)}: …}} must name absolute paths")
        if not isinstance(volume, (Volume, CloudBucketMount)):
            kinds = "a squall.Volume or a squall.CloudBucketMount"
            raise InvalidError(f"{what}: volumes={{{str(path)!r}: {value_text(volume)}}} must be {kinds}")
        target = posixpath.normpath(str(path))
        problem = mount_problem([VolumeMount("", target)])
        if problem:
            raise InvalidError(f"{what}: {problem}")
        volumes[target] = volume
    return volumes


async def mounts_of(
    given: Mapping[str, Mounted], client: Client, name_secret: Callable[[Secret], Awaitable[str]]
) -> tuple[tuple[VolumeMount, ...], tuple[BucketMount, ...]]:
    """The records of volumes, each of which is looked up, or made, by then, and of buckets.

    Raises:
        NotFoundError: there is none of that name.
        InvalidError: one volume is mounted twice.
    """
    volumes = {target: one for target, one in given.items() if isinstance(one, Volume)}
    mounts = await volume_mounts_of(volumes, client)
    buckets = [
        await one.mount_at(target, name_secret)
        for target, one in sorted(given.items())
        if isinstance(one, CloudBucketMount)
    ]
    problem = buckets_problem(buckets, mounts)
    if problem:
        raise InvalidError(problem)
    return mounts, tuple(buckets)


async def volume_mounts_of(volumes: Mapping[str, Volume], client: Client) -> tuple[VolumeMount, ...]:
    """The same of volumes alone.

    Raises:
        NotFoundError, InvalidError: as `mounts_of`.
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
