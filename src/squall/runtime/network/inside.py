"""Sockets that begin inside a slot: what listens there on loopback is reached, and nothing of the machine's."""

from __future__ import annotations

import socket

from squall.runtime.errors import RuntimeFailure
from squall.runtime.network.namespaces import entered_namespace
from squall.runtime.spec import NetworkSlot


def sockets_inside(slot: NetworkSlot) -> list[tuple[socket.socket, str]]:
    """Unconnected sockets in the slot's namespace, for its loopback by IPv4 and by IPv6, and for its own address; each
    with what it is to be connected to. Not to be called where an event loop runs: the thread visits the namespace.

    Raises:
        RuntimeFailure: the namespace is gone, or the thread could not come back; it is then of no use any more.
    """
    made: list[tuple[socket.socket, str]] = []
    try:
        with entered_namespace(slot.netns_path) as is_there:
            if not is_there:
                raise RuntimeFailure(f"cannot connect in slot {slot.name}: its network namespace is gone")
            for family, address in _places(slot):
                made.append((socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), address))
    except BaseException:
        for one, _ in made:
            one.close()
        raise
    return made


def _places(slot: NetworkSlot) -> list[tuple[socket.AddressFamily, str]]:
    places = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    return [*places, (socket.AF_INET, slot.address)] if slot.address else places
