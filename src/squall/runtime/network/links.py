"""The kernel side of slots: every function here blocks, and runs on the pool's one thread.

A slot is routed, not bridged: its veth pair is a link of two, the machine's end has a route to that one address, and
there is no common segment on which one container could hear, answer for or speak as another. The bridge has no ports;
it is the interface that holds the gateway address and makes the subnet visible to whoever else chooses addresses.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

from squall.runtime.errors import RuntimeFailure, describe_errno
from squall.runtime.network.inner_end import GATEWAY_MAC, INSIDE_INDEX, inner_routes
from squall.runtime.network.names import Names
from squall.runtime.network.namespaces import unpin
from squall.runtime.network.netlink import IPRoute, NetlinkError
from squall.runtime.network.rtnl import (
    Request,
    RoutingSocket,
    VethEnd,
    add_address,
    add_neighbour,
    add_route,
    add_veth,
    delete_link,
    interface_index,
    set_up,
)
from squall.runtime.network.subnet import PREFIX_LENGTH, Subnet

FALLBACK_MTU = 1500
INSIDE = "eth0"
LOOPBACK_MTU = 65_536
LOOPBACK_INDEX = 1


@dataclass(frozen=True, slots=True)
class Machine:
    """What the machine's own network looks like."""

    addresses: tuple[str, ...]
    routed: tuple[IPv4Network, ...]
    """Everything it has a route to, the default route left out."""
    mtu: int
    """Of the interface the default route leaves by."""


def container_mac(index: int) -> str:
    """The hardware address inside a slot."""
    return f"02:73:71:01:{index >> 8:02x}:{index & 255:02x}"


@contextmanager
def _netlink(operation: str, subject: str) -> Iterator[IPRoute]:
    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        raise RuntimeFailure(describe_errno(operation, subject, error.code)) from error
    except OSError as error:
        raise RuntimeFailure(describe_errno(operation, subject, error.errno or 0)) from error


def _attribute(message: Any, name: str) -> Any:
    return message.get_attr(name)


def inspect_machine(names: Names) -> Machine:
    """Look at addresses and routes; the instance's own interfaces are left out."""
    with _netlink("list", "addresses and routes") as route:
        links = {link["index"]: link for link in route.get_links()}
        ours = {i for i, link in links.items() if str(_attribute(link, "IFLA_IFNAME")).startswith(f"sq{names.tag}")}
        addresses = [message for message in route.get_addr(family=socket.AF_INET) if message["index"] not in ours]
        routes = [
            message for message in route.get_routes(family=socket.AF_INET) if _attribute(message, "RTA_OIF") not in ours
        ]
    texts = [str(_attribute(message, "IFA_LOCAL") or _attribute(message, "IFA_ADDRESS")) for message in addresses]
    routed = [
        IPv4Network((str(_attribute(message, "RTA_DST")), message["dst_len"]), strict=False)
        for message in routes
        if message["dst_len"] > 0 and _attribute(message, "RTA_DST")
    ]
    defaults = [message for message in routes if message["dst_len"] == 0 and _attribute(message, "RTA_OIF") in links]
    defaults.sort(key=lambda message: _attribute(message, "RTA_PRIORITY") or 0)
    mtu = int(_attribute(links[_attribute(defaults[0], "RTA_OIF")], "IFLA_MTU")) if defaults else FALLBACK_MTU
    return Machine(tuple(texts), tuple(routed), mtu)


def find_subnet(names: Names) -> Subnet | None:
    """The subnet an earlier run gave this instance, read off its bridge."""
    with _netlink("find", names.bridge) as route:
        for index in route.link_lookup(ifname=names.bridge):
            for message in route.get_addr(family=socket.AF_INET, index=index):
                return Subnet(IPv4Interface(f"{_attribute(message, 'IFA_ADDRESS')}/{message['prefixlen']}").network)
    return None


def find_slots(names: Names) -> set[int]:
    """Indexes of the slots whose veth exists."""
    with _netlink("list", "interfaces") as route:
        interfaces = [str(_attribute(link, "IFLA_IFNAME")) for link in route.get_links()]
    return {index for interface in interfaces if (index := names.index_of(interface)) is not None}


def write_sysctl(name: str, value: str) -> None:
    """Set a kernel parameter of the namespace the thread is in; one this kernel does not have is no error."""
    path = f"/proc/sys/{name}"
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RuntimeFailure(describe_errno(f"write {value} to", path, error.errno or 0)) from error


