"""The names of everything one instance puts into the kernel, so that whoever comes later can find it again.

Interface names hold 15 characters at most, hence the hash of the instance instead of its name.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

# Every instance's interfaces start with it: rules that keep containers apart also keep instances apart.
ANY_SLOT = "sq*"
_SLOT_NAME = re.compile("(c?)(b?)([0-9]+)")


@dataclass(frozen=True, slots=True)
class SlotName:
    """What a slot is called: by that name its namespace is pinned, and its container recorded."""

    number: int
    """Its place in the subnet, where it has one."""
    is_blocked: bool
    """It has nothing but a loopback, and no address."""
    is_owned: bool
    """Its namespace is of clones, not the machine's."""

    def __str__(self) -> str:
        return f"{'c' if self.is_owned else ''}{'b' if self.is_blocked else ''}{self.number}"


def parse_slot_name(text: str) -> SlotName:
    """The reverse of `str`.

    Raises:
        ValueError: no slot is called so.
    """
    match = _SLOT_NAME.fullmatch(text)
    if match is None:
        raise ValueError(f"no name of a network slot: {text!r}")
    return SlotName(int(match[3]), is_blocked=bool(match[2]), is_owned=bool(match[1]))


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one instance on this machine."""

    instance: str

    @property
    def tag(self) -> str:
        """Eight hexadecimal digits that stand for the instance."""
        return hashlib.sha256(self.instance.encode()).hexdigest()[:8]

    @property
    def bridge(self) -> str:
        """The interface that carries the gateway address."""
        return f"sq{self.tag}0"

    @property
    def veth_prefix(self) -> str:
        """What the machine's ends of all veth pairs start with."""
        return f"sq{self.tag}v"

    def veth(self, index: int) -> str:
        """The machine's end of one slot's veth pair."""
        return f"{self.veth_prefix}{index:x}"

    @property
    def table(self) -> str:
        """The nft table (family inet)."""
        return f"squall_{self.tag}"

    @property
    def comment(self) -> str:
        """Marks our rules in chains that belong to others."""
        return f"squall:{self.tag}"

    def index_of(self, interface: str) -> int | None:
        """The slot whose veth this is, or None for anybody else's interface."""
        digits = interface.removeprefix(self.veth_prefix)
        if digits == interface:
            return None
        try:
            return int(digits, 16)
        except ValueError:
            return None
