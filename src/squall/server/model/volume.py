"""What is remembered of volumes, and the contract of whatever remembers it. Invariants as in `model/store.py`.

A version is a root, the name of a node (`server/volume/nodes.py`). Nodes and the blocks that they name are of all
volumes together. They go in this order: a version is forgotten first, its nodes when no version has them any more, and
blocks when no node names them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from squall.protocol.volume import HOLE, VolumeRetention

R = TypeVar("R")

BACKGROUND = "background"
"""What the cause of a commit begins with that nobody asked for."""
ROOT_GONE = "what is in that version is not kept any more"


@dataclass(frozen=True, slots=True)
class NewNode:
    """A node that a version brings."""

    data: bytes
    blocks: frozenset[str]
    """The blocks that it names."""


class Nodes(Protocol):
    """Where nodes are."""

    def get(self, sha256: str) -> bytes:
        """One that was put. Raises KeyError."""

    def put(self, data: bytes, blocks: Collection[str] = ()) -> str:
        """Keep one, which names these blocks; its name."""


class MemoryNodes:
    """Nodes in memory, above those of another place."""

    def __init__(self, below: Nodes | None = None) -> None:
        self._below = below
        self.made: dict[str, NewNode] = {}
        """What was put here."""

    def get(self, sha256: str) -> bytes:
        """See `Nodes`."""
        made = self.made.get(sha256)
        if made is not None:
            return made.data
        if self._below is None:
            raise KeyError(sha256)
        return self._below.get(sha256)

    def put(self, data: bytes, blocks: Collection[str] = ()) -> str:
        """See `Nodes`."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.made[sha256] = NewNode(data, frozenset(blocks) - {HOLE})
        return sha256


@dataclass(frozen=True, slots=True)
class StoredVolumeVersion:
    """One version."""

    volume_id: str
    number: int = 0
    """From 1, without gaps when they are made; 0 is the empty beginning, which is not kept."""
    root: str = ""
    """Its node; empty when nothing is in it."""
    commit_id: str = ""
    created_at: float = 0.0
    cause: str = ""
    created_by: str = ""
    entry_count: int = 0
    size: int = 0
    put_count: int = 0
    removed_count: int = 0


class VolumeStore(Protocol):
    """Versions and nodes. Raises as `Store`."""

    async def head(self, volume_id: str) -> StoredVolumeVersion:
        """The newest version; number 0 of a volume without any."""

    async def get(self, volume_id: str, number: int) -> StoredVolumeVersion | None:
        """One version."""

    async def at(self, volume_id: str, moment: float) -> StoredVolumeVersion | None:
        """The version that was the newest then; None when it is not kept."""

    async def committed(self, volume_id: str, commit_id: str) -> StoredVolumeVersion | None:
        """The version that a commit made."""

    async def history(self, volume_id: str, limit: int, before: int | None = None) -> tuple[StoredVolumeVersion, ...]:
        """Versions, newest first; with `before` those with smaller numbers."""

    async def add(self, version: StoredVolumeVersion, nodes: Mapping[str, NewNode]) -> StoredVolumeVersion:
        """Keep a version as the newest, with the nodes that it brings: all of it or nothing. One that its commit has
        made already is returned as it is.

        Raises PlatformError `conflict` when its number is not the one after the newest, `not_found` when the volume is
        deleted, or its root is neither there nor brought.
        """

    async def look(self, work: Callable[[Nodes], R]) -> R:
        """What work finds that reads nodes, in a thread. It may keep no node beyond its end."""

    async def forget(self, volume_id: str, numbers: frozenset[int]) -> int:
        """Forget versions, but never the newest; how many."""

    async def roots(self) -> dict[tuple[str, int], str]:
        """Volume and number of each version there is, to its root."""

    async def nodes(self) -> frozenset[str]:
        """The names of all nodes there are."""

    async def remove_nodes(self, names: frozenset[str]) -> frozenset[str]:
        """Remove nodes that no version has any more; the blocks that no node names now, and these did."""

    async def get_retention(self, volume_id: str) -> VolumeRetention | None:
        """Which versions stay, where that was said."""

    async def put_retention(self, volume_id: str, retention: VolumeRetention) -> None:
        """Say so."""