def read_sysctl(name: str) -> str:
    """A kernel parameter's value, empty where there is none."""
    try:
        with open(f"/proc/sys/{name}", encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def make_bridge(names: Names, subnet: Subnet, mtu: int) -> None:
    """The interface that carries the gateway address. May be repeated."""
    with _netlink("make bridge", names.bridge) as route:
        found = route.link_lookup(ifname=names.bridge)
        if not found:
            route.link("add", ifname=names.bridge, kind="bridge", address=GATEWAY_MAC, mtu=mtu)
            write_sysctl(f"net/ipv6/conf/{names.bridge}/disable_ipv6", "1")
            found = route.link_lookup(ifname=names.bridge)
            route.addr("add", index=found[0], address=subnet.gateway, prefixlen=PREFIX_LENGTH)
        route.link("set", index=found[0], state="up")


def remove_link(name: str) -> None:
    """Remove an interface (a veth takes its other end along). Idempotent."""
    with RoutingSocket() as routing:
        routing.ask("remove", name, delete_link(name), ignored=(errno.ENODEV,))


def _let_ordinary_programs_work() -> None:
    # The namespace belongs to the machine's root, so a container has no privileges over it: what programs expect root
    # to be allowed (port 80, ping) is allowed to everybody instead.
    write_sysctl("net/ipv4/ip_unprivileged_port_start", "0")
    write_sysctl("net/ipv4/ping_group_range", "0 2147483647")
    # Later interfaces have no IPv6; ::1 stays, programs listen on it.
    write_sysctl("net/ipv6/conf/default/disable_ipv6", "1")


def furnish_blocked(namespace: AbstractContextManager[None]) -> None:
    """Let a namespace have nothing but its loopback. It is entered as `namespace`, and left."""
    with namespace, RoutingSocket() as routing:
        routing.ask("set up", "a namespace without network", set_up(LOOPBACK_INDEX))
        _let_ordinary_programs_work()


def furnish(
    namespace: AbstractContextManager[None], names: Names, subnet: Subnet, index: int, *, mtu: int, home_fd: int
) -> None:
    """Let a namespace have an address and routes, with the machine's end in place. It is entered as `namespace`.

    Raises:
        RuntimeFailure: no interface of the slot is left then.
    """
    address, veth = subnet.slot(index), names.veth(index)
    try:
        with namespace, RoutingSocket() as routing:
            _let_ordinary_programs_work()
            inner = _inner_end(subnet, index, mtu=mtu, peer=veth, home_fd=home_fd)
            routing.ask("set up", f"network slot {veth}", *inner)
        _finish_outer_end(veth, subnet, address, container_mac(index))
    except BaseException:
        remove_link(veth)
        raise


def _inner_end(subnet: Subnet, index: int, *, mtu: int, peer: str, home_fd: int) -> tuple[Request, ...]:
    # Made here and the peer sent home, not the other way round: the rules of the machine's namespace are not walked for
    # an interface that is about to leave.
    inner, outer = VethEnd(INSIDE, container_mac(index), mtu), VethEnd(peer, GATEWAY_MAC, mtu)
    return (
        set_up(LOOPBACK_INDEX),
        add_veth(inner, INSIDE_INDEX, outer, home_fd),
        # A /32, so that other containers are beyond the gateway, which refuses at once; on-link they would be waited
        # for.
        add_address(INSIDE_INDEX, subnet.slot(index)),
        set_up(INSIDE_INDEX),
        *inner_routes(subnet.gateway),
    )


def _finish_outer_end(veth: str, subnet: Subnet, address: str, mac: str) -> None:
    write_sysctl(f"net/ipv6/conf/{veth}/disable_ipv6", "1")
    write_sysctl(f"net/ipv4/conf/{veth}/rp_filter", "1")
    write_sysctl(f"net/ipv4/conf/{veth}/send_redirects", "0")
    write_sysctl(f"net/ipv4/conf/{veth}/route_localnet", "1")
    write_sysctl(f"net/ipv4/conf/{veth}/forwarding", "1")
    link = interface_index(veth)
    with RoutingSocket() as routing:
        routing.ask(
            "set up",
            f"network slot {veth}",
            set_up(link),
            add_route(link, address, source=subnet.gateway),
            add_neighbour(link, address, mac),
        )


def remove_slot(names: Names, index: int, path: str) -> None:
    """Remove a slot, whatever is left of it. Idempotent."""
    # The link first: a namespace that something still holds must not go on talking.
    remove_link(names.veth(index))
    unpin(path)


def enable_forwarding() -> bool:
    """Let the machine forward packets; True when it did not before."""
    if read_sysctl("net/ipv4/ip_forward") == "1":
        return False
    write_sysctl("net/ipv4/ip_forward", "1")
    return True
