"""Which private addresses an instance uses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from squall.runtime.errors import RuntimeFailure

PREFIX_LENGTH = 20
# 10/8 first. The last two are not for private use, but no machine that routes all of RFC 1918 into a VPN has room
# elsewhere.
RANGES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15")
# Addresses before this one belong to the machine's side: the gateway, then one for each further local service.
FIRST_SLOT = 16


@dataclass(frozen=True, slots=True)
class Subnet:
    """The addresses of one instance: gateway, services of the machine, slots."""

    network: IPv4Network

    @property
    def gateway(self) -> str:
        """The machine as containers see it."""
        return str(self.network[1])

    def service(self, index: int) -> str:
        """The stand-in for the machine's local address number `index`; the first is the gateway itself."""
        if not 0 <= index < FIRST_SLOT - 1:
            raise RuntimeFailure(
                f"cannot make {index + 1} local addresses of this machine reachable for containers: at most "
                f"{FIRST_SLOT - 1}; name fewer resolvers and proxies"
            )
        return str(self.network[1 + index])

    def slot(self, index: int) -> str:
        """The address of a slot."""
        return str(self.network[index])

    @property
    def slot_indexes(self) -> range:
        """Indexes that slots may have."""
        return range(FIRST_SLOT, self.network.num_addresses - 1)


def choose_subnet(instance: str, taken: Iterable[IPv4Network]) -> Subnet:
    """A subnet that overlaps nothing the machine routes to; the same instance gets the same one while that is free.

    Raises:
        RuntimeFailure: every candidate overlaps a route.
    """
    occupied = [network for network in taken if network.prefixlen > 0]
    seed = int.from_bytes(hashlib.sha256(instance.encode()).digest()[:8], "big")
    for text in RANGES:
        whole = IPv4Network(text)
        count = 2 ** (PREFIX_LENGTH - whole.prefixlen)
        size = 2 ** (32 - PREFIX_LENGTH)
        for step in range(count):
            # A start that depends on the instance keeps two of them apart that look at the same moment, and keeps off
            # the low end of each range, where people number their own networks.
            start = int(whole.network_address) + (seed + step) % count * size
            candidate = IPv4Network((IPv4Address(start), PREFIX_LENGTH))
            if not any(candidate.overlaps(network) for network in occupied):
                return Subnet(candidate)
    raise RuntimeFailure(
        f"cannot choose addresses for containers: all of {', '.join(RANGES)} overlaps routes of this machine; "
        f"remove a route so that a /{PREFIX_LENGTH} is free"
    )
