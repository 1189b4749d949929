"""Whose forks may enter a network namespace: that of a slot for clones belongs to a user namespace of theirs.

A clone is a fork of a process without privileges, which can enter a namespace only where it has power over it. So a
slot for clones cannot belong to the machine, as all others do, nor to another range than the clone's own. See
docs/decisions/0062.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from squall.runtime.spec import IdRange


@dataclass(frozen=True, slots=True)
class SlotOwner:
    """A template's user: slots made for one go to no other."""

    id_range: IdRange
    uid: int
    """As seen inside."""


MakeNamespaces = Callable[[IdRange, int, int], Awaitable[Sequence[int]]]
"""Makes some empty network namespaces of an owner. The descriptors are the caller's then. `Runtime` has one."""
