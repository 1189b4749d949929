"""Requests of rtnetlink(7), written out: several in one message, one round trip for all of them.

A slot needs ten. One by one through pyroute2 they took the server 5 ms of processor time for each container, most of it
spent on finding out how to encode what is always the same. What is asked seldom, or has answers to read, stays with
the library (`netlink.py`).

Layouts and numbers are those of linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h, neighbour.h and veth.h, which are
part of the kernel's interface to programs and do not change.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

from squall.runtime.errors import RuntimeFailure, describe_errno

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP, _NLM_F_EXCL, _NLM_F_CREATE = 1, 4, 0x300, 0x200, 0x400
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_NEWROUTE, _RTM_NEWNEIGH = 16, 17, 18, 20, 24, 28
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_NDA_DST, _NDA_LLADDR = 1, 2
_IFF_UP = 1
# What an interface says of itself when it comes up, and what it counts: by itself, and nobody's doing.
_IFF_BY_ITSELF = 0x40 | 0x10000 | 0x20000
_IFLA_STATS, _IFLA_OPERSTATE, _IFLA_STATS64, _IFLA_AF_SPEC, _IFLA_EVENT = 7, 16, 23, 26, 44
_IFLA_CARRIER, _IFLA_CARRIER_CHANGES, _IFLA_CARRIER_UP_COUNT, _IFLA_CARRIER_DOWN_COUNT = 33, 35, 47, 48
_IFLA_BY_ITSELF = frozenset((
    _IFLA_STATS, _IFLA_OPERSTATE, _IFLA_STATS64, _IFLA_EVENT, _IFLA_CARRIER, _IFLA_CARRIER_CHANGES,
    _IFLA_CARRIER_UP_COUNT, _IFLA_CARRIER_DOWN_COUNT,
))  # fmt: skip
# Of IPv6 its flags, counts, and a time that the kernel draws anew now and then.
_INET6_FLAGS, _INET6_STATS, _INET6_CACHEINFO, _INET6_ICMP6STATS = 1, 3, 5, 6
_INET6_BY_ITSELF = frozenset((_INET6_FLAGS, _INET6_STATS, _INET6_CACHEINFO, _INET6_ICMP6STATS))
_NESTED = 0x3FFF
"""An attribute's number without its marks."""
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_NUD_PERMANENT = 0x80
_CREATE = _NLM_F_CREATE | _NLM_F_EXCL
_DUMP = _NLM_F_REQUEST | _NLM_F_DUMP
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ANSWER_BYTES = 64 * 1024
_ANSWER_S = 10.0


class Request(NamedTuple):
    """One thing that the kernel is asked to do."""

    what: str
    """A part of what is set up, for the error."""
    kind: int
    flags: int
    body: bytes


class VethEnd(NamedTuple):
    """One end of a pair of virtual interfaces."""

    name: str
    mac: str
    mtu: int


class LinkState(NamedTuple):
    """All that the kernel tells of an interface, but for what changes by itself."""

    number: int
    flags: int
    attributes: frozenset[tuple[tuple[int, ...], bytes]]
    """By their numbers, of those of address families the family's before them."""


def add_veth(here: VethEnd, index: int, there: VethEnd, namespace_fd: int) -> Request:
    """A pair of interfaces: one here, of that number, the other one in another namespace."""
    peer = _attribute(_VETH_INFO_PEER, _link(0) + _of_end(there) + _number(_IFLA_NET_NS_FD, namespace_fd))
    kind = _attribute(_IFLA_INFO_KIND, b"veth") + _attribute(_IFLA_INFO_DATA, peer)
    body = _link(index) + _of_end(here) + _attribute(_IFLA_LINKINFO, kind)
    return Request(f"the pair of {here.name} and {there.name}", _RTM_NEWLINK, _CREATE, body)


def set_up(index: int) -> Request:
    """The interface may be used."""
    return Request("its start", _RTM_NEWLINK, 0, _link(index, _IFF_UP, _IFF_UP))


def delete_link(name: str) -> Request:
    """The interface is gone, and the other end of a pair with it."""
    return Request("its interface", _RTM_DELLINK, 0, _link(0) + _text(_IFLA_IFNAME, name))


def add_address(index: int, address: str) -> Request:
    """The interface has that address, and no others are on its link."""
    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, _SCOPE_UNIVERSE, index)
    return Request(
        f"address {address}", _RTM_NEWADDR, _CREATE, body + _ip(_IFA_LOCAL, address) + _ip(_IFA_ADDRESS, address)
    )


def add_route(index: int, destination: str, source: str = "") -> Request:
    """One address is reached by that interface, directly; from `source`, where one is given."""
    body = _route(32, _SCOPE_LINK) + _ip(_RTA_DST, destination) + _number(_RTA_OIF, index)
    body += _ip(_RTA_PREFSRC, source) if source else b""
    return Request(f"the route to {destination}", _RTM_NEWROUTE, _CREATE, body)


def add_default_route(index: int, gateway: str) -> Request:
    """All others are reached through a gateway."""
    body = _route(0, _SCOPE_UNIVERSE) + _ip(_RTA_GATEWAY, gateway) + _number(_RTA_OIF, index)
    return Request(f"the route through {gateway}", _RTM_NEWROUTE, _CREATE, body)


def add_neighbour(index: int, address: str, mac: str) -> Request:
    """That address has that hardware address, for ever: nobody is asked for it."""
    body = struct.pack("=BxxxiHBB", socket.AF_INET, index, _NUD_PERMANENT, 0, 0)
    body += _ip(_NDA_DST, address) + _attribute(_NDA_LLADDR, _mac(mac))
    return Request(f"the hardware address of {address}", _RTM_NEWNEIGH, _CREATE, body)


