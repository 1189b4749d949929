"""Versions of deployed apps, as the store has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from squall.protocol.deployment import ROLLING, Commit
from squall.protocol.function import FunctionSpec

VERSIONS_KEPT = 100
"""Of one app, besides those that functions are held to: what can be looked at and gone back to."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of an app. What its functions are is stored beside it, and read only to publish it again."""

    app_id: str
    version: int
    deployed_at: float
    deploy_id: str = ""
    """Of the request that made it: one that comes again makes no other."""
    strategy: str = ROLLING
    tag: str = ""
    client_version: str = ""
    deployed_by: str = ""
    commit: Commit | None = None
    restored_version: int = 0
    function_count: int = 0
    image_ids: tuple[str, ...] = ()
    mount_ids: tuple[str, ...] = ()
    blob_sha256s: tuple[str, ...] = ()
    """What must be kept for it to run: images, files, pickled functions."""


def needs_of(functions: Sequence[FunctionSpec]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The images, mounts and blobs that these functions name."""
    return (
        tuple(sorted({one.image_id for one in functions})),
        tuple(sorted({mount.mount_id for one in functions for mount in one.mounts})),
        tuple(sorted({one.definition.blob_sha256 for one in functions} - {""})),
    )


def superseded(versions: Iterable[int], keep: int, pinned: Iterable[int]) -> list[int]:
    """Those versions of an app that are no longer kept: all but the newest and those that something is held to."""
    newest_first = sorted(versions, reverse=True)
    held = set(pinned)
    return [version for version in newest_first[max(1, keep) :] if version not in held]
