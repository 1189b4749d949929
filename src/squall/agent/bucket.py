"""Buckets of a container as the runtime takes them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from squall.protocol.bucket import BucketStart
from squall.runtime.spec import Bucket


def files_dir(directory: Path, number: int) -> str:
    """Where a bucket of a container has what is read or written just now: the runtime makes it."""
    return str(directory / "buckets" / str(number) / "files")


def buckets_of(starts: Sequence[BucketStart]) -> tuple[Bucket, ...]:
    """Each under its number: what it is called may be no name of a directory."""
    return tuple(
        Bucket(
            str(number),
            start.mount.target,
            start.mount.bucket,
            start.mount.endpoint_url,
            start.mount.key_prefix,
            start.mount.is_read_only,
            start.mount.is_requester_paying,
            start.mount.has_path_style,
            env=start.keys,
        )
        for number, start in enumerate(starts)
    )