class RoutingSocket:
    """A connection to the routing tables of the namespace that the thread is in when it is made.

    Raises (when it is made):
        RuntimeFailure: the process has no descriptor left.
    """

    def __init__(self) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE)
        except OSError as error:
            raise RuntimeFailure(describe_errno("open", "a routing socket", error.errno or 0)) from error
        self._socket.settimeout(_ANSWER_S)

    def __enter__(self) -> RoutingSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, operation: str, subject: str, *requests: Request, ignored: tuple[int, ...] = ()) -> None:
        """Have them carried out in order; one that fails does not keep those after it from being tried.

        Args:
            operation, subject: what they are for, as the error says it.
            ignored: errors that are none.

        Raises:
            RuntimeFailure: of the first that failed.
        """
        message = b"".join(_encoded(number, request) for number, request in enumerate(requests, 1))
        try:
            self._socket.send(message)
            errors = self._answers(len(requests))
        except TimeoutError as error:
            raise RuntimeFailure(f"cannot {operation} {subject}: no answer within {_ANSWER_S:g} s") from error
        except OSError as error:
            raise RuntimeFailure(describe_errno(operation, subject, error.errno or 0)) from error
        for number, request in enumerate(requests, 1):
            if errors.get(number, 0) and errors[number] not in ignored:
                raise RuntimeFailure(describe_errno(operation, f"{subject} ({request.what})", errors[number]))

    def links(self) -> frozenset[LinkState]:
        """All interfaces of the namespace.

        Raises:
            RuntimeFailure: the kernel does not tell.
        """
        found: set[LinkState] = set()
        try:
            self._socket.send(_HEADER.pack(_HEADER.size + _LINK.size, _RTM_GETLINK, _DUMP, 1, 0) + _link(0))
            while True:
                data = self._socket.recv(_ANSWER_BYTES)
                kinds = [kind for kind, _ in _messages(data)]
                found.update(state for state in read_link_changes(data) if state is not None)
                if _NLMSG_DONE in kinds or _NLMSG_ERROR in kinds:
                    return frozenset(found)
        except OSError as error:
            raise RuntimeFailure(describe_errno("list", "the interfaces of a slot", error.errno or 0)) from error

    def _answers(self, count: int) -> dict[int, int]:
        """Of each request its error, 0 if it was carried out."""
        errors: dict[int, int] = {}
        while len(errors) < count:
            data = self._socket.recv(_ANSWER_BYTES)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, _, number, _ = _HEADER.unpack_from(data, offset)
                if kind == _NLMSG_ERROR:
                    errors[number] = -struct.unpack_from("=i", data, offset + _HEADER.size)[0]
                offset += _aligned(max(length, _HEADER.size))
        return errors


def read_link_changes(data: bytes) -> Iterator[LinkState | None]:
    """What messages of the kernel say of interfaces, in order; None for everything that is not an interface's state."""
    for kind, body in _messages(data):
        yield _link_state(body) if kind == _RTM_NEWLINK else None


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        end = offset + max(length, _HEADER.size)
        yield kind, data[offset + _HEADER.size : end]
        offset = _aligned(end)


def _link_state(body: bytes) -> LinkState:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    attributes: set[tuple[tuple[int, ...], bytes]] = set()
    for kind, value in _read_attributes(body[_LINK.size :]).items():
        if kind == _IFLA_AF_SPEC:
            attributes.update(_of_families(value))
        elif kind not in _IFLA_BY_ITSELF:
            attributes.add(((kind,), value))
    return LinkState(index, flags & ~_IFF_BY_ITSELF, frozenset(attributes))


def _of_families(data: bytes) -> Iterator[tuple[tuple[int, ...], bytes]]:
    for family, settings in _read_attributes(data).items():
        if family != socket.AF_INET6:
            yield (_IFLA_AF_SPEC, family), settings
            continue
        for kind, value in _read_attributes(settings).items():
            if kind not in _INET6_BY_ITSELF:
                yield (_IFLA_AF_SPEC, family, kind), value


def _read_attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        found[kind & _NESTED] = data[offset + 4 : offset + size]
        offset += _aligned(max(size, 4))
    return found


def interface_index(name: str) -> int:
    """The number of an interface.

    Raises:
        RuntimeFailure: there is none of that name.
    """
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise RuntimeFailure(describe_errno("find interface", name, error.errno or 0)) from error


def _encoded(number: int, request: Request) -> bytes:
    flags = _NLM_F_REQUEST | _NLM_F_ACK | request.flags
    header = _HEADER.pack(_HEADER.size + len(request.body), request.kind, flags, number, 0)
    return _padded(header + request.body)


def _aligned(size: int) -> int:
    return (size + 3) & ~3


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (_aligned(len(data)) - len(data))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + _padded(value)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, os.fsencode(value) + b"\0")


def _ip(kind: int, address: str) -> bytes:
    return _attribute(kind, socket.inet_aton(address))


def _mac(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def _link(index: int, flags: int = 0, change: int = 0) -> bytes:
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, change)


def _route(prefix_length: int, scope: int) -> bytes:
    kinds = (_RT_TABLE_MAIN, _RTPROT_STATIC, scope, _RTN_UNICAST)
    return struct.pack("=BBBBBBBBI", socket.AF_INET, prefix_length, 0, 0, *kinds, 0)


def _of_end(end: VethEnd) -> bytes:
    return _text(_IFLA_IFNAME, end.name) + _attribute(_IFLA_ADDRESS, _mac(end.mac)) + _number(_IFLA_MTU, end.mtu)
