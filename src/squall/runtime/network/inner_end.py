"""The end of a slot's link that is inside: what it needs to reach the gateway.

Apart from `links`, and without its library, because the spawner needs it too.
"""

from __future__ import annotations

import errno

from squall.runtime.network.namespaces import entered_namespace
from squall.runtime.network.rtnl import (
    Request,
    RoutingSocket,
    add_address,
    add_default_route,
    add_neighbour,
    add_route,
)

INSIDE_INDEX = 2
"""The number of the interface."""
# Locally administered; the same on the machine's end of every pair, because nobody else is on that link.
GATEWAY_MAC = "02:73:71:00:00:01"


def restore_inner_end(path: str, address: str, gateway: str) -> None:
    """Give a slot its address and routes back, where somebody in it has taken them away. Idempotent; a slot that is
    gone needs nothing. Only the calling thread moves, there and back.

    Raises:
        RuntimeFailure: the kernel refused.
    """
    with entered_namespace(path) as is_there:
        if not is_there:
            return
        with RoutingSocket() as routing:
            requests = (add_address(INSIDE_INDEX, address), *inner_routes(gateway))
            routing.ask("restore", f"the network slot of {address}", *requests, ignored=(errno.EEXIST, errno.ENODEV))


def inner_routes(gateway: str) -> tuple[Request, ...]:
    """All goes to the gateway, which is there without being asked."""
    return (
        add_route(INSIDE_INDEX, gateway),
        add_default_route(INSIDE_INDEX, gateway),
        add_neighbour(INSIDE_INDEX, gateway, GATEWAY_MAC),
    )
